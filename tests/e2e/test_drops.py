"""Every frame that is not forwarded is dropped once, for the right reason, at its ingress port."""


import pytest

from harness.lab import Addresses as A
from harness.waiting import within
from harness.wire import ICMP, IP, TCP, UDP, Ether, IPv6, Raw, marked

pytestmark = [pytest.mark.sag, pytest.mark.bad_checksums]


def ip4(**kw):
    return IP(src=kw.pop("src", A.LAN1[4]), dst=kw.pop("dst", A.INET[4]), **kw)


def ip6(**kw):
    return IPv6(src=kw.pop("src", A.LAN1[6]), dst=kw.pop("dst", A.INET[6]), **kw)


def udp(n=1):
    return UDP(sport=8000, dport=8001) / Raw(marked(n))


def cut(packet, length):
    return Raw(bytes(packet)[:length])


# reason: the packet above Ethernet, and its EtherType
CASES = {
    "ip4-truncated": (cut(ip4() / udp(), 12), 0x0800),
    "ip4-bad-version": (Raw(b"\x55" + bytes(ip4() / udp())[1:]), 0x0800),
    "ip4-bad-ihl": (Raw(b"\x44" + bytes(ip4() / udp())[1:]), 0x0800),
    "ip4-bad-total-length": (ip4(len=1400) / udp(), 0x0800),
    "ip4-bad-checksum": (ip4(chksum=0x1234) / udp(), 0x0800),
    "ip6-truncated": (cut(ip6() / udp(), 30), 0x86DD),
    "ip6-bad-version": (Raw(b"\x45" + bytes(ip6() / udp())[1:]), 0x86DD),
    "ip6-bad-payload-length": (ip6(plen=1400) / udp(), 0x86DD),
    "l4-truncated": (ip4(proto=6, len=30) / Raw(b"0123456789"), 0x0800),
    "tcp-bad-offset": (ip4() / TCP(sport=1, dport=2, dataofs=3), 0x0800),
    "udp-bad-length": (ip4() / UDP(sport=1, dport=2, len=5) / Raw(b"xyz"), 0x0800),
    "source-martian": (ip4(src="127.0.0.9") / udp(), 0x0800),
    "dest-martian": (ip4(dst="240.1.2.3") / udp(), 0x0800),
    "source-is-ours": (ip4(src=A.GW_WAN[4]) / udp(), 0x0800),
    "ttl-expired": (ip4(ttl=1) / udp(), 0x0800),
    "link-local-scope": (ip6(src="fe80::1234") / udp(), 0x86DD),
}


@pytest.mark.parametrize("reason", CASES)
def test_reason(gw, lab, wire, reason):
    payload, ethertype = CASES[reason]
    frame = bytes(Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"), type=ethertype) / payload)
    before = gw.drops()
    wire.sender(lab.lan1, "eth0").send(frame, frame, frame)
    counted = lambda: {k: n - before.get(k, 0) for k, n in gw.drops().items() if n != before.get(k, 0)}
    within(2, reason, lambda: counted().get(("0", reason), 0) >= 3, lambda: str(counted()))
    # Exactly these, and for no other reason. Hosts at other ports may have sent packets meanwhile.
    assert {k: n for k, n in counted().items() if k[0] == "0"} == {("0", reason): 3}


def test_every_reason_has_a_text(gw):
    for row in gw.ctl("drops")["drops"]:
        assert row["reason"] and len(row["text"]) > 10, row


def test_ordinary_traffic_drops_nothing(gw, lab, family):
    before = gw.drops()
    assert lab.lan1.ping(A.INET[family], count=20) == 20
    assert gw.drops() == before


def test_wrong_transport_checksums_are_the_hosts_affair(gw, lab, wire):
    """A router forwards what it does not own: TCP and UDP checksums are end to end."""
    sniffer = wire.sniffer(lab.wan, "gw")
    frame = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a")) / ip4() / UDP(sport=1, dport=2, chksum=0xBEEF) / Raw(b"x" * 20)
    wire.sender(lab.lan1, "eth0").send(frame)
    got = sniffer.until(lambda p: UDP in p and p[UDP].sport == 1)
    assert got is not None and got[UDP].chksum == 0xBEEF
    assert ICMP not in got
