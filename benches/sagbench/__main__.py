"""Runs the benchmark; scripts/bench.sh calls this as root with everything built."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import alone, boxes, changes, cores, full_table, offered, peers, report, scenarios, stats, system, tcp, tunnels
from .lab import Lab

ROOT = Path(__file__).resolve().parents[2]

# In order of importance. Second: in the quick run too.
SCENARIOS = {
    "headline": (scenarios.headline, True),
    "acl": (scenarios.acl, True),
    "nat": (scenarios.nat, True),
    "forwarding": (scenarios.forwarding, True),
    "classbench": (scenarios.classbench, True),
    "sizes": (scenarios.sizes, True),
    "new-flows": (changes.new_flows, True),
    "under-load": (changes.under_load, True),
    "offered-load": (offered.offered_load, True),
    "cores": (cores.cores, True),
    "small-box": (boxes.small_box, True),
    "start": (boxes.start, True),
    "tunnels": (tunnels.tunnels, True),
    "tcp": (tcp.tcp, True),
    "memory": (alone.memory, True),
    "fib": (full_table.fib, False),
    "testpmd": (peers.testpmd, True),
    "librte-acl": (peers.librte_acl, True),
    "openvswitch": (peers.openvswitch, True),
    "absent": (peers.absent, True),
    "cloud": (alone.cloud, False),
}
LAYOUT = ("tables", "figures", "targets", "points", "changes", "offered", "missing", "notes")


class Bench:
    """What the scenarios share, and what they have found."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.full, self.seed, self.most = args.full, args.seed, args.rounds
        self.pktgen, self.vcpe, self.sagctl, self.target = args.pktgen, args.vcpe, args.sagctl, args.target
        self.root = ROOT
        self.cores = os.cpu_count() or 1
        self.core, self.other_core = (1, 0) if self.cores > 1 else (0, 0)
        self.prefix = args.prefix
        self.cleanup = system.Cleanup()
        self.started = time.monotonic()
        self.work = tempfile.mkdtemp(prefix=f"{args.prefix}-")
        self.cleanup.add(subprocess.run, ["rm", "-rf", self.work], check=False)
        # Of which the rows are that are added.
        self.scenario = ""
        self.tables, self.figures, self.targets, self.points = {}, {}, [], {}
        self.changes, self.offered, self.missing, self.notes = {}, {}, [], {}

    def rounds(self, quick: int, full: int) -> int:
        return min(full if self.full else quick, self.most)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f}s] {text}", flush=True)

    def step(self, text: str) -> None:
        self.say(text)

    def progress(self, text: str) -> None:
        if sys.stdout.isatty() or not text.startswith("round"):
            self.say(f"  {text}")

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def point(self, plot: str, series: str, x: float, rates: Sequence[float]) -> None:
        self.points.setdefault(plot, {}).setdefault(series, []).append({"x": x, **stats.summary(rates)})

    @contextlib.contextmanager
    def labs(self, queues: int = 1, ip6: bool = False, back: bool = False) -> Iterator[Callable[[str, Any], Lab]]:
        """A function that makes labs, which are gone afterwards."""
        outer, self.cleanup = self.cleanup, system.Cleanup()
        try:
            yield lambda name, forwarder: Lab(self, name, queues, ip6, back).start(forwarder)
        finally:
            mine, self.cleanup = self.cleanup, outer
            mine.run()

    def settings(self) -> None:
        """The machine as the measurement needs it, until the end."""
        # The source has precedence on its core for as long as a trial takes.
        self.cleanup.setting("/proc/sys/kernel/sched_rt_runtime_us", -1)
        # Room for a million connections.
        self.cleanup.setting("/proc/sys/net/netfilter/nf_conntrack_max", 4_194_304)
        self.cleanup.setting("/sys/module/nf_conntrack/parameters/hashsize", 1_048_576)


def clear_away(prefix: str) -> None:
    """Removes what a killed predecessor left."""
    for line in system.run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(f"{prefix}-"):
            system.run("ip", "netns", "del", name, check=False)
    for pins in Path("/sys/fs/bpf").glob(f"{prefix}-*"):
        system.run("rm", "-rf", pins, check=False)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


class List(argparse.Action):
    """Prints the scenarios in their order and ends."""

    def __call__(self, *_: Any) -> None:
        print(*SCENARIOS, sep="\n")
        sys.exit(0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="docs/benchmarks.md")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="under ten minutes (the default)")
    size.add_argument("--full", action="store_true", help="all sizes and peers, more rounds")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="SCENARIO", help="one of --list; several --only: several")
    parser.add_argument("--list", action=List, nargs=0, help="print the names of the scenarios")
    parser.add_argument("--rounds", type=positive, default=sys.maxsize, metavar="N", help="no more rounds than that, for a look at all that --full measures")
    parser.add_argument("--seed", type=int, default=1, help="of the ClassBench-like rule sets")
    parser.add_argument("--prefix", default="sagbn", help=argparse.SUPPRESS)
    for name in ("target", "pktgen", "vcpe", "sagctl"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    clear_away(args.prefix)
    bench = Bench(args)
    failed = False
    try:
        machine = system.facts(ROOT)
        ticks = system.processor_ticks()
        bench.settings()
        for name, (scenario, quick) in SCENARIOS.items():
            if (args.only and name not in args.only) or not (args.only or quick or args.full):
                continue
            bench.scenario = name
            try:
                scenario(bench)
            except Exception as error:  # pylint: disable=broad-except
                failed = True
                bench.warn(f"{name}: {error}")
                if not isinstance(error, system.Failed):
                    traceback.print_exc()
                bench.missing.append((name, f"failed: {str(error)[:300]}"))
    finally:
        bench.cleanup.run()
    machine |= {"load at the end": [f"{load:.2f}" for load in os.getloadavg()], "taken by the host meanwhile": system.stolen(ticks)}
    data = {
        "arguments": [
            "--full" if args.full else "--quick",
            *(f"--only {n}" for n in args.only or []),
            *([f"--rounds {args.rounds}"] if args.rounds < sys.maxsize else []),
        ],
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "seconds": time.monotonic() - bench.started,
        "machine": machine,
        **{key: getattr(bench, key) for key in LAYOUT},
    }
    report.write(args.target / "bench", data)
    for row in bench.targets:
        measured = row["measured"]
        value = "-" if measured is None else report.figure(measured["median"])
        bench.say(f"{row['verdict']:<16} {value:>9} {report.sign(row)} {row['limit']} {row['unit']}: {row['target']}")
    bench.say(f"report: {args.target / 'bench' / 'report.md'}")
    broken = [name for name, t in (bench.tables | bench.figures).items() if t["broken"]] + (["changes"] if bench.changes.get("broken") else [])
    if broken:
        bench.warn(f"broken measurements: {', '.join(broken)}")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
