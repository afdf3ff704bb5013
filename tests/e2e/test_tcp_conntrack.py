"""Random TCP conversations through the gateway and through Linux's connection tracking, the same segments.

The gateway lets pass what plain forwarding would, but for segments that nobody of the connection has sent. Linux drops
what it calls invalid, and what begins a connection from outside; so does the gateway's ACL. Where the two differ,
DIFFERENCES says why.
"""

import collections
import random
import socket
import struct
import time

import pytest

from harness.config import acl_table, lab_config
from harness.conversation import WINDOW, Conversation
from harness.lab import Addresses as A
from harness.lab import Gateway
from harness.net import CommandError

pytestmark = pytest.mark.sag

CONVERSATIONS = 60
SERVER_PORT, MARK_PORT = 80, 9
CLOSED = acl_table(
    "acl-in",
    [
        {"id": f"in-{n}", "direction": "in", "ip_protocol": "tcp", "dest_cidr": cidr}
        for n, cidr in ((4, "0.0.0.0/0"), (6, "::/0"))
    ],
)
LINUX = """
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        iifname "wan" meta l4proto tcp ct state new drop
    }
}
"""
SIDES = {True: ("lan1", "eth0", "lan-a"), False: ("wan", "gw", "wan")}
# Datagrams that pass in both directions, as segments of a conversation that there is not.
MARKS = {(-1, True), (-1, False)}
STRAY = {"stray RST", "stray SYN", "stray SYN+ACK"}

NOT_OURS, OURS, LINUXS = "the gateway drops it", "only the gateway lets it pass", "only Linux lets it pass"
AFTER = "after both open"
# (kind of segment, what is found): why.
DIFFERENCES = {
    ("refusal", OURS): "Linux forgets a refused connection at once, and what repeats the refusal is invalid; "
    "the gateway keeps it for `tcp_refused`",
    ("stray RST", LINUXS): "Linux asks nothing of an RST once a connection closes; the gateway drops one of numbers "
    "that its sender cannot have (RFC 5961 3)",
    ("both open", NOT_OURS): "the SYN from outside while the session of the connection before may be alive is a new "
    "connection for the rules; the SYN+ACK that answers the other SYN opens it",
    ("both open", OURS): "Linux takes the SYN+ACKs of such a pair for invalid if the connection before was not over",
    ("both open", LINUXS): "as above, if the connection before was over for Linux alone: it believes an RST sooner",
    (AFTER, OURS): "Linux follows the windows of a connection that both have opened from wrong beginnings, and takes "
    "segments of it for invalid",
}


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data if len(data) % 2 == 0 else data[:-1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ip4(source, dest, protocol, data):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0x4000, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(dest)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + data


def packet(family, number, segment):
    """The segment as IP; the client's port is the number of the conversation."""
    ports = (10000 + number, SERVER_PORT)
    ends = (A.LAN1[family], A.INET[family])
    if not segment.up:
        ports, ends = ports[::-1], ends[::-1]
    inet = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    addresses = b"".join(socket.inet_pton(inet, end) for end in ends)
    tcp = struct.pack(">HHIIBBHHH", *ports, segment.seq, segment.ack, 0x50, segment.flags, WINDOW, 0, 0)
    tcp += bytes(segment.size)
    total = checksum(addresses + struct.pack(">II", len(tcp), 6) + tcp)
    tcp = tcp[:16] + struct.pack(">H", total) + tcp[18:]
    if family == 6:
        return struct.pack(">IHBB", 0x60000000, len(tcp), 6, 64) + addresses + tcp
    return ip4(*ends, 6, tcp)


class Subject:
    """A gateway, with the hosts of both sides played by the test."""

    def __init__(self, lab, wire):
        lab.mute("lan1", "wan")
        self.marks = 0
        self.senders, self.sniffers, self.heads = {}, {}, {}
        for up, (name, dev, gw_dev) in SIDES.items():
            ns = getattr(lab, name)
            self.senders[up], self.sniffers[not up] = wire.sender(ns, dev), wire.sniffer(ns, dev)
            self.heads[up] = bytes.fromhex((lab.gw.mac(gw_dev) + ns.mac(dev)).replace(":", ""))
        lines = [f"neigh replace {A.LAN1[f]} lladdr {lab.lan1.mac('eth0')} dev lan-a nud permanent" for f in (4, 6)]
        lines += [f"neigh replace {A.WAN_ROUTER[f]} lladdr {lab.wan.mac('gw')} dev wan nud permanent" for f in (4, 6)]
        lab.gw.batch("\n".join(lines) + "\n")

    def send(self, family, up, data):
        self.senders[up].send(self.heads[up] + struct.pack(">H", {4: 0x800, 6: 0x86DD}[family]) + data)

    def mark(self):
        """A datagram in each direction, of a new flow each time."""
        self.marks += 1
        for up in (True, False):
            source, dest = (A.LAN1[4], A.INET[4]) if up else (A.INET[4], A.LAN1[4])
            udp = struct.pack(">HHHH", 40000 + self.marks, MARK_PORT, 8, 0)
            self.send(4, up, ip4(source, dest, 17, udp))

    def received(self):
        """(number of the conversation, whether up) of what has come out since."""
        out = set()
        for up, sniffer in self.sniffers.items():
            while (got := sniffer.raw(0)) is not None:
                frame = got[1]
                # EtherType: where the protocol, the addresses and the transport header are.
                at = {b"\x08\x00": (23, 26, 34), b"\x86\xdd": (20, 22, 54)}.get(frame[12:14])
                if at is not None and frame[at[0]] == 17 and frame[36:38] == struct.pack(">H", MARK_PORT):
                    out.add((-1, up))
                if at is None or frame[at[0]] != 6:
                    continue
                tcp = frame[at[2] :]
                assert checksum(frame[at[1] : at[2]] + struct.pack(">II", len(tcp), 6) + tcp) == 0, "wrong checksum"
                ports = struct.unpack_from(">HH", tcp)
                if SERVER_PORT in ports:
                    out.add((ports[0 if up else 1] - 10000, up))
        return out


@pytest.fixture(scope="module")
def linux(second_lab):
    """The other lab, where the kernel forwards and tracks connections."""
    Gateway(second_lab, "kernel").start(lab_config())
    try:
        second_lab.gw.run(["nft", "-f", "-"], input=LINUX)
    except CommandError as why:
        pytest.skip(f"the kernel tracks no connections here: {why}")
    return second_lab


def rounds(conversations):
    """The n-th segments of all conversations together: (number, segment)."""
    for n in range(max(len(c.segments) for c in conversations)):
        yield [(number, c.segments[n]) for number, c in enumerate(conversations) if n < len(c.segments)]


def kind_of(segment):
    """The kind by which a difference is named."""
    return AFTER if segment.of_both and segment.kind not in STRAY | {"both open"} else segment.kind


def passed(subjects, family_of, batch):
    """Who of the batch came out of each of the subjects."""
    expected = {(number, segment.up) for number, segment in batch}
    for number, segment in batch:
        data = packet(family_of(number), number, segment)
        for subject in subjects:
            subject.send(family_of(number), segment.up, data)
    seen = [set() for _ in subjects]
    start, marked = time.monotonic(), None
    while any(not have >= expected for have in seen):
        time.sleep(0.002)
        for have, subject in zip(seen, subjects):
            have |= subject.received()
        now = time.monotonic()
        if marked is None and now - start > 0.02:
            # Something is dropped. What comes behind it shows when that is sure.
            for subject in subjects:
                subject.mark()
            marked = now
        elif marked is not None and all(MARKS <= have for have in seen) and now - marked > 0.03:
            break
        assert now - start < 5, "nothing passes"
    return [have & expected for have in seen]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast-path", "workers"])
def test_the_same_segments(gw_cleared, lab, linux, wire, seed, fast_path):
    gw_cleared(lab_config(fast_path=fast_path) + CLOSED)
    linux.gw.run(["conntrack", "-F"], check=False)
    rng = random.Random(seed + fast_path)
    conversations = [Conversation(rng) for _ in range(CONVERSATIONS)]
    subjects = [Subject(it, wire) for it in (lab, linux)]
    # Ports of their own for both ways: the kernel's table of the first is not emptied.
    base = 0 if fast_path else 1000
    done = collections.Counter()
    found = collections.defaultdict(list)
    for batch in rounds(conversations):
        batch = [(base + number, segment) for number, segment in batch]
        ours, linuxs = passed(subjects, lambda number: 4 if number % 2 else 6, batch)
        for number, segment in batch:
            key = (number, segment.up)
            kind = kind_of(segment)
            done[kind] += 1
            if key not in ours and kind not in STRAY:
                found[kind, NOT_OURS].append(number - base)
            if (key in ours) != (key in linuxs):
                found[kind, OURS if key in ours else LINUXS].append(number - base)
    lines = [f"{kind}: {what}: conversations {numbers[:5]}, {len(numbers)} times of {done[kind]}"
             for (kind, what), numbers in found.items() if (kind, what) not in DIFFERENCES]  # fmt: skip
    assert not lines, f"seed {seed}\n  " + "\n  ".join(lines)
