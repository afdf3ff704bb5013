"""Devices that take no frames of XDP's redirects: workers send by them, from the start or from the moment at which that
changes, and nothing is lost."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.nat import talk
from harness.waiting import within

pytestmark = pytest.mark.sag
REFUSES = "takes no XDP redirects"


def answered(lab, count=20):
    """Both families, both directions; every packet but the first goes by a record."""
    for family in (4, 6):
        assert lab.lan1.ping(A.INET[family], count=count) == count
        assert lab.inet.ping(A.LAN1[family], count=count) == count


def test_a_far_end_without_gro(gw, lab):
    """A veth takes redirects while its far end polls: the kernel says so, at any time."""
    ports = lambda: {n: REFUSES in p["capability"] for n, p in gw.ports().items()}
    assert not any(ports().values())
    lab.lan1.run(["ethtool", "-K", "eth0", "gro", "off"])
    try:
        within(3, "the gateway notices", lambda: ports()["0"])
        before = gw.ports()
        answered(lab)
        after = gw.ports()
        fast = {n: after[n]["fast"] - before[n]["fast"] for n in ("0", "1")}
        assert fast["0"] >= 70, "from there XDP sends as before"
        assert fast["1"] == 0, "by this device workers send"
    finally:
        lab.lan1.run(["ethtool", "-K", "eth0", "gro", "on"])
    within(3, "the gateway notices", lambda: not ports()["0"])
    before = gw.ports()["1"]["fast"]
    answered(lab)
    assert gw.ports()["1"]["fast"] - before >= 70


def behind(kind):
    """The LAN port's device under another one, which gets its addresses."""
    if kind == "bridge":
        return "link add upper type bridge\nlink set lan-a master upper\n", "link del upper\n"
    # More queues than the packet memory of a worker was made for.
    queues = "numtxqueues 16 numrxqueues 16 " if kind == "many queues" else ""
    return f"link add upper {queues}link lan-a type macvlan mode bridge\n", "link del upper\n"


def merges(lab, device):
    """Whether the kernel makes longer packets of what arrives by a device."""
    return "generic-receive-offload: on" in lab.gw.out(["ethtool", "-k", device])


@pytest.mark.parametrize("kind", ["bridge", "macvlan", "many queues"])
def test_a_device_without_native_xdp(gw_with, lab, peers, kind):
    """By a reload, beside a port in native mode with more queues: `mode = "auto"` attaches in generic mode, XDP's redirects
    do not get there, and the card below hands over packets as they were sent."""
    gw = gw_with(lab_config(workers=2))
    answered(lab, 2)
    make, unmake = behind(kind)
    mac = lab.gw.mac("lan-a")
    addresses = ["192.0.2.1/26", "2001:db8:1::1/64"]
    lab.gw.batch(
        "".join(f"addr del {a} dev lan-a\n" for a in addresses)
        + make
        + f"link set upper address {mac if kind == 'bridge' else '02:00:00:00:00:99'}\n"
        + "".join(f"addr add {a} dev upper{' nodad' if ':' in a else ''}\n" for a in addresses)
        + "link set upper up\n"
    )
    # The device below, which has no address any more, must not answer for that above.
    lab.gw.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"])
    lab.flush_neighbours()
    assert merges(lab, "lan-a")
    try:
        gw.reload(lab_config(workers=2).replace('"lan-a"', '"upper"'))
        port = lambda: gw.ports()["0"]
        # A bridge has a link a second after its port has one.
        within(5, "the link is up", lambda: port()["up"] and port()["xsk_mode"] == "copy")
        modes = {n: p["xdp_mode"] for n, p in gw.ports().items()}
        assert modes["0"] == "generic" and modes["1"] == "native", modes
        assert REFUSES in port()["capability"]
        setting = lambda: {s["name"]: s["value"] for s in port()["kernel_settings"]}.get("ethtool.lan-a.rx-gro")
        within(5, "packets stay as they are", lambda: setting() == 0)
        assert not merges(lab, "lan-a")
        assert lab.lan1.ping(A.INET[4], count=2) and lab.lan1.ping(A.INET[6], count=2)
        before = {n: p["dropped"] for n, p in gw.ports().items()}
        answered(lab)
        # Of several connections some arrive by the queue of which the LAN port has none.
        for family in (4, 6) * 3:
            listener = peers.listen(lab.inet, A.INET[family])
            client = peers.connect(lab.lan1, listener.getsockname()[:2], source=(A.LAN1[family], 0))
            talk(client, peers.accept(listener)[0])
        assert {n: p["dropped"] for n, p in gw.ports().items()} == before, gw.drops()
        assert port()["fast"] > 30, "redirects of generic XDP leave by the other device"
    finally:
        lab.gw.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])
        lab.gw.batch(unmake + "".join(f"addr add {a} dev lan-a{' nodad' if ':' in a else ''}\n" for a in addresses))
        lab.flush_neighbours()
        gw.reload(lab_config(workers=2))
    within(5, "the card is as it was", lambda: merges(lab, "lan-a"))
    # The gateway has both workers again.
    within(5, "sockets", lambda: gw.ports()["0"]["xdp_mode"] == "native" and gw.ports()["0"]["xsk_mode"] != "none")
    assert lab.lan1.ping(A.INET[4], count=2)
    answered(lab, 5)
