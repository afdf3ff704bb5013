"""The same packets through our NAT and through Linux's: what comes out must be the same.

Linux masquerades and drops what its connection tracking calls invalid. Our NAT runs with mapping and filtering
that depend on address and port, as Linux's do. Where the two differ on purpose, DIFFERENCES says why.
"""

import pytest

from harness.config import lab_config
from harness.differential import Subject, payload, step
from harness.lab import Addresses as A
from harness.lab import Gateway
from harness.nat import forward, hide_the_inside, nat_config
from harness.net import CommandError
from harness.wire import ICMP, IP, TCP, UDP, fragment

pytestmark = [pytest.mark.sag, pytest.mark.bad_checksums]

WAN, R, OTHER = A.GW_WAN[4], A.INET[4], A.NARROW[4]
H, H2 = A.LAN1[4], "192.0.2.20"
BOTH = "address-and-port-dependent"
CONFIG = nat_config(forward("web", "tcp", "8080", (H, "80")), mapping=BOTH, filtering=BOTH)
LINUX = f"""
table ip nat {{
    chain out {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade; }}
    chain in {{ type nat hook prerouting priority dstnat; iifname "wan" tcp dport 8080 dnat to {H}:80; }}
}}
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        iifname "wan" ct state new ct status & dnat == 0 drop
    }}
}}
"""

# Initial sequence numbers of the inside and the outside.
I, O = 1000, 5000


# --- packets: what a side sends, given the outside ports that a gateway chose ------------------------


def out(flags, seq, ack=0, size=0, port=0, host=H, to=R, dport=80):
    tcp = TCP(sport=port, dport=dport, flags=flags, seq=seq, ack=ack)
    return "lan", lambda subject: [IP(src=host, dst=to) / tcp / payload(7, size)]


def back(flags, seq, ack=0, size=0, port=0, host=H, source=R, sport=80):
    return "wan", lambda subject: [
        IP(src=source, dst=WAN)
        / TCP(sport=sport, dport=subject.port((host, port)), flags=flags, seq=seq, ack=ack)
        / payload(9, size)
    ]


def handshake(port, **kw):
    return [
        ("SYN", *out("S", I, port=port, **kw)),
        ("SYN/ACK", *back("SA", O, I + 1, port=port, **kw)),
        ("ACK", *out("A", I + 1, O + 1, port=port, **kw)),
    ]


def to_web(flags, seq, ack=0):
    return "wan", lambda subject: [IP(src=R, dst=WAN) / TCP(sport=3000, dport=8080, flags=flags, seq=seq, ack=ack)]


def udp_out(port, size=8, to=R, chksum=None):
    return "lan", lambda subject: [IP(src=H, dst=to) / UDP(sport=port, dport=53, chksum=chksum) / payload(5, size)]


def udp_back(port, size=8, host=H, source=R, sport=53):
    return "wan", lambda subject: [
        IP(src=source, dst=WAN) / UDP(sport=sport, dport=subject.port((host, port))) / payload(6, size)
    ]


def echo_out(ident, seq, host=H):
    return "lan", lambda subject: [IP(src=host, dst=R) / ICMP(type=8, id=ident, seq=seq) / payload(1, 16)]


def echo_back(ident, seq, host=H, source=R):
    return "wan", lambda subject: [
        IP(src=source, dst=WAN) / ICMP(type=0, id=subject.port((host, ident)), seq=seq) / payload(1, 16)
    ]


def error_back(kind, code, quoted, source=A.WAN_ROUTER[4], mtu=0):
    """From outside, about a packet that went out by the gateway's address; `quoted` makes its transport."""
    return "wan", lambda subject: [
        IP(src=source, dst=WAN) / ICMP(type=kind, code=code, nexthopmtu=mtu) / IP(src=WAN, dst=R, ttl=60) / quoted(subject)
    ]


def sent_udp(port, dport=53):
    return lambda subject: UDP(sport=subject.port((H, port)), dport=dport) / payload(5, 64)


def sent_ack(port):
    return lambda subject: TCP(sport=subject.port((H, port)), dport=80, flags="A", seq=I + 1, ack=O + 1)


def error_out(kind, code, quoted, source=H):
    """From inside, about a packet that came in and was translated."""
    return "lan", lambda subject: [
        IP(src=source, dst=R) / ICMP(type=kind, code=code) / IP(src=R, dst=H, ttl=60) / quoted(subject)
    ]


def pieces(side, number, order=None, l4=None):
    """A long datagram of port 4060, or another message, in fragments; in another order if one is given."""

    def build(subject):
        if side == "lan":
            packet = IP(src=H, dst=R, id=number) / (l4 or UDP(sport=4060, dport=53)) / payload(1, 3000)
        else:
            packet = IP(src=R, dst=WAN, id=number) / UDP(sport=53, dport=subject.port((H, 4060))) / payload(2, 3000)
        parts = fragment(packet, 1400)
        return [parts[n] for n in order] if order else parts

    return side, build


def wrong_sum(packet):
    packet[TCP].chksum = 0xBAD0
    return packet


# --- the stories -------------------------------------------------------------------------------------

STORIES = {
    "a connection": [
        *handshake(4001),
        ("request", *out("PA", I + 1, O + 1, 100, port=4001)),
        ("answer", *back("PA", O + 1, I + 101, 1400, port=4001)),
        ("its ACK", *out("A", I + 101, O + 1401, port=4001)),
        ("FIN", *out("FA", I + 101, O + 1401, port=4001)),
        ("ACK of the FIN", *back("A", O + 1401, I + 102, port=4001)),
        ("more after the FIN", *back("PA", O + 1401, I + 102, 200, port=4001)),
        ("FIN back", *back("FA", O + 1601, I + 102, port=4001)),
        ("last ACK", *out("A", I + 102, O + 1602, port=4001)),
        ("FIN back again", *back("FA", O + 1601, I + 102, port=4001)),
        ("last ACK again", *out("A", I + 102, O + 1602, port=4001)),
    ],
    "retransmissions": [
        ("SYN", *out("S", I, port=4002)),
        ("SYN again", *out("S", I, port=4002)),
        ("SYN/ACK", *back("SA", O, I + 1, port=4002)),
        ("SYN/ACK again", *back("SA", O, I + 1, port=4002)),
        ("ACK", *out("A", I + 1, O + 1, port=4002)),
        ("data", *out("PA", I + 1, O + 1, 100, port=4002)),
        ("data again", *out("PA", I + 1, O + 1, 100, port=4002)),
        ("later data first", *back("PA", O + 101, I + 101, 100, port=4002)),
        ("then the earlier", *back("PA", O + 1, I + 101, 100, port=4002)),
        ("data longer ago", *out("PA", I + 1, O + 201, 100, port=4002)),
    ],
    "refused": [
        ("SYN", *out("S", I, port=4003)),
        ("RST", *back("RA", 0, I + 1, port=4003)),
        ("SYN again", *out("S", I + 9000, port=4003)),
        ("RST again", *back("RA", 0, I + 9001, port=4003)),
    ],
    "a blind RST to a SYN": [
        ("SYN", *out("S", I, port=4004)),
        ("RST that acknowledges something else", *back("RA", 0, I + 900_000, port=4004)),
        ("SYN/ACK", *back("SA", O, I + 1, port=4004)),
    ],
    "reset": [
        *handshake(4005),
        ("data", *back("PA", O + 1, I + 1, 100, port=4005)),
        ("its ACK", *out("A", I + 1, O + 101, port=4005)),
        ("RST", *back("R", O + 101, port=4005)),
        ("RST again", *back("R", O + 101, port=4005)),
        ("a segment that was under way", *out("PA", I + 1, O + 101, 50, port=4005)),
        ("a new SYN", *out("S", I + 50_000, port=4005)),
        ("its SYN/ACK", *back("SA", O + 70_000, I + 50_001, port=4005)),
    ],
    "reset from inside": [
        *handshake(4006),
        ("RST", *out("R", I + 1, port=4006)),
        ("a segment that was under way", *back("PA", O + 1, I + 1, 50, port=4006)),
    ],
    "an RST far outside the window": [
        *handshake(4007),
        ("RST", *back("R", O + 50_000_000, port=4007)),
        ("more data", *out("PA", I + 1, O + 1, 100, port=4007)),
        ("and back", *back("PA", O + 1, I + 101, 100, port=4007)),
    ],
    "data outside the window": [
        *handshake(4008),
        ("far ahead", *back("PA", O + 10_000_000, I + 1, 100, port=4008)),
        ("acknowledges what was never sent", *back("A", O + 1, I + 10_000_000, port=4008)),
        ("far ahead from inside", *out("PA", I + 10_000_000, O + 1, 100, port=4008)),
        ("as it should be", *out("PA", I + 1, O + 1, 100, port=4008)),
    ],
    "both open at once": [
        ("SYN", *out("S", I, port=4009)),
        ("SYN back", *back("S", O, port=4009)),
        ("SYN/ACK", *out("SA", I, O + 1, port=4009)),
        ("SYN/ACK back", *back("SA", O, I + 1, port=4009)),
        ("data", *out("PA", I + 1, O + 1, 10, port=4009)),
        ("data back", *back("PA", O + 1, I + 11, 10, port=4009)),
    ],
    "the port again in TIME-WAIT": [
        *handshake(4010),
        ("FIN", *out("FA", I + 1, O + 1, port=4010)),
        ("FIN/ACK", *back("FA", O + 1, I + 2, port=4010)),
        ("ACK of both", *out("A", I + 2, O + 2, port=4010)),
        ("a new SYN", *out("S", I + 400_000, port=4010)),
        ("its SYN/ACK", *back("SA", O + 400_000, I + 400_001, port=4010)),
        ("ACK of it", *out("A", I + 400_001, O + 400_001, port=4010)),
        ("data", *back("PA", O + 400_001, I + 400_001, 10, port=4010)),
    ],
    "a SYN into a connection": [
        *handshake(4011),
        ("SYN from inside", *out("S", I + 77_000, port=4011)),
        ("challenge ACK", *back("A", O + 1, I + 1, port=4011)),
        ("SYN from outside", *back("S", O + 77_000, port=4011)),
        ("the connection continues", *out("PA", I + 1, O + 1, 10, port=4011)),
        ("and back", *back("PA", O + 1, I + 11, 10, port=4011)),
    ],
    "unsolicited": [
        *handshake(4012),
        ("SYN of another host", *back("S", O, port=4012, source=OTHER)),
        ("SYN from another port", *back("S", O, port=4012, sport=81)),
        ("SYN to a port that nobody has", *back("S", O, port=4999)),
        ("SYN/ACK of another host", *back("SA", O, I + 1, port=4012, source=OTHER)),
        ("ACK of another host", *back("A", O, I, port=4012, source=OTHER)),
        ("RST of another host", *back("R", O, port=4012, source=OTHER)),
        ("UDP to the same number", *udp_back(4012)),
        ("echo reply", *echo_back(4012, 1)),
    ],
    "no beginning": [
        ("ACK with data", *out("PA", I, O, 10, port=4013)),
        ("its answer", *back("PA", O, I + 10, 10, port=4013)),
        ("SYN/ACK", *out("SA", I, O, port=4014)),
        ("FIN", *out("FA", I, O, port=4015)),
        ("RST", *out("R", I, port=4016)),
    ],
    "flags that no host sends": [
        ("none", *out("", I, port=4017)),
        ("SYN and FIN", *out("SF", I, port=4018)),
        ("SYN and RST", *out("SR", I, port=4019)),
        ("all", *out("FSRPAU", I, port=4020)),
    ],
    "a wrong checksum": [
        ("SYN", "lan", lambda subject: [wrong_sum(IP(src=H, dst=R) / TCP(sport=4021, dport=80, flags="S", seq=I))]),
    ],
    "two hosts on one port": [
        *handshake(4022),
        *[(f"{name} of the other", *rest) for name, *rest in handshake(4022, host=H2)],
        ("data of the other", *out("PA", I + 1, O + 1, 10, port=4022, host=H2)),
        ("answer to the other", *back("PA", O + 1, I + 11, 10, port=4022, host=H2)),
        ("answer to the first", *back("PA", O + 1, I + 1, 10, port=4022)),
    ],
    "a forwarded port": [
        ("SYN", *to_web("S", O)),
        ("SYN/ACK", *out("SA", I, O + 1, port=80, dport=3000)),
        ("ACK", *to_web("A", O + 1, I + 1)),
        ("data", *out("PA", I + 1, O + 1, 20, port=80, dport=3000)),
        ("time exceeded inside", *error_out(11, 0, lambda subject: TCP(sport=3000, dport=80, seq=O + 1), "192.0.2.30")),
        ("RST", *out("R", I + 21, port=80, dport=3000)),
    ],
    "UDP": [
        ("request", *udp_out(4030)),
        ("answer", *udp_back(4030)),
        ("from another port", *udp_back(4030, sport=54)),
        ("from another host", *udp_back(4030, source=OTHER)),
        ("nothing in it", *udp_out(4030, size=0)),
        ("without a checksum", *udp_out(4030, chksum=0)),
        ("another place", *udp_out(4030, to=OTHER)),
    ],
    "echo": [
        ("request", *echo_out(40, 1)),
        ("reply", *echo_back(40, 1)),
        ("the same reply", *echo_back(40, 1)),
        ("reply of another host", *echo_back(40, 1, source=OTHER)),
        ("request of another host", *echo_out(40, 1, host=H2)),
        ("its reply", *echo_back(40, 1, host=H2)),
        ("reply to no request", "lan", lambda subject: [IP(src=H, dst=R) / ICMP(type=0, id=41, seq=1)]),
    ],
    "errors from outside": [
        ("a datagram", *udp_out(4040, size=64)),
        ("port unreachable", *error_back(3, 3, sent_udp(4040), R)),
        ("time exceeded", *error_back(11, 0, sent_udp(4040))),
        ("about another port", *error_back(3, 3, sent_udp(4040, dport=54))),
        ("about nothing", *error_back(3, 1, sent_udp(4998))),
        *handshake(4041),
        ("fragmentation needed", *error_back(3, 4, sent_ack(4041), mtu=1400)),
        ("the connection continues", *out("PA", I + 1, O + 1, 10, port=4041)),
    ],
    "errors from inside": [
        ("a datagram", *udp_out(4050)),
        ("its answer", *udp_back(4050, size=32)),
        ("port unreachable", *error_out(3, 3, lambda subject: UDP(sport=53, dport=4050) / payload(6, 32))),
        ("by a router inside", *error_out(3, 1, lambda subject: UDP(sport=53, dport=4050) / payload(6, 32), "192.0.2.30")),
        ("about nothing", *error_out(3, 3, lambda subject: UDP(sport=53, dport=4997))),
    ],
    "fragments": [
        ("out", *pieces("lan", 71)),
        ("out, last first", *pieces("lan", 72, [2, 1, 0])),
        ("in", *pieces("wan", 73)),
        ("in, last first", *pieces("wan", 74, [2, 0, 1])),
        ("in, without the first", *pieces("wan", 75, [1, 2])),
        ("echo", *pieces("lan", 76, l4=ICMP(type=8, id=60, seq=1))),
    ],
    "other protocols": [
        ("ESP out", "lan", lambda subject: [IP(src=H, dst=R, proto=50) / payload(3, 40)]),
        ("ESP back", "wan", lambda subject: [IP(src=R, dst=WAN, proto=50) / payload(4, 40)]),
    ],
}

# (story, step): (what differs, why).
WINDOWS = "established segments are forwarded by XDP, which follows no windows: the receiving host checks (RFC 9293 3.10.7.4)"
PICKED_UP = (
    "a connection that is older than the gateway's knowledge of it is picked up, whatever its first segment is; "
    "who gains by a false one is inside, and the far host refuses it"
)
FORWARDED, OTHER_PORT = "we forward it, Linux does not", "Linux chooses another port"
SILENT = "Linux refuses it, the gateway says nothing"
UNWANTED = "nobody answers a SYN that nobody wants: a host inside may open the same connection (RFC 5382 REQ-4)"
DIFFERENCES = {
    ("data outside the window", "far ahead"): (FORWARDED, WINDOWS),
    ("data outside the window", "acknowledges what was never sent"): (FORWARDED, WINDOWS),
    ("data outside the window", "far ahead from inside"): (FORWARDED, WINDOWS),
    ("no beginning", "SYN/ACK"): (FORWARDED, PICKED_UP),
    ("no beginning", "FIN"): (FORWARDED, PICKED_UP),
    ("flags that no host sends", "none"): (FORWARDED, "flags are the hosts' business: scrubbing is a firewall's"),
    ("flags that no host sends", "SYN and FIN"): (FORWARDED, "flags are the hosts' business: scrubbing is a firewall's"),
    ("a wrong checksum", "SYN"): (
        FORWARDED,
        "checksums are updated by the difference (RFC 1624), so a wrong one stays wrong and the receiver drops it; "
        "Linux computes each first packet's",
    ),
    ("a SYN into a connection", "SYN from outside"): (SILENT, UNWANTED),
    ("unsolicited", "SYN of another host"): (SILENT, UNWANTED),
    ("unsolicited", "SYN from another port"): (SILENT, UNWANTED),
    ("unsolicited", "SYN to a port that nobody has"): (SILENT, UNWANTED),
    ("UDP", "another place"): (
        OTHER_PORT,
        "the stray datagram of that place is a connection to itself for Linux, which holds the port against it; "
        "we keep nothing of a stray",
    ),
}


@pytest.fixture(scope="module")
def linux(second_lab):
    """The other lab, where the kernel forwards."""
    hide_the_inside(second_lab)
    kernel = Gateway(second_lab, "kernel")
    kernel.start(lab_config())
    try:
        second_lab.gw.run(["nft", "-f", "-"], input=LINUX)
    except CommandError as why:
        pytest.skip(f"the kernel cannot masquerade here: {why}")
    return second_lab


@pytest.fixture
def subjects(gw_changed, hidden, linux, wire):
    gw_changed(CONFIG)
    return [Subject(lab, wire, [H, H2]) for lab in (hidden, linux)]


def difference(ours, theirs):
    """What differs, in the words of DIFFERENCES."""
    through = lambda lines: [line for line in lines if " ttl 63 " in line]
    if len(ours) == len(through(ours)) == 1 and not through(theirs):
        return FORWARDED
    if not ours and len(theirs) == 1 and " flags RA " in theirs[0] and " ttl 64 " in theirs[0]:
        return SILENT
    if ours == [line.replace(f" of {H} renumbered", "") for line in theirs]:
        return OTHER_PORT
    return "another one"


@pytest.mark.parametrize("story", STORIES)
def test_story(subjects, story):
    wrong = []
    for name, side, build in STORIES[story]:
        expected, _ = DIFFERENCES.get((story, name), (None, None))
        ours, theirs = step(subjects, side, build, timeout=0.15 if expected else 0.6)
        found = difference(ours, theirs) if ours != theirs else None
        if found != expected:
            wrong.append(f"{name}: {found}, expected {expected}\n      ours  {ours}\n      Linux {theirs}")
    assert not wrong, "\n  ".join(["", *wrong])


def test_the_table_of_differences_is_of_these_stories():
    steps = {(story, name) for story, rows in STORIES.items() for name, *_ in rows}
    assert set(DIFFERENCES) <= steps
