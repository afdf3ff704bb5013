"""Which of several routes live traffic takes, and what it is answered where none leads on."""

import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.waiting import within
from harness.wire import ICMP, IP, UDP, Ether, ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

PREFIX = {4: "203.0.113.192/26", 6: "2001:db8:bbbb::/64"}
TARGET = {4: "203.0.113.200", 6: "2001:db8:bbbb::1"}


def packet(lab, family, mark, size=64, dest=None, sport=4100):
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    dest = dest or TARGET[family]
    net = IP(src=A.LAN1[4], dst=dest, flags="DF") if family == 4 else IPv6(src=A.LAN1[6], dst=dest)
    return bytes(head / net / UDP(sport=sport, dport=9) / Raw(marked(mark).ljust(size, b"x")))


@pytest.fixture
def route(gw, lab, family):
    """`ip route add` for the prefix; what was added goes with the test."""
    flag = "-6 " if family == 6 else ""
    for router in (A.POP_LINK, A.WAN_ROUTER):
        assert lab.gw.ping(router[family], count=1) == 1
    added = []

    def add(how, prefix=None):
        lab.gw.ip(f"{flag}route add {how.replace('PREFIX', prefix or PREFIX[family])}")
        added.append(how.replace("PREFIX", prefix or PREFIX[family]))
        net = prefix or PREFIX[family]
        within(2, "the route is known", lambda: net in [r["destination"] for r in gw.ctl("routes")["routes"]])
        time.sleep(0.1)  # one more of the same prefix

    yield add
    for how in reversed(added):
        lab.gw.run(["ip", *flag.split(), "route", "del", *how.split()], check=False)


def test_a_link_without_carrier_gives_way_to_the_next_metric(gw, lab, wire, route, family):
    """The kernel of the gateway keeps the route by the dead link (linkdown); a flow that XDP forwards moves, and comes back."""
    route(f"PREFIX via {A.POP_LINK[family]} dev express metric 5")
    route(f"PREFIX via {A.WAN_ROUTER[family]} dev wan metric 50")
    sender = wire.sender(lab.lan1, "eth0")
    at = {"wan": wire.sniffer(lab.wan, "gw"), "express": wire.sniffer(lab.pop, "gw")}
    mark = iter(range(10_000))

    def arrives(dev):
        sent = next(mark)
        sender.send(packet(lab, family, sent))
        return at[dev].until(lambda p: mark_of(bytes(p)) == sent, timeout=0.3) is not None

    assert all(arrives("express") for _ in range(3))
    lab.pop.ip("link set gw down")
    try:
        within(2, "the flow leaves by wan", lambda: arrives("wan"))
        assert all(arrives("wan") for _ in range(3))
    finally:
        lab.pop.ip("link set gw up")
        lab.pop.ip(f"-6 addr replace {A.POP_LINK[6]}/64 dev gw nodad")
        lab.pop.ip(f"route replace default via {A.GW_EXPRESS[4]}")
        lab.pop.ip(f"-6 route replace default via {A.GW_EXPRESS[6]}")
    at["express"] = wire.sniffer(lab.pop, "gw")
    within(3, "the flow comes back", lambda: arrives("express"))


def test_the_mtu_of_a_route_holds_for_known_flows(gw, lab, wire, route, family):
    """`ip route … mtu`: small packets of the flow go by XDP, a large one gets the error with the route's MTU."""
    route(f"PREFIX via {A.WAN_ROUTER[family]} dev wan mtu 1400")
    sender, sniffer = wire.sender(lab.lan1, "eth0"), wire.sniffer(lab.lan1, "eth0")
    wan = wire.sniffer(lab.wan, "gw")
    fits = 1400 - (28 if family == 4 else 48)
    for n, size in enumerate([64, 64, fits]):
        sender.send(packet(lab, family, n, size))
        assert wan.until(lambda p, n=n: mark_of(bytes(p)) == n) is not None, size
    sender.send(packet(lab, family, 9, fits + 1))
    if family == 4:
        answer = sniffer.until(lambda p: ICMP in p and (p[ICMP].type, p[ICMP].code) == (3, 4))
        assert answer is not None and answer[ICMP].nexthopmtu == 1400
    else:
        answer = sniffer.until(lambda p: ICMPv6PacketTooBig in p)
        assert answer is not None and answer[ICMPv6PacketTooBig].mtu == 1400


def test_rejecting_routes_answer_as_the_kernel_does(gw, lab, wire, route, family):
    """The kernel's answers, which `ip route get` and its sources name: of `throw` net unreachable, although there is a
    default route."""
    answers = {
        "blackhole": None,
        "unreachable": (3, 1) if family == 4 else (1, 0),
        "prohibit": (3, 13) if family == 4 else (1, 1),
        "throw": (3, 0) if family == 4 else (1, 0),
    }
    host = 32 if family == 4 else 128
    sender, sniffer = wire.sender(lab.lan1, "eth0"), wire.sniffer(lab.lan1, "eth0")
    for n, (kind, answer) in enumerate(answers.items()):
        dest = TARGET[family][:-1] + str(n + 1)
        route(f"{kind} PREFIX", prefix=f"{dest}/{host}")
        sender.send(packet(lab, family, n, dest=dest))
        if family == 4:
            got = sniffer.until(lambda p, d=dest: ICMP in p and p[ICMP].type == 3 and d in str(p[ICMP].payload.dst), timeout=0.7)
            kinds = (got[ICMP].type, got[ICMP].code) if got else None
        else:
            got = sniffer.until(lambda p: ICMPv6DestUnreach in p, timeout=0.7)
            kinds = (1, got[ICMPv6DestUnreach].code) if got else None
        assert kinds == answer, kind


def test_a_leg_that_does_not_answer_takes_no_flows_until_it_does(gw, lab, wire, route, family):
    """Neighbour-aware multipath: the router on `express` is not there, then it is."""
    lab.pop.ip(f"addr del {A.POP_LINK[4]}/30 dev gw")
    lab.pop.ip(f"-6 addr del {A.POP_LINK[6]}/64 dev gw")
    lab.gw.ip("neigh flush dev express")
    lab.gw.ip("-6 neigh flush dev express")
    wan, pop = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.pop, "gw")
    sender = wire.sender(lab.lan1, "eth0")
    flow = iter(range(20_000, 60_000))

    def arrived(sniffer, flows, least, seconds):
        sent = [next(flow) for _ in range(flows)]
        sender.send(*(packet(lab, family, n, sport=n) for n in sent))
        got, end = [], time.monotonic() + seconds
        while len(got) < least and time.monotonic() < end:
            got += [m for f in sniffer.drain(quiet=0.1) if (m := mark_of(f)) in sent]
        return len(got)

    try:
        legs = f"nexthop via {A.WAN_ROUTER[family]} dev wan nexthop via {A.POP_LINK[family]} dev express"
        route(f"PREFIX {legs}")
        assert arrived(wan, 40, 40, 10) == 40
    finally:
        lab.pop.ip(f"addr replace {A.POP_LINK[4]}/30 dev gw")
        lab.pop.ip(f"-6 addr replace {A.POP_LINK[6]}/64 dev gw nodad")
        lab.pop.ip(f"route replace default via {A.GW_EXPRESS[4]}")
        lab.pop.ip(f"-6 route replace default via {A.GW_EXPRESS[6]}")
    within(10, "the leg has its share again", lambda: arrived(pop, 20, 3, 1) >= 3)


def test_a_forwarded_service_answers_by_the_line_of_the_question(gw_with, lab, wire):
    """Two lines to the Internet, the default route by one: a client that asks at the other gets its answer there."""
    client, service = "203.0.113.250", 4711
    config = lab_config().replace('role = "express"', 'role = "wan"')
    config += (
        f'\n[[dnat]]\nid = "d"\ntype = "Internet"\nexternal_ip = "{A.GW_EXPRESS[4]}"\ninternal_ip = "{A.LAN1[4]}"\n'
        f'ip_protocol = "udp"\nexternal_port = "{service}"\ninternal_port = "{service}"\n'
    )
    gw_with(config)
    second = f"default via {A.POP_LINK[4]} dev express metric 100"
    lab.gw.ip(f"route add {second}")
    try:
        assert lab.gw.ping(A.POP_LINK[4], count=1) == 1
        rules = lambda: lab.gw.run(["ip", "rule"]).stdout
        within(5, "the gateway knows the second line", lambda: "lookup 23042" in rules())
        wan, pop, lan = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.pop, "gw"), wire.sniffer(lab.lan1, "eth0")
        head = Ether(src=lab.pop.mac("gw"), dst=lab.gw.mac("express"))
        ask = head / IP(src=client, dst=A.GW_EXPRESS[4]) / UDP(sport=999, dport=service) / Raw(marked(1))
        wire.sender(lab.pop, "gw").send(bytes(ask))
        assert lan.until(lambda p: mark_of(bytes(p)) == 1) is not None, "the question"
        head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
        answers = range(10, 15)  # the first finds its way, XDP forwards the others
        for n in answers:
            answer = head / IP(src=A.LAN1[4], dst=client) / UDP(sport=service, dport=999) / Raw(marked(n))
            wire.sender(lab.lan1, "eth0").send(bytes(answer))
            got = pop.until(lambda p, n=n: mark_of(bytes(p)) == n)
            assert got is not None and got[IP].src == A.GW_EXPRESS[4]
        assert not [f for f in wan.drain() if mark_of(f) in answers]
    finally:
        lab.gw.ip(f"route del {second}")


def test_the_box_itself_answers_by_the_line_of_the_question(gw_with, lab, wire, family):
    """Ping the gateway's address of the line that has the worse default route: the kernel answers by that line."""
    client = {4: "203.0.113.251", 6: "2001:db8:cccc::1"}[family]
    flag = ["-6"] if family == 6 else []
    gw_with(lab_config().replace('role = "express"', 'role = "wan"'))
    second = f"default via {A.POP_LINK[family]} dev express metric 2000"
    own = A.GW_EXPRESS[family]
    rules = lambda: lab.gw.run(["ip", *flag, "rule"]).stdout
    lab.pop.ip(f"addr add {client}/{32 if family == 4 else 128} dev lo")
    lab.gw.run(["ip", *flag, "route", "add", *second.split()])
    try:
        within(5, "the rule is there", lambda: f"from {own} lookup 23042" in rules())
        wan = wire.sniffer(lab.wan, "gw")
        ping = ["ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", "-I", client, own]
        assert " 3 received" in lab.pop.run(ping, check=False).stdout
        astray = [p for p in map(Ether, wan.drain()) if (IP in p or IPv6 in p) and p[IP if IP in p else IPv6].dst == client]
        assert not astray
        # Network managers remove rules and routes that they do not know.
        for priority in (32764, 32765):
            lab.gw.run(["ip", *flag, "rule", "del", "from", own, "pref", priority])
        lab.gw.run(["ip", *flag, "route", "flush", "table", "23042"])
        within(8, "the rule is there again", lambda: f"from {own} lookup 23042" in rules())
        assert "default" in lab.gw.run(["ip", *flag, "route", "show", "table", "23042"]).stdout
        assert " 3 received" in lab.pop.run(ping, check=False).stdout
    finally:
        lab.gw.run(["ip", *flag, "route", "del", *second.split()])
        lab.pop.run(["ip", "addr", "del", f"{client}/{32 if family == 4 else 128}", "dev", "lo"])
    within(5, "with one line there is no rule", lambda: "lookup 23042" not in rules())
