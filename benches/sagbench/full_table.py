"""A full Internet table: lookups beside DPDK's, what changes cost the control thread, and what they cost packets."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from . import stats
from .alone import example, lines_of_json
from .lab import in_ns, mac_of
from .measure import Side
from .rows import target
from .scenarios import chain_sag
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench

# Lookups of `internet_table` (crates/fib/examples), and whose they are to cost twice of at most (#21).
LOOKUPS = {"IPv4 bulk": "dir24_8", "IPv4 chained": "dir24_8", "IPv6 bulk": "rib6", "IPv6 chained": "rib6"}
PEERS = {"dir24_8": "librte_fib DIR24-8", "rib6": "librte_rib6"}
# Cases of `full_table` (crates/compile/examples): the position among the values, and the most that it is to be. Values of
# single routes are at 50, 90, 99 and 100 % of the changes.
CHANGES = {
    "a route is withdrawn": (2, 100, "µs, 99 %"),
    "a route is announced": (2, 100, "µs, 99 %"),
    "a route is moved": (2, 100, "µs, 99 %"),
    "a port goes down, the longest step": (0, 100, "ms"),
    "a port comes up, the longest step": (0, 100, "ms"),
    "a tunnel goes down, the longest step": (0, 100, "ms"),
    "a route of the file changes, the longest step": (0, 100, "ms"),
}
ROUTERS = ("203.0.113.1", "203.0.113.3")
# Changes a second, and how many come at a time.
RATE, BURST = 10_000, 100


def fib(bench: Bench) -> None:
    """In memory, then beside traffic."""
    lookups(bench)
    control(bench)
    beside_flows(bench)


def lookups(bench: Bench) -> None:
    bench.step("a full table: lookups beside librte's")
    text = example(bench, "internet_table", "--json", "--rounds", bench.rounds(5, 21))
    if text is None:
        return
    found = {row["case"]: row["values"] for row in lines_of_json(text)}
    shown = [line for line in text.splitlines() if not line.startswith("{")]
    for line in shown:
        bench.progress(f"  {line}")
    bench.notes["A full Internet table: lookups"] = "\n".join(shown)
    if not any("dir24_8" in case for case in found):
        bench.missing.append(("librte_fib", "not installed (dpdk-dev)"))
    for case, peer in LOOKUPS.items():
        # librte_fib has vector code of its own, for machines with AVX-512.
        for label in ("scalar", "vector") if peer == "dir24_8" else ("scalar",):
            theirs, ours = found.get(f"{case}, {peer} {label}"), found.get(f"{case}, sag-fib beside {label}")
            if theirs and ours:
                how = f"{PEERS[peer]}, {label}" if peer == "dir24_8" else PEERS[peer]
                target(bench, f"full table, lookup, {case}, by {how}", stats.ratios(ours, theirs), 2, False, "#21")


def control(bench: Bench) -> None:
    bench.step("a full table: what changes cost the control thread")
    text = example(bench, "full_table")
    if text is None:
        return
    for line in text.splitlines():
        bench.progress(f"  {line}")
    bench.notes["A full Internet table: changes"] = text
    found = {row["case"]: row["values"] for row in lines_of_json(text)}
    for case, (position, limit, unit) in CHANGES.items():
        target(bench, f"full table, {case}, {unit}", stats.summary([found[case][position]]), limit, False, "#21")


class Churn:
    """Routes that move between two routers, so many a second, as long as it is open."""

    def __init__(self, lab: Any, nets: list[str], core: int) -> None:
        command = ["taskset", "-c", str(core), "nsenter", f"--net=/run/netns/{lab.gw}", "ip", "-batch", "-"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self.nets, self.done, self.over = nets, 0, threading.Event()
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.over.is_set():
                due = int((time.monotonic() - self.began) * RATE) - self.done
                for _ in range(max(due, 0) // BURST):
                    turn, first = divmod(self.done, len(self.nets))
                    some = (self.nets[(first + n) % len(self.nets)] for n in range(BURST))
                    self.process.stdin.write("".join(f"route replace {net} via {ROUTERS[(turn + 1) % 2]} proto bgp\n" for net in some))
                    self.done += BURST
                self.process.stdin.flush()
                time.sleep(0.005)
        except BrokenPipeError:
            pass

    def close(self) -> float:
        """Changes a second that the kernel has taken."""
        self.over.set()
        self.thread.join()
        self.process.stdin.close()
        if self.process.wait(60):
            raise Failed("ip -batch failed")
        return self.done / (time.monotonic() - self.began)


def beside_flows(bench: Bench) -> None:
    count, moving, seconds = 1_000_000 if bench.full else 200_000, 20_000, 2.0
    bench.step(f"{RATE} changes of routes a second beside 10,000 flows at full rate, {count} routes")
    nets = [f"{16 + (n >> 16)}.{(n >> 8) & 255}.{n & 255}.0/24" for n in range(count)]
    without, beside, changes, lost, sent = [], [], [], 0, 0
    with bench.labs() as make:
        lab = make("r0", chain_sag())
        run("ip", "-n", lab.gw, "neigh", "add", ROUTERS[1], "lladdr", mac_of(lab.wan, "eth0"), "dev", "wan", "nud", "permanent")
        batch = "".join(f"route add {net} via {ROUTERS[0]} proto bgp\n" for net in nets)
        in_ns(lab.gw, "ip", "-batch", "-", stdin=batch, timeout=300)
        side = Side("sag-vcpe", lab, 10_000)
        end = time.monotonic() + 120
        while lab.forwarder.ctl("routes", "--limit", "1")["total"] < count:
            if time.monotonic() > end:
                raise Failed(f"the gateway has not followed {count} routes within two minutes")
            time.sleep(0.2)
        side.establish()
        gen = side.generator()
        for _ in range(bench.rounds(5, 15)):
            overruns = lab.overruns()
            without.append(gen.trial(seconds=seconds, flows=10_000)["offered_pps"])
            churn = Churn(lab, nets[:moving], bench.other_core)
            found = gen.trial(seconds=seconds, flows=10_000)
            changes.append(churn.close())
            beside.append(found["offered_pps"])
            sent += found["sent"]
            lost += max(0, found["lost"] - (lab.overruns() - overruns))
    rate = stats.summary(changes)
    broken = [f"{rate['median']:.0f} changes a second"] if rate["median"] < 0.8 * RATE else []
    ratio = stats.ratios(beside, without)
    bench.progress(f"  {rate['median']:.0f} changes a second: {ratio['median']:.3f} of the rate without, {lost} of {sent} frames lost")
    what = f"{RATE} changes of routes a second beside 10,000 flows at full rate ({count} routes)"
    target(bench, f"{what}: of the rate without", ratio, 0.95, source="#21", broken=broken)
    target(bench, f"{what}: frames lost", stats.summary([lost]), 0, False, "#21", broken)


__all__ = ["fib"]
