"""Five-tuple ACLs on real packets: direction, type, ports, priority, state, counters, default."""

import time

import pytest

from harness.config import acl_table, lab_config
from harness.lab import Addresses as A
from harness.waiting import TIMEOUT
from harness.wire import ICMP, IP, TCP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

# name: (sending namespace, its device, gateway's device there, receiving namespace, its device)
PATHS = {
    "lan-wan": ("lan1", "eth0", "lan-a", "wan", "gw"),
    "wan-lan": ("wan", "gw", "wan", "lan1", "eth0"),
    "lan-express": ("lan1", "eth0", "lan-a", "pop", "gw"),
    "express-lan": ("pop", "gw", "express", "lan1", "eth0"),
    "lan-lan": ("lan1", "eth0", "lan-a", "lan2", "eth0"),
}
ADDRESSES = {
    "lan-wan": (A.LAN1, A.INET),
    "wan-lan": (A.INET, A.LAN1),
    "lan-express": (A.LAN1, A.POP),
    "express-lan": (A.POP, A.LAN1),
    "lan-lan": (A.LAN1, A.LAN2),
}

_mark = iter(range(1, 1 << 30))


@pytest.fixture(scope="module")
def quiet(lab):
    """Hosts catch our packets with packet sockets; their kernels must not answer them."""
    lab.mute("lan1", "lan2", "wan", "pop")


def drops_of(gateway):
    return sum(gateway.drops().values())


@pytest.fixture
def crosses(lab, gateway, wire, quiet):
    """A function: does this packet come out at the far end of the path? It has come out, or it was dropped."""

    def send(path, l4, family=4, count=1, dscp=0):
        source, dev, gw_dev, target, target_dev = PATHS[path]
        source, target = getattr(lab, source), getattr(lab, target)
        src, dst = (a[family] for a in ADDRESSES[path])
        net = IP(src=src, dst=dst, tos=dscp << 2) if family == 4 else IPv6(src=src, dst=dst, tc=dscp << 2)
        head = Ether(src=source.mac(dev), dst=lab.gw.mac(gw_dev)) / net / l4
        sniffer, marks = wire.sniffer(target, target_dev), [next(_mark) for _ in range(count)]
        before, end = drops_of(gateway), time.monotonic() + TIMEOUT
        wire.sender(source, dev).send(*(head / Raw(marked(m)) for m in marks))
        came = lambda seconds: sniffer.until(lambda p: mark_of(bytes(p)) == marks[-1], timeout=seconds) is not None
        while time.monotonic() < end:
            if came(0.05):
                return True
            if drops_of(gateway) - before >= count:
                return came(0.05)
        raise AssertionError(f"{path}: neither came out nor was dropped: {l4.summary()}")

    return send


def test_no_acl_lets_everything_through(gw_cleared, crosses, family):
    gw_cleared(lab_config())
    for path in PATHS:
        assert crosses(path, UDP(sport=1, dport=2), family), path


def test_a_rule_that_bites_and_one_that_does_not(gw_cleared, crosses):
    gw = gw_cleared(
        lab_config(acl=[{"id": "telnet", "ip_protocol": "tcp", "dest_port_range": "23/23"}, {"id": "gre", "ip_protocol": "gre"}])
    )
    before = gw.rules(), gw.drops()
    assert not crosses("lan-wan", TCP(sport=1000, dport=23, flags="S"))
    assert crosses("lan-wan", TCP(sport=1000, dport=24, flags="S"))
    assert crosses("lan-wan", UDP(sport=1000, dport=23))
    rules = gw.rules()
    assert rules["telnet"]["hits"] - before[0]["telnet"]["hits"] == 1
    assert rules["telnet"]["bytes"] > 0 and rules["telnet"]["last_hit_s"] <= TIMEOUT
    assert rules["gre"]["hits"] == 0 and rules["gre"]["last_hit_s"] is None
    assert gw.drops()[("0", "acl-denied")] - before[1].get(("0", "acl-denied"), 0) == 1


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("kind", ["LAN", "WAN"])
def test_direction_and_type(gw_cleared, crosses, direction, kind):
    """A rule applies to its own direction of its own kind of traffic, and none to LAN to LAN."""
    gw_cleared(lab_config(acl=[{"direction": direction, "type": kind}]))
    meant = {
        ("out", "WAN"): "lan-wan",
        ("in", "WAN"): "wan-lan",
        ("out", "LAN"): "lan-express",
        ("in", "LAN"): "express-lan",
    }[direction, kind]
    for sport, path in enumerate(PATHS, 2000):
        assert crosses(path, UDP(sport=sport, dport=9)) == (path != meant), path


@pytest.mark.parametrize(
    "ports,dport,hit",
    [("80/443", 80, 1), ("80/443", 443, 1), ("80/443", 79, 0), ("80/443", 444, 0), ("-1/-1", 65535, 1), ("1/200", 200, 1)],
)
def test_port_ranges(gw_cleared, crosses, ports, dport, hit):
    gw_cleared(lab_config(acl=[{"ip_protocol": "UDP", "dest_port_range": ports}]))
    assert crosses("lan-wan", UDP(sport=3000, dport=dport)) == (not hit)


def test_source_ports_and_networks(gw_cleared, crosses):
    gw_cleared(
        lab_config(
            acl=[
                {"id": "s", "ip_protocol": "17", "source_port_range": "5000/5001"},
                {"id": "n", "source_cidr": "192.0.2.10/32", "dest_cidr": "203.0.113.8/30", "ip_protocol": "icmp"},
                {"id": "x", "source_cidr": "192.0.2.11/32"},
            ]
        )
    )
    assert not crosses("lan-wan", UDP(sport=5001, dport=1))
    assert crosses("lan-wan", UDP(sport=5002, dport=1))
    assert not crosses("lan-wan", ICMP(id=7))
    assert crosses("lan-wan", TCP(sport=5001, dport=1, flags="S"))


def test_ipv6_rules(gw_cleared, crosses):
    gw_cleared(
        lab_config(
            acl=[{"source_cidr": "2001:db8:1::/64", "dest_cidr": "2001:db8:203::/48", "ip_protocol": "udp", "dest_port_range": "53/53"}]
        )
    )
    assert not crosses("lan-wan", UDP(sport=1, dport=53), family=6)
    assert crosses("lan-wan", UDP(sport=1, dport=54), family=6)
    assert crosses("lan-wan", UDP(sport=1, dport=53), family=4)


def test_priority_then_order_decides(gw_cleared, crosses):
    gw = gw_cleared(
        lab_config(
            acl=[
                {"id": "late", "policy": "drop", "priority": 50, "ip_protocol": "udp"},
                {"id": "early", "policy": "accept", "priority": 5, "ip_protocol": "udp", "dest_port_range": "100/200"},
                {"id": "older", "policy": "accept", "priority": 60, "ip_protocol": "tcp"},
                {"id": "younger", "policy": "drop", "priority": 60, "ip_protocol": "tcp"},
            ]
        )
    )
    before = gw.rules()
    assert crosses("lan-wan", UDP(sport=1, dport=150))
    assert not crosses("lan-wan", UDP(sport=1, dport=250))
    assert crosses("lan-wan", TCP(sport=1, dport=150, flags="S"))
    hits = {name: rule["hits"] - before[name]["hits"] for name, rule in gw.rules().items()}
    assert hits == {"late": 1, "early": 1, "older": 1, "younger": 0}


def test_several_acls_are_one_list(gw_cleared, crosses):
    extra = acl_table("acl-2", [{"id": "b", "policy": "drop", "priority": 1, "ip_protocol": "udp", "dest_port_range": "7/7"}])
    gw_cleared(lab_config(acl=[{"id": "a", "policy": "accept", "priority": 2, "ip_protocol": "udp"}], extra=extra))
    assert not crosses("lan-wan", UDP(sport=1, dport=7))
    assert crosses("lan-wan", UDP(sport=1, dport=8))


def test_default_drop(gw_cleared, crosses):
    gw = gw_cleared(lab_config(acl=[{"policy": "accept", "ip_protocol": "udp"}], acl_default="drop"))
    denied = lambda port: gw.drops().get((port, "acl-default-denied"), 0)
    before = denied("0"), denied("1")
    assert crosses("lan-wan", UDP(sport=1, dport=7))
    assert not crosses("lan-wan", TCP(sport=1, dport=7, flags="S"))
    assert not crosses("wan-lan", UDP(sport=1, dport=7))
    assert crosses("lan-lan", UDP(sport=1, dport=7))
    assert (denied("0") - before[0], denied("1") - before[1]) == (1, 1)


def test_default_applies_only_with_an_acl(gw_cleared, crosses):
    """acl_default is the verdict "when an ACL is bound and no rule matches"."""
    gw_cleared(lab_config(acl_default="drop"))
    assert crosses("lan-wan", UDP(sport=1, dport=7))


def test_replies_of_an_accepted_session_pass(gw_cleared, lab, crosses, family):
    gw_cleared(lab_config(acl=[{"policy": "accept", "source_cidr": net} for net in ("192.0.2.0/24", "2001:db8::/32")]
                       + [{"policy": "drop", "direction": "in", "source_cidr": any_, "dest_cidr": any_}
                          for any_ in ("0.0.0.0/0", "::/0")]))
    assert not crosses("wan-lan", UDP(sport=4000, dport=4001), family)
    assert crosses("lan-wan", UDP(sport=4001, dport=4000), family)
    assert crosses("wan-lan", UDP(sport=4000, dport=4001), family)
    assert not crosses("wan-lan", UDP(sport=4000, dport=4002), family)


def test_without_state_replies_are_judged_too(gw_cleared, crosses):
    gw_cleared(lab_config(acl=[{"policy": "drop", "direction": "in", "ip_protocol": "udp"}], acl_stateful=False))
    assert crosses("lan-wan", UDP(sport=4001, dport=4000))
    assert not crosses("wan-lan", UDP(sport=4000, dport=4001))


@pytest.fixture
def talking(lab):
    """Hosts that answer."""
    lab.unmute("lan1", "lan2", "wan", "pop")
    yield
    lab.mute("lan1", "lan2", "wan", "pop")


def test_hosts_behind_a_stateful_default_drop(gw_cleared, lab, talking):
    """Real hosts: what the branch opens works, what the Internet opens does not."""
    gw_cleared(lab_config(acl=[{"policy": "accept"}], acl_default="drop"))
    assert lab.lan1.ping(A.INET[4], count=5) == 5
    assert lab.inet.ping(A.LAN1[4], count=2, wait=1) == 0


def test_a_refused_flow_is_dropped_without_the_workers(gw_with, crosses):
    """From its third packet on XDP drops it by a record; the rule counts every packet."""
    gw = gw_with(lab_config(acl=[{"id": "dns", "ip_protocol": "udp", "dest_port_range": "53/53"}]))
    denied = lambda: gw.drops().get(("0", "acl-denied"), 0)
    before, denied_before, hits_before = gw.ports()["0"], denied(), gw.rules()["dns"]["hits"]
    begun = time.monotonic()
    assert not crosses("lan-wan", UDP(sport=1000, dport=53))
    for _ in range(3):
        assert not crosses("lan-wan", UDP(sport=1000, dport=53), count=40)
    after = gw.ports()["0"]
    assert denied() - denied_before == 121
    # It is evaluated again once a second: each time by two packets. The host's neighbour discovery comes on top.
    most = 20 + 2 * (time.monotonic() - begun)
    assert 2 <= after["punted"] - before["punted"] <= most
    assert gw.status()["sessions"]["ipv4"] == 0
    assert gw.rules()["dns"]["hits"] - hits_before == 121


EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def of_family(family, **rule):
    return {"source_cidr": EVERYTHING[family], "dest_cidr": EVERYTHING[family], **rule}


def test_drop_rules_name_packets_of_sessions_that_xdp_forwards(gw_cleared, crosses, family):
    """DSCP and TCP flags: the packet is dropped, its session goes on; flows without such a rule stay with XDP."""
    rules = [
        of_family(family, id="ef", ip_protocol="udp", dest_port_range="7/7", dscp="EF"),
        of_family(family, id="null", ip_protocol="tcp", tcp_flags="none / fin,syn,rst,ack"),
    ]
    gw = gw_cleared(lab_config(acl=rules))
    hits = lambda: [gw.rules()[r["id"]]["hits"] for r in rules]
    before, punted = hits(), gw.ports()["0"]["punted"]
    for dport, dropped in ((7, True), (8, False)):
        for _ in range(3):
            assert crosses("lan-wan", UDP(sport=1, dport=dport), family)
        assert crosses("lan-wan", UDP(sport=1, dport=dport), family, dscp=46) != dropped
        assert crosses("lan-wan", UDP(sport=1, dport=dport), family)
    assert crosses("lan-wan", TCP(sport=1, dport=9, flags="S"), family)
    assert crosses("wan-lan", TCP(sport=9, dport=1, flags="SA", ack=1), family)
    punted = gw.ports()["0"]["punted"]
    for flags, passes in (("A", True), ("", False), ("PU", False), ("A", True)):
        assert crosses("lan-wan", TCP(sport=1, dport=9, seq=1, ack=1, flags=flags), family, count=20) == passes, flags
    # The first ACK may find no next hop in the record yet; after that XDP forwards.
    assert gw.ports()["0"]["punted"] - punted < 40 + 10
    assert [new - old for old, new in zip(before, hits(), strict=True)] == [1, 40]


def test_explain_builds_the_header_that_is_asked_for(gw_cleared, lab):
    gw = gw_cleared(
        lab_config(
            acl=[
                {"id": "syn", "ip_protocol": "tcp", "tcp_flags": "syn / syn,ack"},
                {"id": "ping", "ip_protocol": "icmp", "icmp_type": "echo-request", "dscp": "CS1"},
            ]
        )
    )
    way = ("explain", "--port", "0", "--src", A.LAN1[4], "--dst", A.INET[4], "--proto")

    def verdict(*packet):
        return gw.ctl(*way, *packet)["verdict"]

    assert verdict("tcp", "--dport", "80", "--tcp-flags", "syn") == "drop"
    assert verdict("tcp", "--dport", "80") != "drop"
    assert verdict("icmp", "--icmp-type", "echo-request", "--dscp", "CS1") == "drop"
    assert verdict("icmp", "--icmp-type", "timestamp-request", "--dscp", "CS1") != "drop"
    assert gw.rules()["ping"]["header"] == "echo-request dscp CS1"


def test_groups_of_networks_and_ports(gw_cleared, crosses, family):
    """A rule with groups: members and others, and members that a reload adds to a live session's rule."""
    lan, inet = ADDRESSES["lan-wan"][0][family], ADDRESSES["lan-wan"][1][family]
    host = 32 if family == 4 else 128
    other = "198.18.0.1/32" if family == 4 else "2001:db8:ffff::1/128"
    rules = [of_family(family, id="grouped", ip_protocol="udp", source_cidr="@hosts", dest_cidr="@servers", dest_port_range="@dns")]

    def config(servers):
        groups = f"""
[[group]]
id = "hosts"
networks = ["{lan}/{host}", "{other}"]
[[group]]
id = "servers"
networks = {servers}
[[group]]
id = "dns"
ports = ["53", "853/854"]
"""
        return lab_config(acl=rules, extra=groups)

    gw = gw_cleared(config(f'["{inet}/{host}"]'))
    before = gw.rules()["grouped"]["hits"]
    passed = [port for port in (52, 53, 54, 852, 853, 854, 855) if crosses("lan-wan", UDP(sport=1, dport=port), family)]
    assert passed == [52, 54, 852, 855]
    rule = gw.rules()["grouped"]
    assert (rule["source_cidr"], rule["dest_port_range"], rule["hits"] - before) == ("@hosts", "@dns", 3)
    gw.reload(config(f'["{other}"]'))
    assert crosses("lan-wan", UDP(sport=1, dport=53), family)
    gw.reload(config(f'["{other}", "{inet}/{host}"]'))
    assert not crosses("lan-wan", UDP(sport=1, dport=53), family)
    assert gw.rules()["grouped"]["hits"] - before == 4, "the rule is the same, whatever is in its groups"


def test_rules_log_what_they_judge(gw_cleared, crosses, family):
    rules = [
        of_family(family, id="refused", ip_protocol="udp", dest_port_range="53/53", log=True, log_prefix="no dns"),
        of_family(family, id="opened", policy="accept", ip_protocol="tcp", dest_port_range="80/80", log=True),
        of_family(family, id="silent", ip_protocol="udp", dest_port_range="54/54"),
    ]
    gw = gw_cleared(lab_config(acl=rules))
    src, dst = (a[family] for a in ADDRESSES["lan-wan"])
    assert not crosses("lan-wan", UDP(sport=5, dport=53), family, count=100)
    assert not crosses("lan-wan", UDP(sport=5, dport=54), family)
    assert crosses("lan-wan", TCP(sport=6, dport=80, flags="S"), family)

    def entries():
        own = [e for e in gw.ctl("acl", "--log").get("log", ()) if (e["src"], e["dst"]) == (src, dst)]
        return {(e["rule"], e["verdict"], e["port"], e["proto"], e["sport"], e["dport"], e["prefix"]) for e in own}

    want = {
        ("acl-1/refused", "drop", "0", "udp", 5, 53, "no dns"),
        ("acl-1/opened", "accept", "0", "tcp", 6, 80, ""),
    }
    end = time.monotonic() + TIMEOUT
    while not (done := entries() >= want) and time.monotonic() < end:
        time.sleep(0.05)
    assert done, entries()
    assert not [e for e in entries() if e[0] == "acl-1/silent"]
    refused = gw.rules()["refused"]
    assert 2 <= refused["logged"] <= 50 < refused["hits"], "the first packets of the flow, and each second's"
