"""Whole networks that are translated, IPv4 by host bits and IPv6 by RFC 6296, between real hosts."""

import ipaddress

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, table, talk
from harness.port_counters import restarted

pytestmark = pytest.mark.sag

PREFIXES = [("2001:db8:1::/48", "2001:db8:f1::/48"), ("2001:db8:2::/48", "2001:db8:f2::/48")]
CONFIG = nat_config(
    table("static_nat", id="v4", internal="192.0.2.0/25", external="203.0.113.128/25"),
    *(table("static_nat", id=f"v6-{n}", internal=inside, external=outside) for n, (inside, outside) in enumerate(PREFIXES)),
)
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def words(address):
    packed = ipaddress.IPv6Address(address).packed
    return [packed[i] << 8 | packed[i + 1] for i in range(0, 16, 2)]


def total(numbers):
    """Ones' complement sum."""
    number = sum(numbers)
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number


def external(address):
    """As RFC 6296 section 3.1 has it, computed from its words."""
    if ":" not in address:
        return str(ipaddress.IPv4Address(int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Address("192.0.2.0")) + int(ipaddress.IPv4Address("203.0.113.128"))))
    inside, outside = next(p for p in PREFIXES if ipaddress.ip_address(address) in ipaddress.ip_network(p[0]))
    [old, new] = [words(prefix.split("/")[0])[:3] for prefix in (inside, outside)]
    now = words(address)
    adjusted = total([now[3], total(old), 0xFFFF - total(new)])
    now[:4] = [*new, 0 if adjusted == 0xFFFF else adjusted]
    return str(ipaddress.IPv6Address(b"".join(word.to_bytes(2, "big") for word in now)))


@pytest.fixture
def routed(lab, hidden):
    """The Internet knows external addresses only."""
    lab.wan.ip("route add 203.0.113.128/25 via 198.51.100.2")
    for inside, outside in PREFIXES:
        lab.wan.ip(f"-6 route add {outside} via 2001:db8:100::2")
        lab.wan.ip(f"-6 route add blackhole {inside} metric 1")
    yield lab
    lab.wan.ip("route del 203.0.113.128/25")
    for inside, outside in PREFIXES:
        lab.wan.ip(f"-6 route del {outside}")
        lab.wan.ip(f"-6 route del blackhole {inside} metric 1")


@pytest.fixture
def gw(gw_cleared, routed):
    return gw_cleared(CONFIG)


def echoed(client, server, dest):
    """Sends and answers a datagram; whom the server saw."""
    client.sendto(b"ping", dest)
    got, peer = server.recvfrom(100)
    assert got == b"ping"
    server.sendto(b"pong", peer)
    answer, answerer = client.recvfrom(100)
    assert answer == b"pong" and answerer[:2] == dest
    return peer[:2]


@FAMILIES
def test_both_directions(gw, lab, peers, family):
    """Out and in, UDP and TCP, by XDP; hosts see external addresses only."""
    inside, far = A.LAN1[family], A.INET[family]
    outside = external(inside)
    server, client = peers.udp(lab.inet, far, 5600), peers.udp(lab.lan1, inside, 5601)
    assert echoed(client, server, (far, 5600)) == (outside, 5601)
    # The other way the same endpoints, and a port that has sent nothing.
    local = peers.udp(lab.lan1, inside, 5602)
    assert echoed(peers.udp(lab.inet, far, 5603), local, (outside, 5602)) == (far, 5603)
    before = gw.status()["fastpath_packets"]
    listener = peers.listen(lab.inet, far, 5604)
    out = peers.connect(lab.lan1, (far, 5604), source=(inside, 0))
    accepted, peer = peers.accept(listener)
    assert peer[0] == outside
    talk(out, accepted)
    listener = peers.listen(lab.lan1, inside, 5605)
    into = peers.connect(lab.inet, (outside, 5605), source=(far, 0))
    accepted, peer = peers.accept(listener)
    assert peer[0] == far
    talk(into, accepted)
    assert gw.status()["fastpath_packets"] - before > 100
    lab.lan1.run(["ping", "-c2", "-i0.2", "-W2", far])
    lab.inet.run(["ping", "-c2", "-i0.2", "-W2", outside])
    ids = {"v4"} if family == 4 else {"v6-0", "v6-1"}
    assert sum(e["sessions"] for e in gw.ctl("nat")["entries"] if e["id"] in ids) >= 6


@FAMILIES
def test_hairpin(gw, lab, peers, family):
    one, two = A.LAN1[family], A.LAN2[family]
    server, client = peers.udp(lab.lan2, two, 5610), peers.udp(lab.lan1, one, 5611)
    for _ in range(3):
        assert echoed(client, server, (external(two), 5610)) == (external(one), 5611)


@FAMILIES
def test_a_narrow_path_is_found(gw, lab, peers, family):
    """Packet too big, with what it quotes, reaches the host that sent the segment."""
    far = A.NARROW[family]
    listener = peers.listen(lab.inet, far, 5620)
    client = peers.connect(lab.lan1, (far, 5620), source=(A.LAN1[family], 0))
    accepted, peer = peers.accept(listener)
    assert peer[0] == external(A.LAN1[family])
    talk(client, accepted)
    hops = lab.lan1.run(["tracepath", f"-{family}", "-n", "-m", "5", far]).stdout
    assert far in hops, hops


def test_sessions_outlive_the_daemon(gw, lab, peers, accounting):
    flows = []
    for family in (4, 6):
        far = A.INET[family]
        server, client = peers.udp(lab.inet, far, 5630), peers.udp(lab.lan1, A.LAN1[family], 5631)
        flows.append((client, server, (far, 5630), echoed(client, server, (far, 5630))))
    gw.kill()
    for client, server, dest, seen in flows:
        assert echoed(client, server, dest) == seen, "by XDP alone"
    restarted(gw, accounting, CONFIG, quiet=False)
    for client, server, dest, seen in flows:
        assert echoed(client, server, dest) == seen
    # Without the entries the addresses are others at the next packet.
    gw.reload(nat_config())
    client, server, dest, seen = flows[0]
    assert echoed(client, server, dest)[0] == A.GW_WAN[4]
    accounting.open()
