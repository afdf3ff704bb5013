"""`mode = "tc"`: hosts leave segmentation and checksums to offloads, and the gateway forwards the large buffers whole."""

import contextlib
import json
import shutil
import socket
import threading

import pytest

from harness.config import acl_table, lab_config
from harness.lab import Addresses as A
from harness.nat import forward, nat_config, seen_as, talk
from harness.net import run
from harness.qos import car, policy, qos
from harness.traffic import iperf
from harness.tunnels import FAR, esp_keys, gateway_config, turned, wait_for

pytestmark = pytest.mark.sag

# Not in Python's socket module before 3.14.
UDP_SEGMENT = 103


@pytest.fixture(scope="module", autouse=True)
def offloads(lab):
    """Everything that a veth can leave to others is on, at the hosts and at the routers between."""
    for ns in (lab.lan1, lab.lan2, lab.inet, lab.wan):
        for dev in (name for name in ns.devices() if name != "lo"):
            ns.run(["ethtool", "-K", dev, "tx", "on", "rx", "on", "sg", "on", "tso", "on", "gso", "on", "gro", "on"], check=False)


def tc(**dataplane):
    return nat_config(mode="tc", **dataplane)


class Bulk:
    """Bytes of a pattern over a TCP connection, checked where they arrive."""

    PIECE = bytes(range(251)) * 1000

    def __init__(self, sender, receiver, pieces):
        self.sender, self.receiver, self.pieces = sender, receiver, pieces
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self):
        # Of a connection that is reset the receiver says so.
        with contextlib.suppress(OSError):
            for _ in range(self.pieces):
                self.sender.sendall(self.PIECE)

    def finish(self):
        """Whether all has arrived as it was sent."""
        got = bytearray()
        with contextlib.suppress(OSError):
            while len(got) < self.pieces * len(self.PIECE) and (more := self.receiver.recv(1 << 20)):
                got += more
        if right := got == self.PIECE * self.pieces:
            self.thread.join()
        return right


def connection(lab, peers, family=4):
    listener = peers.listen(lab.inet, A.INET[family])
    client = peers.connect(lab.lan1, listener.getsockname()[:2], source=(A.LAN1[family], 0), timeout=10)
    server, peer = peers.accept(listener, timeout=10)
    return client, server, peer


def received_buffers(lab):
    """Buffers that the device of the LAN port has received; a large one counts once."""
    return lab.gw.devices()["lan-a"]["rx_packets"]


def test_large_buffers_pass_whole_in_both_directions(gw_with, lab, peers, family):
    """IPv4 is translated, IPv6 is not. What is counted is segments, of which a buffer has up to 45."""
    gw = gw_with(tc())
    ports = gw.ports()
    assert {p["xdp_mode"] for p in ports.values()} == {"tc"} and "GSO" in ports["0"]["capability"]
    client, server, peer = connection(lab, peers, family)
    assert peer[0] == {4: A.GW_WAN[4], 6: A.LAN1[6]}[family]
    talk(client, server, 20_000)
    buffers, before = received_buffers(lab), gw.ports()["0"]
    assert Bulk(client, server, 40).finish()
    buffers, after = received_buffers(lab) - buffers, gw.ports()["0"]
    segments = after["rx_packets"] - before["rx_packets"]
    assert segments > 40 * len(Bulk.PIECE) / 1500, "each segment counts"
    assert buffers < segments / 2, f"{buffers} buffers of {segments} segments"
    assert after["fast"] - before["fast"] > segments * 0.9
    assert Bulk(server, client, 40).finish()


def test_datagrams_of_one_buffer_stay_apart(gw_with, lab, peers, family):
    """UDP GSO: 30 datagrams by one call. Shorter than the MTU in all, or longer: boundaries stay."""
    gw_with(tc())
    server = peers.udp(lab.inet, A.INET[family])
    client = peers.udp(lab.lan1, A.LAN1[family])
    seen_as(client, server, server.getsockname())
    for size, datagrams in ((1200, 30), (100, 5), (1400, 2)):
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        data = b"".join(bytes([n]) * size for n in range(datagrams))
        client.sendto(data[:-1], server.getsockname())
        got = [server.recv(65535) for _ in range(datagrams)]
        assert sorted(map(len, got)) == [size - 1] + [size] * (datagrams - 1)
        assert sorted(g[0] for g in got) == list(range(datagrams))


def test_a_rule_denies_large_buffers(gw_with, gw_changed, lab, peers):
    """A change in mid-stream: what was admitted is no more, and nothing gets around by the kernel. While the session is
    revalidated, packets still go by the old verdict (decision 0008): for some ten milliseconds, not for all of it."""
    gw = gw_with(tc())
    client, server, _ = connection(lab, peers)
    assert Bulk(client, server, 4).finish()
    deny = acl_table("acl-1", [{"id": "acr-no", "ip_protocol": "tcp", "dest_cidr": f"{A.INET[4]}/32"}])
    gw_changed(tc() + deny)
    server.settimeout(2)
    assert not Bulk(client, server, 1000).finish()
    assert sum(n for (_, reason), n in gw.drops().items() if reason.startswith("acl-")) > 0
    with pytest.raises(OSError):
        connection(lab, peers)
    gw_changed(tc())
    client, server, _ = connection(lab, peers)
    assert Bulk(client, server, 4).finish()


@pytest.mark.alone
def test_rates_hold_for_large_buffers(gw_with, lab):
    """A CAR of 40 Mbit/s, whose burst is less than some buffers."""
    gw_with(lab_config(mode="tc", extra=qos(car("only", 1, 0, 40), policy(1, 5200, "tcp", last=5399))))
    got = iperf(lab.lan1, lab.inet, A.INET[4], seconds=4)["mbit"]
    # iperf3 has the payload alone, the CAR whole packets and a burst at the beginning.
    assert 0.85 * 40 <= got <= 1.1 * 40, f"{got:.1f} of 40 Mbit/s"


def test_connections_survive_restarts(gateway, gw_with, lab, peers):
    """The pair of devices, its programs and the sessions are taken over."""
    gw = gw_with(tc())
    client, server, _ = connection(lab, peers)
    bulk = Bulk(client, server, 200)
    config = gateway.running
    gateway.kill()
    gateway.start(config)
    assert bulk.finish()
    assert {p["xdp_mode"] for p in gw.ports().values()} == {"tc"}
    assert Bulk(server, client, 20).finish()


def test_the_box_itself_and_forwards_inside(gw_with, lab, peers):
    """A service of the gateway on an address that NAT shares, one of a host behind it, and ping."""
    gw_with(tc() + forward("f1", "tcp", "8443", (A.LAN1[4], "443")))
    own = peers.listen(lab.gw, A.GW_WAN[4], 8022)
    client = peers.connect(lab.inet, own.getsockname(), timeout=10)
    server, _ = peers.accept(own, timeout=10)
    assert Bulk(client, server, 10).finish() and Bulk(server, client, 10).finish()
    inside = peers.listen(lab.lan1, A.LAN1[4], 443)
    client = peers.connect(lab.inet, (A.GW_WAN[4], 8443), timeout=10)
    server, _ = peers.accept(inside, timeout=10)
    assert Bulk(client, server, 10).finish() and Bulk(server, client, 10).finish()
    assert lab.lan1.ping(A.GW_LAN_A[4], count=3) == 3
    assert lab.lan1.ping(A.INET[4], count=3) == 3


def test_nothing_is_left_when_it_is_unloaded_or_in_another_mode(gateway, gw_with, lab):
    gw_with(tc())
    ends = lambda: sorted(d.rstrip("0123456789") for d in lab.gw.devices() if d.startswith("sag-"))
    assert ends() == ["sag-t"] * 4 + ["sag-x"] * 4
    gateway.stop()
    assert ends() == []
    gw_with(nat_config())
    assert ends() == []
    assert lab.lan1.ping(A.INET[4], count=3) == 3


def test_a_program_that_somebody_takes_off_comes_back(gw_with, lab):
    bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    if run([bpftool, "version"], check=False).returncode:
        pytest.skip("no bpftool")
    gw = gw_with(tc())
    number = json.loads(lab.gw.out("ip -j link show wan"))[0]["ifindex"]
    for device in ("lan-a", f"sag-x{number}"):
        pin = lab.pins / f"tc-{device}"
        before = pin.stat().st_ino
        run([bpftool, "link", "detach", "pinned", pin])
        # Meanwhile the kernel forwards what comes, as it is: a ping says nothing.
        wait_for(lambda: pin.exists() and pin.stat().st_ino != before)
        assert "tc-lost" in gw.tail(1000)
        wait_for(lambda: lab.lan1.ping(A.INET[4], count=1) == 1)
        assert {p["xdp_mode"] for p in gw.ports().values()} == {"tc"}
    assert iperf(lab.lan1, lab.inet, A.INET[4], seconds=1)["mbit"] > 20


@pytest.mark.parametrize("kind", ["vxlan", "esp"])
def test_senders_of_large_buffers_by_tunnels(gw_with, far, lab, kind):
    """Into a tunnel and out of it XDP and workers have single segments. The last test: the far gateway takes XDP."""
    keys = {"vxlan": {"vni": 100}, "esp": {**esp_keys(), "probe_interval": 0}}[kind]
    gw = gw_with(gateway_config(kind, 4, **keys).replace("[dataplane]\n", '[dataplane]\nmode = "tc"\n', 1))
    far.use(far.config(kind, 4, **(turned(keys) if kind == "esp" else keys)))
    assert {p["xdp_mode"] for p in gw.ports().values()} == {"tc"}
    wait_for(lambda: lab.lan1.ping(FAR[4], count=1) == 1)
    for reverse in (False, True):
        got = iperf(lab.lan1, far.site, FAR[4], seconds=1, reverse=reverse)
        print(kind, "from far" if reverse else "to far", got)
        assert got["mbit"] > 20
