"""Sixteen cores, computed: a line that all of them write, in a simulation that is fitted to two measured cores.

What is shared by cores, and written for each packet, is a meter (`gw_meter_one_rate()`, `gw_charge()` in bpf/include):
a load and a compare-and-swap. A core without the line waits for it, one core after the other gets it, and who has
lost a race tries again. Who loses one charges ahead from then on (`gw_meter_ahead()`), and its next packets only read the
line, which has the rate's cost, too. Everything else is a core's own, or only read.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

# Races that a charge loses before it adds first and looks afterwards: GW_METER_TRIES, and the fast path's.
TRIES = 4
# Packets that are charged at once where others charge, too: GW_AHEAD_PACKETS and the one at hand.
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
    # Packets that are paid for, and whether the core has lost a race.
    paid, contended = [0] * cores, [False] * cores

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
            at = fetch(core, now, False)
            if paid[core]:
                paid[core] -= 1
                done += 1
                heapq.heappush(events, (at + think * rng.uniform(0.5, 1.5), core, "load", 0, 0))
            else:
                heapq.heappush(events, (at, core, "swap", version, 0))
            continue
        at = fetch(core, now, True)
        # After the attempts ahead come those of gw_charge().
        most = 2 * TRIES + 1 if ahead > 1 else TRIES + 1
        if lost < most and seen != version:
            contended[core] = ahead > 1
            heapq.heappush(events, (at, core, "swap", version, lost + 1))
            continue
        version += 1
        done += 1
        if contended[core] and lost <= TRIES:
            paid[core] = ahead - 1
        heapq.heappush(events, (at + think * rng.uniform(0.5, 1.5), core, "load", 0, 0))
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
