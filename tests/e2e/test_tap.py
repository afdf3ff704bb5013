"""A tap device as a port: a virtual machine beside the gateway, here a test that reads and writes its frames."""

import fcntl
import os
import select
import struct
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.waiting import within
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
GUEST_MAC = "02:00:00:00:09:09"
GUEST = {4: "10.9.0.9", 6: "2001:db8:9::9"}
GATEWAY = {4: "10.9.0.1/24", 6: "2001:db8:9::1/64"}
NET = {4: "10.9.0.0/24", 6: "2001:db8:9::/64"}
PORT = '\n[[port]]\nname = "tap"\ndevice = "tap0"\nrole = "lan"\n'

_mark = iter(range(1, 1 << 30))


class Guest:
    """The other side of the tap device."""

    def __init__(self, lab):
        with lab.gw.inside():
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH", b"tap0", IFF_TAP | IFF_NO_PI))
        lab.gw.ip("link set tap0 up")
        for family in (4, 6):
            lab.gw.ip(f"-{family} addr add {GATEWAY[family]} dev tap0{' nodad' if family == 6 else ''}")
            lab.gw.ip(f"neigh replace {GUEST[family]} lladdr {GUEST_MAC} dev tap0")
            lab.wan.ip(f"-{family} route replace {NET[family]} via {A.GW_WAN[family]}")
        self.mac = lab.gw.mac("tap0")

    def send(self, frame):
        os.write(self.fd, bytes(frame))

    def receives(self, mark, timeout=5.0):
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                frame = os.read(self.fd, 4096)
                if mark_of(frame) == mark:
                    return Ether(frame)
        return None

    def close(self):
        os.close(self.fd)


@pytest.fixture(scope="module")
def guest(lab):
    try:
        it = Guest(lab)
    except OSError as e:
        pytest.skip(f"no tap device: {e}")
    yield it
    it.close()


@pytest.mark.parametrize("mode", ["auto", "generic"])
def test_a_port_on_a_tap_device(gw_with, lab, wire, guest, mode, family):
    """Both ways, by worker and then by XDP, which sends to the tap device too."""
    gw = gw_with(lab_config(extra=PORT, mode=mode))
    out, inet = wire.sniffer(lab.inet, "eth0"), wire.sender(lab.inet, "eth0")
    ip = lambda src, dst: IP(src=src, dst=dst) if family == 4 else IPv6(src=src, dst=dst)
    hops = lambda p: p[IP].ttl if family == 4 else p[IPv6].hlim
    router = lab.wan.mac("inet")

    def there():
        mark = next(_mark)
        frame = Ether(src=GUEST_MAC, dst=guest.mac) / ip(GUEST[family], A.INET[family]) / UDP(sport=4000, dport=7)
        guest.send(frame / Raw(marked(mark)))
        return out.until(lambda p: mark_of(bytes(p)) == mark, timeout=1)

    def back():
        mark = next(_mark)
        frame = Ether(src=lab.inet.mac("eth0"), dst=router) / ip(A.INET[family], GUEST[family]) / UDP(sport=7, dport=4000)
        inet.send(frame / Raw(marked(mark)))
        return guest.receives(mark, timeout=1)

    # Sockets of the workers may not be open yet.
    within(5, "the first packets pass", lambda: there() and back())
    for n in range(5):
        got = there()
        assert got is not None and hops(got) == 62, f"packet {n} there"
        got = back()
        assert got is not None and hops(got) == 62 and got.dst == GUEST_MAC, f"packet {n} back"
    rows = gw.ports()
    assert rows["tap"]["fast"] >= 3 and rows["1"]["fast"] >= 3, (rows["tap"]["capability"], rows["1"]["capability"])
