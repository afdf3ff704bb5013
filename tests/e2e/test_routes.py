"""Routes and neighbours are the kernel's, and the gateway follows them."""

import time

import pytest

from harness.lab import Addresses as A
from harness.waiting import TIMEOUT
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.alone

# Prefix that no route of the lab covers but the default.
PREFIX = {4: "203.0.113.128/26", 6: "2001:db8:aaaa::/64"}
TARGET = {4: "203.0.113.130", 6: "2001:db8:aaaa::1"}


def packet(lab, family, dest, mark, sport=5000, ttl=20):
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    net = IP(src=A.LAN1[4], dst=dest, ttl=ttl) if family == 4 else IPv6(src=A.LAN1[6], dst=dest, hlim=ttl)
    return bytes(head / net / UDP(sport=sport, dport=9) / Raw(marked(mark)))


@pytest.fixture
def muted(lab):
    """Far routers do not answer unroutable packets, so that only the gateway does."""
    rules = """
        table inet mute {
            chain forward { type filter hook forward priority 0; policy drop; }
        }
    """
    for ns in (lab.wan, lab.pop):
        ns.run(["nft", "-f", "-"], input=rules)
    yield
    for ns in (lab.wan, lab.pop):
        ns.run(["nft", "delete", "table", "inet", "mute"])


def test_route_change_is_followed_within_100_ms(gw, lab, wire, muted, family, record_property):
    """A packet each millisecond while `ip route` moves the prefix to the other port and back."""
    flag = "-6 " if family == 6 else ""
    lab.gw.ping(A.POP_LINK[family], count=1)
    lab.gw.ping(A.WAN_ROUTER[family], count=1)
    sender = wire.sender(lab.lan1, "eth0")
    at = {"wan": wire.sniffer(lab.wan, "gw"), "express": wire.sniffer(lab.pop, "gw")}
    via = {"wan": A.WAN_ROUTER[family], "express": A.POP_LINK[family]}
    lab.gw.ip(f"{flag}route replace {PREFIX[family]} via {via['wan']} dev wan")
    delays = []
    try:
        for turn in range(6):
            dev = ("express", "wan")[turn % 2]
            for n in range(20):
                sender.send(packet(lab, family, TARGET[family], n))
            for sniffer in at.values():
                sniffer.drain(quiet=0.1)
            lab.gw.ip(f"{flag}route replace {PREFIX[family]} via {via[dev]} dev {dev}")
            changed = time.monotonic()
            arrived = None
            while arrived is None and time.monotonic() < changed + TIMEOUT:
                sender.send(packet(lab, family, TARGET[family], turn))
                got = at[dev].raw(0.001)
                if got and mark_of(got[1]) is not None:
                    arrived = got[0]
            assert arrived is not None, f"packets never took the new route by {dev}"
            delays.append((arrived - changed) * 1000)
    finally:
        lab.gw.ip(f"{flag}route del {PREFIX[family]}")
    record_property("route_change_ms", max(delays))
    print(f"route changes followed after {', '.join(f'{d:.1f}' for d in delays)} ms")
    # A busy machine keeps the test itself from running now and then.
    assert sorted(delays)[len(delays) // 2] < 100, delays


def test_longest_prefix_wins(gw, lab, wire, muted, family):
    flag, host = ("-6 ", 128) if family == 6 else ("", 32)
    lab.gw.ip(f"{flag}route add {PREFIX[family]} via {A.WAN_ROUTER[family]}")
    lab.gw.ip(f"{flag}route add {TARGET[family]}/{host} via {A.POP_LINK[family]}")
    try:
        time.sleep(0.15)
        wan, pop = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.pop, "gw")
        other = {4: "203.0.113.131", 6: "2001:db8:aaaa::2"}[family]
        sender = wire.sender(lab.lan1, "eth0")
        for n in range(10):
            sender.send(packet(lab, family, TARGET[family], 100 + n), packet(lab, family, other, 200 + n))
        marks = lambda s: sorted(m for f in s.drain() if (m := mark_of(f)) is not None)
        assert marks(pop) == list(range(100, 110))
        assert marks(wan) == list(range(200, 210))
    finally:
        lab.gw.ip(f"{flag}route del {TARGET[family]}/{host}")
        lab.gw.ip(f"{flag}route del {PREFIX[family]}")


def test_equal_routes_share_flows(gw, lab, wire, muted, family):
    """Over two next hops flows spread, and every packet of a flow takes the same path."""
    flag = "-6 " if family == 6 else ""
    if gw.forwarder == "kernel":
        lab.gw.run(["sysctl", "-q", "-w", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1"])
    lab.gw.ping(A.POP_LINK[family], count=1)
    lab.gw.ping(A.WAN_ROUTER[family], count=1)
    lab.gw.ip(
        f"{flag}route add {PREFIX[family]} nexthop via {A.WAN_ROUTER[family]} dev wan"
        f" nexthop via {A.POP_LINK[family]} dev express"
    )
    try:
        time.sleep(0.15)
        wan, pop = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.pop, "gw")
        sender = wire.sender(lab.lan1, "eth0")
        flows, packets = 200, 5
        for n in range(packets):
            for flow in range(flows):
                sender.send(packet(lab, family, TARGET[family], flow * packets + n, sport=10000 + flow))
        paths = {}
        for name, sniffer in (("wan", wan), ("pop", pop)):
            for frame in sniffer.drain():
                if (mark := mark_of(frame)) is not None:
                    paths.setdefault(mark // packets, []).append(name)
        assert sum(map(len, paths.values())) == flows * packets, "packets were lost or doubled"
        split = [flow for flow, path in paths.items() if len(set(path)) != 1]
        assert not split, f"flows over both paths: {split}"
        by_wan = sum(path[0] == "wan" for path in paths.values())
        assert flows * 0.25 < by_wan < flows * 0.75, f"{by_wan} of {flows} flows by wan"
    finally:
        lab.gw.ip(f"{flag}route del {PREFIX[family]}")


def test_ttl_and_addresses_are_rewritten(gw, lab, wire, muted, family):
    """What leaves: one less TTL, the gateway's and the next hop's Ethernet addresses, the rest untouched."""
    sniffer = wire.sniffer(lab.wan, "gw")
    sent = packet(lab, family, TARGET[family], 4242, ttl=33)
    for _ in range(3):  # the first is evaluated in full, the next ones take the fast path
        wire.sender(lab.lan1, "eth0").send(sent)
    for _ in range(3):
        got = sniffer.until(lambda p: mark_of(bytes(p)) == 4242)
        assert got is not None
        assert (got.src, got.dst) == (lab.gw.mac("wan"), lab.wan.mac("gw"))
        expected = Ether(sent)
        if family == 4:
            expected[IP].ttl = 32
            del expected[IP].chksum
            assert bytes(got[IP]) == bytes(IP(bytes(expected[IP])))
        else:
            expected[IPv6].hlim = 32
            assert bytes(got[IPv6]) == bytes(expected[IPv6])


def test_burst_to_an_unknown_neighbour_waits_in_order(gw, lab, wire, family):
    """Packets for a next hop that is being resolved are held, and sent in order."""
    lab.gw.ip("neigh flush dev lan-b")
    lab.gw.ip("-6 neigh flush dev lan-b")
    time.sleep(0.15)
    sniffer = wire.sniffer(lab.lan2, "eth0")
    wire.sender(lab.lan1, "eth0").send(*(packet(lab, family, A.LAN2[family], n) for n in range(3)))
    marks = [m for f in sniffer.drain(quiet=0.5) if (m := mark_of(f)) is not None]
    assert marks == [0, 1, 2]


def test_neighbour_that_moves_is_followed(gw, lab, wire, family):
    """Another Ethernet address for the same next hop: the next packets carry it."""
    flag, old = ("-6 " if family == 6 else ""), lab.lan2.mac("eth0")
    assert lab.lan1.ping(A.LAN2[family], count=2) == 2
    new = "02:00:00:00:02:99"
    sniffer = wire.sniffer(lab.lan2, "eth0")
    try:
        lab.gw.ip(f"{flag}neigh replace {A.LAN2[family]} lladdr {new} dev lan-b nud permanent")
        time.sleep(0.15)
        wire.sender(lab.lan1, "eth0").send(packet(lab, family, A.LAN2[family], 77))
        got = sniffer.until(lambda p: mark_of(bytes(p)) == 77)
        assert got is not None and got.dst == new
    finally:
        lab.gw.ip(f"{flag}neigh replace {A.LAN2[family]} lladdr {old} dev lan-b nud reachable")
