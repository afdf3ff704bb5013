"""Sides of a comparison, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import stats
from .system import Failed

if TYPE_CHECKING:
    from .generator import Generator
    from .lab import Lab

# Seconds in which every flow can send once.
SWEEP = 30
# Of a round; odd, so that the median is one of them.
SLICES = 9
# Flows of which something may still be in the caches when they come again.
CACHED = 20_000


class Side:
    """A gateway under a kind of traffic."""

    def __init__(self, name: str, lab: Lab, flows: int = 10_000, size: str = "64", extra: Sequence[str] = (), may_lose: bool = False, renews: bool = True) -> None:
        self.name, self.lab, self.flows, self.size, self.extra = name, lab, flows, size, extra
        self.may_lose = may_lose
        # False: what it is set up with takes too long to be done again.
        self.renews = renews
        self.rates, self.lost, self.slow, self.sent = [], 0, 0, 0
        # Why frames were not forwarded by XDP alone.
        self.why = Counter()
        self.frames = 20_000

    def generator(self) -> Generator:
        return self.lab.generator(self.flows, self.size, self.extra)

    def sweep(self, window: int) -> tuple[Any, bool]:
        """Every flow sends once, no faster than it is taken in. All have come through: what the source says."""
        found = self.generator().trial(frames=self.flows, flows=self.flows, order="ascending", window=window, seconds=SWEEP)
        # The worker finishes what it has to install.
        time.sleep(0.05)
        return found, found["lost"] == 0 and found["sent"] == self.flows

    def establish(self, again: int = 4, window: int = 512) -> None:
        """Until all flows come through."""
        for _ in range(again):
            found, whole = self.sweep(window)
            if whole:
                return
        if found["sent"] < self.flows:
            raise Failed(f"{self.name}: {found['sent']} of {self.flows} flows could send within {SWEEP} s")
        raise Failed(f"{self.name}: {found['lost']} of {found['sent']} first packets were lost")

    def revalidate(self, again: int = 20, window: int = 512) -> None:
        """After a commit each flow is revalidated once: sends until XDP forwards all of them."""
        gateway = self.lab.forwarder
        for _ in range(again):
            before = gateway.fast()
            found, whole = self.sweep(window)
            if whole and (before is None or gateway.fast() - before >= found["sent"]):
                return
        raise Failed(f"{self.name}: after {again} times {self.flows} frames some flows are not revalidated")

    def look(self) -> tuple[Any, Counter] | None:
        """What XDP alone has forwarded, and what it handed to workers."""
        gateway = self.lab.forwarder
        before = gateway.fast()
        return (before, Counter(gateway.punts())) if before is not None else None

    def note(self, before: Any, sent: int) -> None:
        """What of the frames sent since the look was not forwarded by XDP alone."""
        if before is None:
            return
        gateway = self.lab.forwarder
        slow = sent - (gateway.fast() - before[0])
        if slow > 0:
            self.slow += slow
            self.why += Counter(gateway.punts()) - before[1]

    def send(self, frames: int, keep: bool = True) -> dict[str, Any]:
        """Frames at full speed, going on where the last ones ended."""
        found = self.generator().trial(frames=frames, flows=self.flows, resume=True)
        if keep:
            self.lost += found["lost"]
            self.sent += found["sent"]
        return found

    def warm(self) -> Any:
        """Brings into the caches again what fits, after another side has run; returns the frames sent. For a side that is so
        slow that this takes longer than a slice it makes no difference."""
        return self.send(self.flows)["sent"] if self.flows <= min(CACHED, 4 * self.frames) else 0

    def pace(self, found: dict[str, Any], seconds: float) -> None:
        """How many frames a trial of so long takes."""
        self.frames = int(min(2_000_000, max(2_000, (found["offered_pps"] or 1) * seconds)))

    def result(self, base: Side | None = None) -> dict[str, Any]:
        row = {"rate_pps": stats.summary(self.rates), "sent": self.sent, "lost": self.lost, "slow_path": self.slow}
        if base is not None and base is not self:
            row["of_limit"] = stats.ratios(self.rates, base.rates)
        return row


def turn(sides: Sequence[Side], seconds: float) -> None:
    """A round: the sides take turns in slices, which are so short that the machine is the same for all of them, and
    the median slice of a side counts."""
    before = [side.look() for side in sides]
    sent, rates = [0] * len(sides), [[] for _ in sides]
    for _ in range(SLICES):
        for n, side in enumerate(sides):
            sent[n] += side.warm()
            found = side.send(side.frames)
            sent[n] += found["sent"]
            rates[n].append(found["offered_pps"])
            side.pace(found, seconds / SLICES)
    for n, side in enumerate(sides):
        side.rates.append(statistics.median(rates[n]))
        side.note(before[n], sent[n])


def in_turns(sides: Sequence[Side], rounds: int, progress: Callable[[str], Any], seconds: float = 0.12, fresh: int = 0, establish: bool = True) -> list[str]:
    """A B A B …; the first round warms up. A frame lost where none may be makes the measurement invalid.

    `fresh`: gateways are restarted after so many rounds. Where a table lies in memory makes a difference
    that lasts as long as the table does.
    """
    for side in sides if establish else ():
        side.establish()
    for side in sides:
        side.pace(side.send(side.frames, keep=False), seconds / SLICES)
    for n in range(rounds):
        progress(f"round {n + 1} of {rounds}")
        if fresh and n and n % fresh == 0:
            for side in sides:
                if side.renews and side.lab.forwarder.renew():
                    side.establish()
        turn(sides, seconds)
    return broken(sides)


def broken(sides: Sequence[Side]) -> list[Any]:
    """Why the measurement does not count, a line for each reason."""
    reasons = []
    for side in sides:
        if side.lost and not side.may_lose:
            reasons.append(f"{side.name}: {side.lost} of {side.sent} frames lost, where the source waits for the gateway")
        if side.slow > side.sent * 0.001:
            why = ", ".join(f"{reason} {n}" for reason, n in side.why.most_common()) or "no reason is counted"
            reasons.append(f"{side.name}: {side.slow} of {side.sent} frames were not forwarded by XDP alone ({why})")
    return reasons
