"""Random TCP conversations: what two hosts send, with loss, reordering, resets, reboots and used ports."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

MASK = 0xFFFFFFFF
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
WINDOW = 60000


class Segment(NamedTuple):
    """One that the gateway sees. `kind`: what it is to the connection."""

    up: bool
    flags: int
    seq: int
    ack: int
    size: int
    kind: str
    # Of a connection that both hosts have opened at once.
    of_both: bool


@dataclass
class Host:
    """What a host of a connection has sent and received."""

    next: int
    heard: int = 0
    closed: bool = False


class Conversation:
    """Segments in the order in which the gateway sees them, if it lets all of them pass."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.segments: list[Segment] = []
        for number in range(rng.randrange(1, 4)):
            self.connection(number)
        self.disorder()

    def say(self, up: bool, flags: int, seq: int, ack: int, kind: str, size: int = 0) -> None:
        """A segment, as often as it is seen: it may be lost behind the gateway, and come again."""
        segment = Segment(up, flags, seq & MASK, ack & MASK if flags & ACK else 0, size, kind, self.of_both)
        self.segments += [segment] * (2 if self.rng.random() < 0.1 else 1)

    def connection(self, number: int) -> None:
        rng = self.rng
        self.client, self.server = Host(rng.getrandbits(32)), Host(rng.getrandbits(32))
        c, s = self.client.next, self.server.next
        kind = rng.choices(["normal", "refused", "both"], [8, 1, 1])[0]
        self.of_both = kind == "both"
        if kind == "refused":
            self.say(True, SYN, c, 0, "SYN")
            self.say(False, RST | ACK, 0, c + 1, "refusal")
            return
        if kind == "both":
            for up, flags in ((True, SYN), (False, SYN), (True, SYN | ACK), (False, SYN | ACK)):
                own, other = (c, s) if up else (s, c)
                self.say(up, flags, own, other + 1, "both open")
        else:
            self.say(True, SYN, c, 0, "SYN")
            self.say(False, SYN | ACK, s, c + 1, "SYN+ACK")
        self.client.next, self.server.next = c + 1, s + 1
        self.client.heard, self.server.heard = s + 1, c + 1
        self.say(True, ACK, c + 1, s + 1, "ACK")
        for _ in range(rng.randrange(6)):
            self.data(rng.random() < 0.5)
        self.end(rng.choice(["close", "close", "half", "half", "reset", "reboot", "reboot", "forgotten", "silence"]))

    def of(self, up: bool) -> tuple[Host, Host]:
        return (self.client, self.server) if up else (self.server, self.client)

    def data(self, up: bool) -> None:
        me, other = self.of(up)
        size = self.rng.choice([1, 20, 500, 1400])
        self.say(up, PSH | ACK, me.next, me.heard, "data", size)
        me.next += size
        other.heard = me.next
        if self.rng.random() < 0.7:
            self.acknowledge(not up)

    def acknowledge(self, up: bool) -> None:
        me, _ = self.of(up)
        self.say(up, ACK, me.next, me.heard, "ACK")

    def fin(self, up: bool) -> None:
        me, other = self.of(up)
        self.say(up, FIN | ACK, me.next, me.heard, "FIN")
        me.next += 1
        other.heard = me.next
        me.closed = True
        self.acknowledge(not up)

    def end(self, how: str) -> None:
        rng, first = self.rng, self.rng.random() < 0.5
        if how in ("close", "half"):
            self.fin(first)
            for _ in range(rng.randrange(1, 4) if how == "half" else 0):
                self.data(not first)
            if how == "close" or rng.random() < 0.5:
                self.fin(not first)
            elif rng.random() < 0.5:
                self.reboot()
        elif how == "reset":
            me, _ = self.of(first)
            self.say(first, RST | (ACK if rng.random() < 0.5 else 0), me.next, me.heard, "RST")
        elif how == "reboot":
            self.reboot()
        elif how == "forgotten":
            # The server has lost its state: what the client sends is reset by what it acknowledges.
            me = self.client
            self.say(True, PSH | ACK, me.next, me.heard, "data", 10)
            self.say(False, RST, me.heard, 0, "RST")
        # What somebody else sends who does not know the numbers.
        if rng.random() < 0.3:
            self.stray()

    def reboot(self) -> None:
        """The client has lost its state and connects again: challenge ACK, RST (RFC 9293 3.5.1, RFC 5961 4)."""
        c = self.rng.getrandbits(32)
        for _ in range(self.rng.randrange(1, 3)):
            self.say(True, SYN, c, 0, "SYN after a reboot")
            self.say(False, ACK, self.server.next, self.server.heard, "challenge ACK")
        self.say(True, RST, self.server.heard, 0, "RST after a challenge")

    def stray(self) -> None:
        far = self.client.next + (1 << 30), self.server.next + (1 << 30)
        kind = self.rng.choice(["RST", "SYN", "SYN+ACK"])
        if kind == "RST":
            self.say(False, RST, far[1], 0, "stray RST")
        elif kind == "SYN":
            self.say(False, SYN, far[1], 0, "stray SYN")
        else:
            self.say(False, SYN | ACK, far[1], far[0], "stray SYN+ACK")

    def disorder(self) -> None:
        """Some lost ahead of the gateway, some overtaken by the next of the same direction."""
        kept = []
        for segment in self.segments:
            if segment.kind == "data" and self.rng.random() < 0.08:
                # It comes again, behind what follows.
                kept.append(segment._replace(kind="late data"))
            kept.append(segment)
        for at in range(len(kept) - 1):
            one, two = kept[at], kept[at + 1]
            if one.up == two.up and {one.kind, two.kind} <= {"data", "ACK", "FIN"} and self.rng.random() < 0.2:
                kept[at], kept[at + 1] = two, one
        self.segments = kept
