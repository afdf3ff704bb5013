"""One core and two, and what sixteen would do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import contention, stats
from .alone import example, lines_of_json
from .generator import Generator
from .lab import Bare, Sag, mac_of
from .measure import Side
from .rows import figures, target
from .scenarios import RULES, chain_sag

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab

# Seconds; the shorter of two trials lies within the longer one. The kernel's fair server takes 50 ms after a second.
SHORT, LONG = 0.25, 0.4
# Of the second source, which has hosts of its own. Port translation of one address has room for the endpoints of both.
SECOND = ("--src", "10.0.2.0")
ENDPOINTS = ("--endpoints", "25000")
TARGET = 1.9


class Pair:
    """A gateway with a source on each of two cores, each with flows of its own and a queue of its own."""

    def __init__(self, bench: Bench, name: str, lab: Lab, flows: int, second: Sequence[str] = SECOND, second_flows: int | None = None) -> None:
        self.bench, self.name, self.lab, self.flows = bench, name, lab, flows
        self.second_flows = flows if second_flows is None else second_flows
        self.options = [*second, *ENDPOINTS]
        # Each core alone, both at the same time.
        self.alone: tuple[list[float], list[float]] = ([], [])
        self.both: tuple[list[float], list[float]] = ([], [])
        self.sent = self.lost = 0

    def start(self) -> None:
        """Establishes the flows of both sources, and leaves both loaded."""
        Side(self.name, self.lab, self.second_flows, extra=self.options).establish()
        Side(self.name, self.lab, self.flows, extra=ENDPOINTS).establish()
        self.first = self.lab.generator(self.flows, extra=ENDPOINTS)
        more = [*self.options, "--dst-mac", mac_of(self.lab.gw, "lan")]
        self.second = Generator(self.bench.pktgen, f"{self.lab.lan}:eth0", None, self.bench.other_core, self.second_flows, more)
        self.bench.cleanup.add(self.second.close)

    def sources(self) -> tuple[tuple[Generator, int], tuple[Generator, int]]:
        return (self.first, self.flows), (self.second, self.second_flows)

    def round(self, keep: bool = True) -> None:
        """Each core alone, then each while the other one sends for longer."""
        rates = []
        for source, flows in self.sources():
            rates.append(source.trial(seconds=SHORT, flows=flows, resume=True)["offered_pps"])
        for n, (inner, flows) in enumerate(self.sources()):
            outer, others = self.sources()[1 - n]
            outer.start(seconds=LONG, flows=others, resume=True, settle_ms=0)
            time.sleep((LONG - SHORT) / 2)
            found = inner.trial(seconds=SHORT, flows=flows, resume=True)
            around = outer.read()
            rates.append(found["offered_pps"])
            # The sink is the first source's, which sets it to nothing when it begins.
            if outer is self.first:
                time.sleep(0.02)
                self.sent += found["sent"] + around["sent"]
                self.lost += found["sent"] + around["sent"] - self.first.count()
        if keep:
            for place, rate in zip((*self.alone, *self.both), rates):
                place.append(rate)

    def close(self) -> None:
        self.second.close()
        self.lab.close_generators()

    def one(self) -> list[float]:
        """Of one core: the mean of both, which are not quite the same."""
        return [(a + b) / 2 for a, b in zip(*self.alone)]

    def two(self) -> list[float]:
        return [a + b for a, b in zip(*self.both)]


def measure(bench: Bench, scenario: str, about: str, pairs: Sequence[Pair]) -> list[str]:
    """Rounds of the pairs in turns; keeps a table and says what is broken."""
    bench.step(f"{scenario}: {', '.join(p.name for p in pairs)}")
    for pair in pairs:
        pair.start()
    for n in range(bench.rounds(5, 21) + 1):
        bench.progress(f"round {n}")
        for pair in pairs:
            pair.round(keep=n > 0)
    rows: dict[str, Any] = {}
    for pair in pairs:
        pair.close()
        plain = {"sent": None, "lost": 0, "slow_path": None}
        rows[f"{pair.name}, 1 core"] = {"rate_pps": stats.summary(pair.one())} | plain
        rows[f"{pair.name}, 2 cores"] = {
            "rate_pps": stats.summary(pair.two()),
            "sent": pair.sent,
            "lost": pair.lost,
            "slow_path": None,
            "of_one": stats.ratios(pair.two(), pair.one()),
        }
        bench.progress(f"  {pair.name}: {rows[f'{pair.name}, 2 cores']['of_one']['median']:.3f} times one core")
    broken = [f"{p.name}: {p.lost} of {p.sent} frames lost" for p in pairs if p.lost]
    bench.tables[scenario] = {"scenario": scenario, "csit": "1c, 2c", "about": about, "base": None, "rows": rows, "broken": broken}
    for line in broken:
        bench.warn(f"broken measurement: {line}")
    return broken


ABOUT = (
    "Two sources on two cores, two receive queues; each core alone (mean of both), and each while the other one sends, too: the sum. "
    "The daemon has no core of its own then."
)


def cores(bench: Bench) -> None:
    """Flows of its own for each core: few, and a million; one meter for all; one flow that is as fast as it goes."""
    if bench.cores < 2:
        bench.missing.append(("two cores", "this machine has one"))
        return
    many = Sag(rules=RULES, snat=True, flows=65_536)
    with bench.labs(queues=2) as make:
        labs = {"bare redirect": make("p0", Bare()), "sag-vcpe": make("p1", chain_sag(flows=65_536)), "sag-vcpe, no CAR": make("p2", many)}
        pairs = {name: Pair(bench, name, lab, 10_000) for name, lab in labs.items()}
        broken = measure(bench, "cores-10kflows", f"Whole chain with one CAR that all packets share, and without CAR; 10,000 flows a core. {ABOUT}", list(pairs.values()))
        ours, without = pairs["sag-vcpe"], pairs["sag-vcpe, no CAR"]
        target(bench, f"10,000 flows a core: 2 cores {TARGET} × one", stats.ratios(ours.two(), ours.one()), TARGET, source="#21", broken=broken, unit="×")
        hot = stats.ratios([a / b for a, b in zip(ours.two(), ours.one())], [a / b for a, b in zip(without.two(), without.one())])
        target(bench, "one meter for all flows: 2 cores scale 0.95 as well as without", hot, 0.95, source="#21", broken=broken)
        elephants(bench, labs["sag-vcpe"])
        packet = 1e9 / stats.summary(ours.one())["median"]
    with bench.labs(queues=2) as make:
        labs = {"bare redirect": make("p3", Bare()), "sag-vcpe": make("p4", chain_sag(flows=1 << 20))}
        pairs = {name: Pair(bench, name, lab, 500_000) for name, lab in labs.items()}
        broken = measure(bench, "cores-1Mflows", f"Whole chain; 500,000 flows a core, a million in all. {ABOUT}", list(pairs.values()))
        ours = pairs["sag-vcpe"]
        target(bench, f"a million flows: 2 cores {TARGET} × one", stats.ratios(ours.two(), ours.one()), TARGET, source="#21", broken=broken, unit="×")
    sixteen(bench, packet)


def elephants(bench: Bench, lab: Lab) -> None:
    """One flow as fast as it goes on one core, 10,000 on the other; and one flow that comes in by both queues, which RSS
    does not do: its record is written by both cores."""
    beside = Pair(bench, "10,000 flows, one elephant", lab, 10_000, second_flows=1)
    broken = measure(bench, "cores-elephant", f"One flow on one core, 10,000 on the other. {ABOUT}", [beside])
    kept = stats.ratios(beside.both[0], beside.alone[0])
    target(bench, "one elephant flow on another core: 10,000 flows keep 0.95", kept, 0.95, source="#21", broken=broken)
    # The same hosts, so the same flow.
    same = Pair(bench, "one flow by two queues", lab, 1, second=())
    measure(bench, "cores-one-flow", f"The same flow by both queues: what a card without RSS by flow would do. {ABOUT}", [same])


def sixteen(bench: Bench, packet: float) -> None:
    """What two cores pay for lines that both write, and sixteen by simulation."""
    bench.step("two cores that write the same line, sixteen by simulation")
    text = example(bench, "contention", bench.rounds(5, 21))
    if text is None:
        return
    rows = lines_of_json(text)
    table = {}
    for row in rows:
        if row["access"] != "none":
            # Two cores alone with their lines, but at the same time.
            extra = stats.summary([s - p for s, p in zip(row["shared"], row["private"])])
            idle = contention.median_of(rows, "none", row["work"], "private")
            own = stats.summary([p - idle for p in row["private"]])
            name = f"{row['access']}, {idle:.0f} ns between two"
            table[name] = [stats.summary(row["one"]), stats.summary(row["private"]), stats.summary(row["shared"]), own, extra, stats.summary(row["lost"])]
    figures(
        bench,
        "Lines that two cores write",
        "Nanoseconds from one access to the next, threads of their own in memory; `target/release/examples/contention`.",
        ["one core", "two, a line each", "two, the same line", "of it the access", "of it the sharing", "races lost an access"],
        table,
    )
    alone = [r for r in rows if r["access"] == "none"][-1]
    both = stats.summary([2 * o / p for o, p in zip(alone["one"], alone["private"])])
    figures(
        bench,
        "What two cores of this machine are worth",
        "Multiplications alone, without memory: less than 2 says that the processors share a core, or the host's time.",
        ["times one core"],
        {"two cores": [both]},
    )
    work = alone["work"]
    idle, own = (contention.median_of(rows, a, work, "private") for a in ("none", "meter"))
    line = contention.fit(idle, own - idle, contention.median_of(rows, "meter", work, "shared"))
    shown = {}
    for think in (packet, packet / 2):
        alone = contention.scaling(think, own - idle, line, (1,))[1]
        pressed = contention.scaling(think, own - idle, line)
        roomy = contention.scaling(think, own - idle, line, ahead=contention.AHEAD)
        kinds = {
            "meters of their own": {n: n * alone for n in contention.CORES},
            "one meter for all, charged ahead": roomy,
            "one meter for all, packet by packet": pressed,
        }
        for name, rates in kinds.items():
            shown[f"{name}; {think:.0f} ns a packet"] = [f"{rates[n]:.1f} ({rates[n] / alone:.1f} ×)" for n in contention.CORES]
    figures(
        bench,
        "Sixteen cores, by simulation",
        f"Million packets a second (times one core). A line takes {line:.0f} ns from core to core, fitted to two cores; assumptions: docs/performance.md.",
        [f"{n} core{'s' if n > 1 else ''}" for n in contention.CORES],
        shown,
    )


__all__ = ["cores"]
