"""Forged sources, from the LAN, from the Internet and out of tunnels; forged errors and frames about tunnels."""

import pytest
from scapy.layers.inet import UDPerror
from scapy.layers.l2 import GRE
from scapy.layers.vxlan import VXLAN

from harness.lab import Addresses as A
from harness.tunnels import FAR, LOCAL, REMOTE, gateway_config, tunnels
from harness.waiting import within
from harness.wire import ICMP, IP, UDP, Ether, ICMPv6PacketTooBig, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

# Where a port's host is: namespace and device there, and the gateway's device.
AT = {"0": ("lan1", "eth0", "lan-a"), "3": ("lan2", "eth0", "lan-b"), "1": ("wan", "gw", "wan")}
COUNT = 20


def ip(family, src, dst):
    return IP(src=src, dst=dst) if family == 4 else IPv6(src=src, dst=dst)


def is_error(frame):
    """A host's own answer, "port unreachable", quotes what it got, the mark included."""
    return bool(Ether(frame).haslayer(UDPerror))


class Liar:
    """Puts packets on the wire of a port and looks whether any of them comes out anywhere."""

    def __init__(self, lab, wire, gw):
        self.lab, self.wire, self.gw = lab, wire, gw
        self.number = 7000

    def send(self, port, packet, count=COUNT):
        """What the port dropped for which reason, and how many packets came out at the other ports."""
        name, dev, own = AT[port]
        host = getattr(self.lab, name)
        watched = [self.wire.sniffer(getattr(self.lab, n), d) for n, d, _ in AT.values()]
        self.number += 1
        frame = Ether(src=host.mac(dev), dst=self.lab.gw.mac(own)) / packet / Raw(marked(self.number))
        before = self.gw.drops()
        self.wire.sender(host, dev).send(*[bytes(frame)] * count)
        out = sum(mark_of(f) == self.number and not is_error(f) for s in watched for f in s.drain())
        after = self.gw.drops()
        return {r: n - before.get((p, r), 0) for (p, r), n in after.items() if p == port and n != before.get((p, r), 0)}, out


@pytest.fixture
def liar(lab, wire, gateway):
    return Liar(lab, wire, gateway)


def datagram(family, src, dst, sport=4000):
    return ip(family, src, dst) / UDP(sport=sport, dport=4001)


@pytest.mark.parametrize(
    ("port", "src", "dst"),
    [("0", A.LAN2, A.INET), ("0", A.INET, A.LAN2), ("0", A.POP, A.INET), ("1", A.LAN1, A.LAN2), ("1", A.POP, A.LAN1)],
    ids=["lan2-from-lan1", "internet-from-lan", "line-from-lan", "lan-from-wan", "line-from-wan"],
)
def test_sources_come_from_where_they_live(gw, liar, port, src, dst, family):
    dropped, out = liar.send(port, datagram(family, src[family], dst[family]))
    assert (dropped, out) == ({"reverse-path": COUNT}, 0)


def test_a_session_admits_no_copies_from_elsewhere(gw, liar, family):
    """An established flow in XDP, and the same five-tuple from the next port, while the flow goes on."""
    honest = datagram(family, A.LAN1[family], A.INET[family], sport=4100)
    liar.send("0", honest)
    fast = gw.ports()["0"]["fast"]
    _, out = liar.send("0", honest)
    assert out == COUNT and gw.ports()["0"]["fast"] - fast >= COUNT, "it is XDP's"
    dropped, out = liar.send("3", honest)
    assert (dropped, out) == ({"reverse-path": COUNT}, 0)
    fast = gw.ports()["0"]["fast"]
    _, out = liar.send("0", honest)
    assert out == COUNT and gw.ports()["0"]["fast"] - fast >= COUNT, "and still is"


def test_flows_are_checked_again_when_a_route_moves(gw, liar, lab, family):
    """A network behind the LAN moves to another port of the gateway: only there its flows come in."""
    net, host, routers = {
        4: ("10.99.0.0/24", "10.99.0.5", (A.LAN1[4], A.LAN2[4])),
        6: ("fd99::/64", "fd99::5", (A.LAN1[6], A.LAN2[6])),
    }[family]
    ip_cmd = lambda *args: lab.gw.run(["ip", f"-{family}", "route", *args])
    packet = datagram(family, host, A.INET[family], sport=4200)
    ip_cmd("add", net, "via", routers[0])
    try:
        within(3, "the route", lambda: liar.send("0", packet)[1] == COUNT, gw.tail)
        assert liar.send("0", packet)[1] == COUNT
        ip_cmd("replace", net, "via", routers[1])
        within(8, "the flow has to come by the other port", lambda: liar.send("0", packet)[1] == 0, gw.tail)
        assert liar.send("0", packet) == ({"reverse-path": COUNT}, 0)
        assert liar.send("3", packet)[1] == COUNT
    finally:
        ip_cmd("del", net)


def outer(kind, family, local, remote):
    head = ip(family, remote, local)
    if kind == "vxlan":
        return head / UDP(sport=50000, dport=4789, chksum=None) / VXLAN(vni=100, flags=8)
    return head / GRE() if kind == "gre" else head


@pytest.fixture(params=["vxlan", "gre", "ipip"])
def kind(request):
    return request.param


@pytest.fixture(params=[4, 6], ids=["over4", "over6"])
def through(request, gw_with, kind):
    keys = {"vni": 100} if kind == "vxlan" else {}
    gw_with(gateway_config(kind, request.param, **keys))
    return request.param


def inside(kind, local_mac, packet, smac="02:00:00:00:00:77"):
    return Ether(dst=local_mac, src=smac) / packet if kind == "vxlan" else packet


def own_mac(family):
    """As the gateway derives it (docs/tunnels.md)."""
    import ipaddress

    packed = ipaddress.ip_address(LOCAL[family]).packed
    low = [0, 0, 0, 0]
    for i, byte in enumerate(packed):
        low[i % 4] ^= byte
    return ":".join(f"{b:02x}" for b in [2, 100, *low])


def test_out_of_a_tunnel_come_its_peers_sources(through, liar, kind, family):
    head = outer(kind, through, LOCAL[through], REMOTE[through])
    say = lambda src, dst, n: head / inside(kind, own_mac(through), datagram(family, src, dst, sport=n))
    dropped, out = liar.send("1", say(FAR[family], A.LAN1[family], 4300))
    assert out == COUNT, dropped
    for n, (src, dst) in enumerate([(A.LAN1, A.LAN2), (A.LAN2, A.INET), (A.INET, A.LAN1), (A.INET, A.POP)]):
        dropped, out = liar.send("1", say(src[family], dst[family], 4400 + n))
        assert (dropped, out) == ({"reverse-path": COUNT}, 0), (src, dst)
    # The peer's own address, but from the LAN, while the flow is XDP's.
    dropped, out = liar.send("0", say(FAR[family], A.LAN2[family], 4300))
    assert (dropped, out) == ({"reverse-path": COUNT}, 0)


def test_forged_errors_do_not_narrow_a_tunnel(through, liar, kind):
    state = lambda: tunnels(liar.gw)["pop1"]
    before = state()
    quoted = ip(through, LOCAL[through], REMOTE[through])
    if kind == "vxlan":
        quoted /= UDP(sport=50000, dport=4789) / VXLAN(vni=100, flags=8) / Ether(type=0x0800)
    elif kind == "gre":
        quoted /= GRE()
    quoted /= IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(b"x" * 1380)
    quoted = bytes(quoted)[:500]
    for mtu in (68, 576, 1200, 1280, 1400):
        if through == 4:
            error = IP(src=A.WAN_ROUTER[4], dst=LOCAL[4]) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(quoted)
        else:
            error = IPv6(src=A.WAN_ROUTER[6], dst=LOCAL[6]) / ICMPv6PacketTooBig(mtu=mtu) / Raw(quoted)
        liar.send("1", error, count=5)
    assert (state()["path_mtu"], state()["path_mtu_learned"]) == (before["path_mtu"], None)
    within(2, "counted", lambda: state()["icmp_refused"] >= 25, lambda: str(state()))


def test_one_frame_does_not_replace_a_vxlan_peer(gw_with, liar, family):
    gw = gw_with(gateway_config("vxlan", 4, vni=100, addresses=["10.255.0.1/30"]))
    head = outer("vxlan", 4, LOCAL[4], REMOTE[4])
    frame = lambda mac: head / inside("vxlan", own_mac(4), datagram(family, FAR[family], A.LAN1[family]), smac=mac)
    peer, liars = "02:00:00:00:00:01", "02:00:00:00:00:02"
    mac = lambda: tunnels(gw)["pop1"]["remote_mac"]
    liar.send("1", frame(peer), count=1)
    assert mac() == peer
    for _ in range(3):
        liar.send("1", frame(liars))
        assert mac() == peer
        liar.send("1", frame(peer), count=1)
    assert mac() == peer
