"""ICMP errors that the gateway makes: type, code, sender, quote and checksum."""

import contextlib
import time

import pytest

from harness.lab import Addresses as A
from harness.wire import (
    ICMP,
    IP,
    UDP,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6TimeExceeded,
    IPv6,
    Raw,
    checksums_ok,
    marked,
)

NOWHERE = {4: "203.0.113.200", 6: "2001:db8:9999::1"}
PREFIX = {4: "203.0.113.192/26", 6: "2001:db8:9999::/64"}


def probe(lab, family, dest, ttl=64, mark=7):
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    if family == 4:
        net = IP(src=A.LAN1[4], dst=dest, ttl=ttl, id=99, tos=0x28)
    else:
        net = IPv6(src=A.LAN1[6], dst=dest, hlim=ttl, fl=0x12345)
    return head / net / UDP(sport=40000, dport=40001) / Raw(marked(mark) + b"payload")


def is_error(family, kind):
    layer = {4: ICMP, 6: kind}[family]
    return lambda p: layer in p and p.getlayer(IP if family == 4 else IPv6).dst == A.LAN1[family]


def ask(lab, wire, family, frame, v6_layer, timeout=1.5, tries=3):
    """The error that answers the frame. Errors are rate-limited, so it is sent again after a while."""
    sniffer = wire.sniffer(lab.lan1, "eth0")
    sender = wire.sender(lab.lan1, "eth0")
    for _ in range(tries):
        sender.send(frame)
        if answer := sniffer.until(is_error(family, v6_layer), timeout):
            return answer
    return None


def check(answer, frame, family, v4, v6, v6_layer, source=None):
    assert answer is not None, "the gateway said nothing"
    layer = answer[ICMP] if family == 4 else answer[v6_layer]
    assert (layer.type, layer.code) in (v4 if family == 4 else v6)
    sender = answer[IP].src if family == 4 else answer[IPv6].src
    assert sender == (source or A.GW_LAN_A[family])
    assert checksums_ok(bytes(answer))
    original = bytes(frame[IP] if family == 4 else frame[IPv6])
    quote = bytes(layer.payload)
    assert len(quote) >= 28
    # A router may quote the header before or after it took one off the TTL.
    assert any(as_sent.startswith(quote) for as_sent in (original, routed(original))), "quote differs from what was sent"
    if family == 6:
        assert len(bytes(answer[IPv6])) <= 1280


def routed(packet):
    """The packet one hop on."""
    if packet[0] >> 4 == 4:
        it = IP(packet)
        it.ttl -= 1
        del it.chksum
    else:
        it = IPv6(packet)
        it.hlim -= 1
    return bytes(it)


@contextlib.contextmanager
def route(lab, family, kind):
    flag = "-6 " if family == 6 else ""
    lab.gw.ip(f"{flag}route add {kind} {PREFIX[family]}")
    try:
        yield
    finally:
        lab.gw.ip(f"{flag}route del {kind} {PREFIX[family]}")


def settle():
    """Routes are followed within 100 ms; these tests are not about how fast."""
    time.sleep(0.15)


def test_time_exceeded(gw, lab, wire, family):
    frame = probe(lab, family, A.INET[family], ttl=1)
    answer = ask(lab, wire, family, frame, ICMPv6TimeExceeded)
    check(answer, frame, family, [(11, 0)], [(3, 0)], ICMPv6TimeExceeded)


def test_no_route(gw, lab, wire, family):
    flag = "-6 " if family == 6 else ""
    lab.gw.ip(f"{flag}route del default via {A.WAN_ROUTER[family]}")
    try:
        settle()
        frame = probe(lab, family, NOWHERE[family])
        answer = ask(lab, wire, family, frame, ICMPv6DestUnreach)
        check(answer, frame, family, [(3, 0)], [(1, 0)], ICMPv6DestUnreach)
    finally:
        lab.gw.ip(f"{flag}route add default via {A.WAN_ROUTER[family]}")


def test_prohibit_route(gw, lab, wire, family):
    with route(lab, family, "prohibit"):
        settle()
        frame = probe(lab, family, NOWHERE[family])
        answer = ask(lab, wire, family, frame, ICMPv6DestUnreach)
        check(answer, frame, family, [(3, 13)], [(1, 1)], ICMPv6DestUnreach)


def test_unreachable_route(gw, lab, wire, family):
    with route(lab, family, "unreachable"):
        settle()
        frame = probe(lab, family, NOWHERE[family])
        answer = ask(lab, wire, family, frame, ICMPv6DestUnreach)
        # The kernel says "no route" for IPv6; "address unreachable" is as good.
        check(answer, frame, family, [(3, 1)], [(1, 0), (1, 3)], ICMPv6DestUnreach)


def test_blackhole_route_is_silent(gw, lab, wire, family):
    with route(lab, family, "blackhole"):
        settle()
        answer = ask(lab, wire, family, probe(lab, family, NOWHERE[family]), ICMPv6DestUnreach, timeout=0.5, tries=1)
        assert answer is None


def test_host_that_does_not_answer(gw, lab, wire, family):
    """The next hop is resolved, does not answer, and the sender gets an ICMP error."""
    absent = {4: "192.0.2.100", 6: "2001:db8:2::dead"}[family]
    frame = probe(lab, family, absent)
    answer = ask(lab, wire, family, frame, ICMPv6DestUnreach, timeout=6, tries=1)
    check(answer, frame, family, [(3, 1)], [(1, 3)], ICMPv6DestUnreach)


@pytest.mark.parametrize("case", ["broadcast-source", "icmp-error", "later-fragment", "multicast-destination"])
def test_no_error_is_sent_about(gw, lab, wire, case):
    """RFC 1812 4.3.2.7: never about an error, a fragment other than the first, or an address that is not unicast."""
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    frame = {
        "broadcast-source": head / IP(src="255.255.255.255", dst=A.INET[4], ttl=1) / UDP() / Raw(marked(1)),
        "icmp-error": head / IP(src=A.LAN1[4], dst=A.INET[4], ttl=1) / ICMP(type=3, code=1)
        / IP(src=A.INET[4], dst=A.LAN1[4]) / UDP() / Raw(marked(2)),
        "later-fragment": head / IP(src=A.LAN1[4], dst=A.INET[4], ttl=1, frag=100, proto=17) / Raw(marked(3)),
        "multicast-destination": head / IP(src=A.LAN1[4], dst="232.1.2.3", ttl=1) / UDP() / Raw(marked(4)),
    }[case]
    sniffer = wire.sniffer(lab.lan1, "eth0")
    wire.sender(lab.lan1, "eth0").send(frame)
    got = sniffer.until(lambda p: ICMP in p and p[ICMP].type in (3, 11), timeout=0.5)
    assert got is None, got.summary()
