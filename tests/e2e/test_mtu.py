"""MTU 1500 packets over a 1400-byte link: the right error, with the right number, quoted rightly."""

import pytest

from harness.lab import Addresses as A
from harness.traffic import iperf
from harness.wire import ICMP, IP, UDP, Ether, ICMPv6PacketTooBig, IPv6, Raw, checksums_ok, marked


def big(lab, family, dest, mark):
    head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    if family == 4:
        net, room = IP(src=A.LAN1[4], dst=dest, flags="DF", id=4711), 1500 - 28
    else:
        net, room = IPv6(src=A.LAN1[6], dst=dest), 1500 - 48
    return head / net / UDP(sport=4000, dport=4001) / Raw(marked(mark).ljust(room, b"x"))


def too_big(family):
    if family == 4:
        return lambda p: ICMP in p and (p[ICMP].type, p[ICMP].code) == (3, 4)
    return lambda p: ICMPv6PacketTooBig in p


def mtu_of(answer, family):
    return answer[ICMP].nexthopmtu if family == 4 else answer[ICMPv6PacketTooBig].mtu


def quoted(answer, family):
    return bytes(answer[ICMP].payload) if family == 4 else bytes(answer[ICMPv6PacketTooBig].payload)


def test_error_of_a_router_behind_comes_through(gw, lab, wire, family):
    sniffer = wire.sniffer(lab.lan1, "eth0")
    wire.sender(lab.lan1, "eth0").send(big(lab, family, A.NARROW[family], 1))
    answer = sniffer.until(too_big(family))
    assert answer is not None, "no error came back from the router with the narrow link"
    source = answer[IP].src if family == 4 else answer[IPv6].src
    assert (source, mtu_of(answer, family)) == (A.WAN_ROUTER[family], 1400)
    assert checksums_ok(bytes(answer))


def test_ping_reports_the_narrow_link(gw, lab, family):
    size = 1472 if family == 4 else 1452
    lab.lan1.ip("route flush cache")
    lab.lan1.ip("-6 route flush cache")
    output = lab.lan1.out(["ping", "-n", "-M", "do", "-c", 2, "-i", 0.1, "-W", 1, "-s", size, A.NARROW[family]], check=False)
    assert "1400" in output and " 0 received" in output, output


@pytest.fixture
def narrow_wan(gw, lab):
    """The gateway's own WAN link takes 1400 bytes only."""
    lab.gw.ip("link set wan mtu 1400")
    lab.wan.ip("link set gw mtu 1400")
    for ns in (lab.lan1, lab.inet):
        ns.ip("route flush cache")
        ns.ip("-6 route flush cache")
    yield
    lab.gw.ip("link set wan mtu 1500")
    lab.wan.ip("link set gw mtu 1500")
    for ns in (lab.lan1, lab.inet):
        ns.ip("route flush cache")
        ns.ip("-6 route flush cache")


def test_gateway_itself_reports_its_narrow_link(gw, lab, wire, narrow_wan, family):
    sniffer = wire.sniffer(lab.lan1, "eth0")
    frame = big(lab, family, A.INET[family], 2)
    wire.sender(lab.lan1, "eth0").send(frame)
    answer = sniffer.until(too_big(family))
    assert answer is not None, "the gateway said nothing"
    source = answer[IP].src if family == 4 else answer[IPv6].src
    assert (source, mtu_of(answer, family)) == (A.GW_LAN_A[family], 1400)
    assert checksums_ok(bytes(answer))
    original = bytes(frame[IP] if family == 4 else frame[IPv6])
    quote = quoted(answer, family)
    assert len(quote) >= (28 if family == 4 else 48) and original.startswith(quote), "quote differs from what was sent"


def test_transfer_over_the_gateways_narrow_link(gw, lab, narrow_wan, family):
    got = iperf(lab.lan1, lab.inet, A.INET[family], seconds=1)
    assert got["mbit"] > 20, got


def test_what_may_be_fragmented_is(gw, lab, narrow_wan):
    """Without DF a 1500-byte IPv4 packet crosses the 1400-byte link in pieces."""
    assert lab.lan1.ping(A.INET[4], count=5, options=["-M", "dont", "-s", 1472]) == 5
