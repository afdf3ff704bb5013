"""Offered load by RFC 2544, latency at shares of the throughput, and of first packets."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import rules as policy
from . import stats
from .lab import Bare, Linux
from .measure import Side
from .rows import figures, samples, target
from .scenarios import RULES, SNAT, chain_sag
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab


class Threaded:
    """The gateway's receiving NAPI as a thread of its own, on the other core: the source no longer waits
    for the gateway, so that there is an offered load."""

    def __init__(self, lab: Lab, core: int) -> None:
        before = set(napi_threads())
        in_sysfs = "echo 1 >/sys/class/net/lan/threaded"
        run("ip", "netns", "exec", lab.gw, "sh", "-c", in_sysfs)
        self.threads = [t for t in napi_threads() if t not in before]
        if not self.threads:
            raise Failed("the kernel made no NAPI thread for the gateway's device")
        for thread in self.threads:
            run("taskset", "-pc", core, thread)
            # What else runs there would make it miss its ring of 256 frames.
            run("chrt", "-f", "-p", 10, thread)


def napi_threads() -> Iterator[str]:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8").startswith("napi/lan"):
                yield comm.parent.name
        except OSError:
            pass


# Runs where nothing else does (SCHED_IDLE), and is never waited for.
SPIN = "while True: pass"


@contextlib.contextmanager
def awake(bench: Bench) -> Iterator[None]:
    """Idle processors wait without sleeping: a virtual one that sleeps is woken when its host sees fit, which may be
    milliseconds late, and a ring of 256 frames overruns."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            # As long as it is open (kernel.org, power/pm_qos_interface).
            wish = held.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
            wish.write(struct.pack("i", 0))
        # Drivers for virtual machines do not follow that, and halt.
        for core in {bench.core, bench.other_core}:
            spinner = subprocess.Popen(["taskset", "-c", str(core), "chrt", "-i", "0", sys.executable, "-c", SPIN])
            held.callback(spinner.wait, 10)
            held.callback(spinner.kill)
            # Whatever ends the benchmark ends it, too.
            bench.cleanup.add(spinner.kill)
        yield


SHARES = (0.1, 0.5, 0.9)
PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
BARE, SAG, LINUX = "bare redirect", "sag-vcpe", "Linux, nft set + SNAT"
# New sessions a second, of which either has several times as many.
FIRST_RATE = 10_000


def offered_load(bench: Bench) -> None:
    """RFC 2544 throughput, loss by offered load, latency at shares of the throughput; latency of first packets."""
    with awake(bench):
        offered(bench)
        first_packets(bench)


class Paced:
    """A gateway whose receiving NAPI is a thread on the other core, and what was found of it."""

    def __init__(self, bench: Bench, name: str, lab: Lab) -> None:
        Threaded(lab, bench.other_core)
        self.bench, self.name, self.lab = bench, name, lab
        # After a second in which real-time tasks have a processor, the kernel lets others in for 50 ms (its fair server).
        self.seconds = 0.8 if bench.full else 0.25
        # By share: what each round has found.
        self.latency: dict[float, list[dict[str, Any]]] = {share: [] for share in SHARES}

    def loss(self, rate: float) -> tuple[float, float]:
        found = self.lab.generator().trial(rate=rate, seconds=self.seconds, flows=10_000)
        return found["offered_pps"], found["loss"]

    def throughput(self) -> None:
        # A veth ring has 256 entries, and the source does not wait now.
        Side(self.name, self.lab).establish(window=128)
        self.top = top = self.lab.generator().trial(seconds=self.seconds, flows=10_000)["offered_pps"]
        self.rates = {str(loss): search(self.loss, top, loss, 10 if self.bench.full else 6) for loss in (0.0, 0.005)}
        self.rates["0.005"] = self.capacity = max(self.rates.values())
        shares = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
        self.curve = [self.loss(self.capacity * share) for share in shares if self.capacity * share <= top * 1.05]

    def look(self, share: float) -> None:
        """Latencies at a share of the throughput."""
        stamped = self.lab.generator(extra=("--stamp", "--batch", "8"))
        found = stamped.trial(rate=max(1000.0, self.capacity * share), seconds=max(self.seconds, 0.4), flows=10_000)
        if found["latency"]:
            self.latency[share].append({"offered_pps": found["offered_pps"], "lost": found["lost"], **found["latency"]})

    def result(self) -> dict[str, Any]:
        latency = {str(share): medians(rounds) for share, rounds in self.latency.items()}
        return {"throughput": self.rates, "source_can": self.top, "curve": self.curve, "latency": latency}


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median round of each percentile, with the quartiles of the 99.9th."""
    if not rounds:
        return {"offered_pps": 0.0, "lost": 0}
    found: dict[str, Any] = {key: stats.summary([r[key] for r in rounds])["median"] for key in ("offered_pps", *PERCENTILES)}
    return found | {"lost": sum(r["lost"] for r in rounds), "of_p99.9": stats.summary([r["p99.9"] for r in rounds])}


def offered(bench: Bench) -> None:
    bench.step("offered load: throughput, loss, latency; source on one core, gateway and sink on the other")
    with bench.labs() as make:
        forwarders = {BARE: Bare(), SAG: chain_sag(flows=65_536), LINUX: Linux(policy.nft_set(RULES), SNAT)}
        if bench.full:
            forwarders["Linux forwarding"] = Linux()
        peers = []
        for n, (name, forwarder) in enumerate(forwarders.items()):
            try:
                peers.append(Paced(bench, name, make(f"o{n}", forwarder)))
            except Failed as error:
                bench.warn(f"offered load left out: {error}")
                bench.missing.append(("offered load", str(error)))
                return
        for peer in peers:
            peer.throughput()
            bench.progress(f"  {peer.name:<26} {peer.rates['0.0'] / 1e6:.3f} Mpps without loss, {peer.rates['0.005'] / 1e6:.3f} with 0.5 %")
        # In turns: a pause of the machine meets one as well as the other.
        for n in range(bench.rounds(7, 21)):
            bench.progress(f"round {n + 1}")
            for share in SHARES:
                for peer in peers:
                    peer.look(share)
        bench.offered = {peer.name: peer.result() for peer in peers}
        by_name = {peer.name: peer for peer in peers}
        for share in SHARES:
            ours, theirs = ([r["p99.9"] / 1e3 for r in by_name[name].latency[share]] for name in (SAG, LINUX))
            bench.progress(f"  at {share:.0%}: p99.9 {samples(ours)}, Linux {samples(theirs)}")
            ratio = stats.ratios(ours, theirs) if ours and theirs else None
            what = f"latency at {share:.0%} of its throughput, 99.9th percentile: no more than Linux at {share:.0%} of its own"
            target(bench, what, ratio, 1.0, False, source="#21", unit="×")


def first_packets(bench: Bench) -> None:
    """Every frame begins a session, at a rate that both can take easily."""
    bench.step(f"latency of first packets: {FIRST_RATE:,} new sessions a second")
    rows: dict[str, list[dict[str, Any]]] = {}
    broken = []
    rounds, flows = bench.rounds(7, 21), 1 << 20
    with bench.labs() as make:
        labs = {SAG: make("fp0", chain_sag(flows=1 << 20)), LINUX: make("fp1", Linux(policy.nft_set(RULES), SNAT))}
        for n in range(rounds + 1):
            for name, lab in labs.items():
                # The sink is that of socket buffers: workers and Linux send them.
                gen = lab.generator(flows, "64", ("--stamp", "--batch", "1"), sink="tcx")
                # Where the last round has ended: flows that nobody has seen.
                found = gen.trial(rate=FIRST_RATE, frames=int(FIRST_RATE * 0.4), flows=flows, order="ascending", resume=True, seconds=2)
                if n and found["latency"]:
                    rows.setdefault(name, []).append(found["latency"])
                if found["lost"]:
                    broken.append(f"{name}: {found['lost']} of {found['sent']} first packets lost")
    table = {name: [stats.summary([r[key] / 1e3 for r in found]) for key in PERCENTILES] for name, found in rows.items()}
    figures(
        bench,
        "Latency of first packets",
        f"µs; every frame begins a session, {FIRST_RATE:,} a second; whole chain; workers and source on cores of their own, Linux on the source's.",
        PERCENTILES,
        table,
        broken,
    )
    if len(rows) == 2:
        ours, theirs = ([r["p99.9"] for r in rows[name]] for name in (SAG, LINUX))
        ratio = stats.ratios(ours, theirs)
        target(bench, "latency of a first packet, 99.9th percentile: no more than Linux", ratio, 1.0, False, source="#21", broken=broken, unit="×")


def search(paced: Callable[[float], tuple[float, float]], top: float, allowed: float, steps: int = 8, tries: int = 3) -> float:
    """RFC 2544 section 26.1. A rate is too high when it loses too much at each of several tries: a virtual machine that
    pauses for milliseconds loses at any rate."""
    low, high, best, rate = 0.0, top, 0.0, top
    for _ in range(steps):
        for _ in range(tries):
            offered, loss = paced(rate)
            if loss <= allowed:
                break
        if loss <= allowed:
            best = max(best, offered)
            if rate >= top or offered < rate * 0.9:
                break
            low = rate
        else:
            high = rate
        if high - low < 0.02 * high:
            break
        rate = (low + high) / 2
    return best


__all__ = ["offered_load"]
