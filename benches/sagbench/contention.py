"""Sixteen cores, computed: a line that all of them write, in a simulation that is fitted to two measured cores.

What is shared by cores, and written for each packet, is a meter (`gw_meter_one_rate()`, `gw_charge()` in bpf/include):
a load and a compare-and-swap. A core without the line waits for it, one core after the other gets it, and who has
lost a race tries again. Who finds that others have charged a rate with room charges for many packets at once
(docs/decisions/0025). Everything else is a core's own, or only read.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

# Races that a charge loses before it adds first and looks afterwards: the fast path's, and GW_METER_TRIES.
TRIES = 5
# GW_METER_AHEAD.
AHEAD = 64
CORES = (1, 2, 4, 8, 16, 32)


def simulate(cores: int, think: float, own: float, line: float, ahead: int = 1, packets: int = 3000, seed: int = 1) -> float:
    """Packets a nanosecond of so many cores that charge one meter. `think`: of a packet, without the meter, by half more or
    less; `own`: the access where the core has the line; `line`: until a line comes from another core; `ahead`: packets that
    are charged at once where others charge, too."""
    rng = random.Random(seed)
    version, free = 0, 0.0
    holders: set[int] = set()
    exclusive = False
    done = 0
    now = 0.0
    # The rate as each core has left it.
    left = [0] * cores

    def fetch(core: int, at: float, write: bool) -> float:
        """When the core has the line."""
        nonlocal free, holders, exclusive
        if core in holders and (not write or (exclusive and holders == {core})):
            return at + (own if write else 0.0)
        at = max(at, free) + line
        free = at
        holders = {core} if write else holders | {core}
        exclusive = write
        return at

    # When, core, what: "load", or "swap" with the version that was loaded and the races lost.
    events: list[tuple[float, int, str, int, int]] = [(rng.uniform(0, think), core, "load", 0, 0) for core in range(cores)]
    heapq.heapify(events)
    while done < packets * cores:
        now, core, what, seen, lost = heapq.heappop(events)
        if what == "load":
            heapq.heappush(events, (fetch(core, now, False), core, "swap", version, 0))
            continue
        at = fetch(core, now, True)
        if lost == 0 and seen == version:
            # Others have charged since this core did: so it charges ahead.
            paid = ahead if version != left[core] else 1
        elif ahead > 1 and what == "swap" and lost == 0:
            heapq.heappush(events, (at, core, "add", seen, TRIES))
            continue
        elif lost == TRIES or seen == version:
            paid = ahead if what == "add" else 1
        else:
            heapq.heappush(events, (at, core, "swap", version, lost + 1))
            continue
        version += 1
        left[core] = version
        done += paid
        spent = sum(think * rng.uniform(0.5, 1.5) for _ in range(paid))
        heapq.heappush(events, (at + spent, core, "load", 0, 0))
    return done / now


def fit(think: float, own: float, shared: float) -> float:
    """The time of a line with which two cores need so long for a packet."""
    low, high = 0.0, 1000.0
    for _ in range(30):
        middle = (low + high) / 2
        if 2 / simulate(2, think, own, middle) < shared:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def scaling(think: float, own: float, line: float, cores: tuple[int, ...] = CORES, ahead: int = 1) -> dict[int, float]:
    """Millions of packets a second through one meter, by number of cores."""
    return {n: simulate(n, think, own, line, ahead) * 1e3 for n in cores}


def median_of(rows: list[dict[str, Any]], access: str, work: int, key: str) -> float:
    """Of the lines that examples/contention prints."""
    values = next(sorted(r[key]) for r in rows if r["access"] == access and r["work"] == work)
    return values[len(values) // 2]


__all__ = ["AHEAD", "CORES", "fit", "median_of", "scaling", "simulate"]
