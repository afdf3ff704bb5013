"""Devices that take no frames of XDP's redirects: workers send by them, from the start or from the moment at which that
changes, and nothing is lost."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
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
    return "link add upper link lan-a type macvlan mode bridge\n", "link del upper\n"


@pytest.mark.parametrize("kind", ["bridge", "macvlan"])
def test_a_device_without_native_xdp(gateway, gw_with, lab, kind):
    """Beside a port in native mode: `mode = "auto"` attaches in generic mode, and XDP's redirects do not get there."""
    gateway.stop()
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
    try:
        gw = gw_with(lab_config().replace('"lan-a"', '"upper"'))
        modes = {n: p["xdp_mode"] for n, p in gw.ports().items()}
        assert modes["0"] == "generic" and modes["1"] == "native", modes
        assert REFUSES in gw.ports()["0"]["capability"]
        # A bridge has a link a second after its port has one.
        within(5, "the link is up", lambda: gw.ports()["0"]["up"])
        assert lab.lan1.ping(A.INET[4], count=2) and lab.lan1.ping(A.INET[6], count=2)
        answered(lab)
        assert gw.ports()["0"]["fast"] > 30, "redirects of generic XDP leave by the other device"
    finally:
        gateway.stop()
        lab.gw.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])
        lab.gw.batch(unmake + "".join(f"addr add {a} dev lan-a{' nodad' if ':' in a else ''}\n" for a in addresses))
        lab.flush_neighbours()
