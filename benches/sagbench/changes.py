"""New flows, changes under load, offered load and latency, cores."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import rules as policy
from . import stats
from .generator import Generator
from .lab import Bare, Linux, Sag, mac_of
from .measure import Side
from .peers import XskForwarder
from .rows import target
from .scenarios import RULES, SNAT, chain_sag
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab


# What a worker costs at the least, where all it does is to receive and send.
NO_GATEWAY = "an AF_XDP forwarder that looks at nothing"
# Sessions alone keep ports apart, as the kernel has it.
LIKE_LINUX = "".join(f'snat_{what} = "address-and-port-dependent"\n' for what in ("mapping", "filtering"))


def new_flows(bench: Bench) -> None:
    """Every frame a new flow, as fast as they are taken in."""
    bench.step("new flows: every frame begins a session")
    rounds, flows = bench.rounds(3, 15), 100_000 if not bench.full else 400_000
    rates = {}
    with bench.labs() as make:
        labs = {
            "sag-vcpe": make("w0", Sag(snat=True, flows=1 << 20)),
            "sag-vcpe, mapping as Linux has it": make("w4", Sag(snat=True, flows=1 << 20, extra=LIKE_LINUX)),
            "sag-vcpe, whole chain": make("w1", chain_sag(flows=1 << 20)),
            "Linux, nft SNAT": make("w2", Linux(SNAT)),
            "Linux, nft set + SNAT": make("w3", Linux(policy.nft_set(RULES), SNAT)),
        }
        try:
            labs[NO_GATEWAY] = make("w5", XskForwarder())
        except Failed as error:
            bench.missing.append((NO_GATEWAY, str(error)))
        broken = []
        for n in range(rounds + 1):
            bench.progress(f"round {n} of {rounds}")
            for name, lab in labs.items():
                if isinstance(lab.forwarder, Sag):
                    lab.forwarder.forget()
                if isinstance(lab.forwarder, XskForwarder):
                    lab.forwarder.pause(False)
                # Remote addresses that have not been seen, so that the kernel cannot know the flows.
                options = ("--dst", f"198.{18 + n % 2}.{n * 4 % 256}.1")
                gen = lab.generator(flows, "64", options, sink="tcx")
                found = gen.trial(frames=flows, order="ascending", window=512, seconds=20)
                if isinstance(lab.forwarder, XskForwarder):
                    lab.forwarder.pause(True)
                if found["lost"]:
                    broken.append(f"{name}: {found['lost']} of {found['sent']} first packets lost")
                if n:
                    rates.setdefault(name, []).append(found["offered_pps"])
    bench.tables["newflows"] = {
        "scenario": "newflows",
        "csit": "ethip4udp-nat44ed-…-cps",
        "about": "New sessions a second; generator and reception on one core, the worker on the other; at most 512 under way.",
        "base": None,
        "rows": {n: {"rate_pps": stats.summary(r), "sent": flows * rounds, "lost": 0, "slow_path": None} for n, r in rates.items()},
        "broken": broken,
    }
    ours, like_linux, linux = (rates[name] for name in ("sag-vcpe", "sag-vcpe, mapping as Linux has it", "Linux, nft SNAT"))
    target(bench, "new sessions a second through SNAT: 3 × Linux", stats.ratios(ours, linux), 3, source="#21", broken=broken)
    what = "new sessions a second, mapping as Linux has it"
    target(bench, f"{what}: 5 × Linux", stats.ratios(like_linux, linux), 5, source="#21", broken=broken)
    if NO_GATEWAY in rates:
        target(bench, f"{what}: 0.5 of {NO_GATEWAY}", stats.ratios(like_linux, rates[NO_GATEWAY]), 0.5, source="#21", broken=broken)


def under_load(bench: Bench) -> None:
    """A commit and restarts while established flows send."""
    bench.step("commit and restart under load")
    rate, seconds, flows = 200_000, 3.0 if not bench.full else 10.0, 10_000
    rows, broken = {}, []
    with bench.labs() as make:
        lab = make("u0", chain_sag())
        sag = lab.forwarder

        def restart(how: str) -> None:
            sag.end(how)
            sag.spawn()

        kinds = {
            "nothing": lambda: None,
            "commit: 500 of 1,000 ACL rules less": lambda: sag.apply(rules=RULES[:500]),
            "commit: the rules again": lambda: sag.apply(rules=RULES),
            "restart": lambda: restart("terminate"),
            "kill -9 and start": lambda: restart("kill"),
        }
        side = Side("sag-vcpe", lab, flows, extra=("--check",))
        for kind, change in kinds.items():
            side.establish()
            gen = side.generator()
            failed = []

            def act(change: Callable[[], Any] = change, failed: list[str] = failed) -> None:
                time.sleep(seconds / 3)
                try:
                    change()
                except Exception as error:  # pylint: disable=broad-except
                    failed.append(str(error))

            thread = threading.Thread(target=act)
            overruns = lab.overruns()
            gen.start(rate=rate, seconds=seconds, flows=flows, settle_ms=1000)
            thread.start()
            found = gen.read()
            thread.join()
            if failed:
                broken.append(f"{kind}: {failed[0]}")
            rows[kind] = {k: found[k] for k in ("sent", "lost", "renumbered", "reordered", "offered_pps")}
            # Frames that overran a wire's ring are lost by the machine, which did not run the softirq in time.
            overruns = min(found["lost"], lab.overruns() - overruns)
            rows[kind] |= {"lost": found["lost"] - overruns, "overruns": overruns}
            rows[kind]["blocked_ms"] = rows[kind]["lost"] / rate * 1000
            more = f" ({overruns} overran a wire)" if overruns else ""
            bench.progress(f"  {kind:<38} {rows[kind]['lost']} of {found['sent']} lost{more}, {found['renumbered']} renumbered")
    bench.changes = {"rate_pps": rate, "flows": flows, "rows": rows, "broken": broken}
    for kind in list(kinds)[1:]:
        target(bench, f"{kind}, under {rate} frames/s: frames lost", stats.summary([rows[kind]["lost"]]), 0, False, "#4, #9", broken)


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


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Idle processors wait without sleeping: a virtual one that sleeps is woken when its host sees fit, which may be
    milliseconds late, and a ring of 256 frames overruns."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            # As long as it is open (kernel.org, power/pm_qos_interface).
            wish = held.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
            wish.write(struct.pack("i", 0))
        yield


def offered_load(bench: Bench) -> None:
    """RFC 2544 throughput, loss by offered load, latency at shares of the throughput."""
    with awake():
        offered(bench)


def offered(bench: Bench) -> None:
    bench.step("offered load: throughput, loss, latency; source on one core, gateway and sink on the other")
    # After a second in which real-time tasks have a processor, the kernel lets others in for 50 ms (its fair server).
    seconds = 0.25 if not bench.full else 0.8
    result = {}
    with bench.labs() as make:
        peers = {
            "bare redirect": make("o0", Bare()),
            "sag-vcpe": make("o1", chain_sag(flows=65_536)),
            "Linux, nft set + SNAT": make("o3", Linux(policy.nft_set(RULES), SNAT)),
        }
        if bench.full:
            peers["Linux forwarding"] = make("o2", Linux())
        for name, lab in peers.items():
            try:
                Threaded(lab, bench.other_core)
            except Failed as error:
                bench.warn(f"offered load left out: {error}")
                bench.missing.append(("offered load", str(error)))
                return
            # A veth ring has 256 entries, and the source does not wait now.
            Side(name, lab).establish(window=128)
            gen = lab.generator()

            def paced(rate: float, gen: Generator = gen) -> tuple[float, float]:
                found = gen.trial(rate=rate, seconds=seconds, flows=10_000)
                return found["offered_pps"], found["loss"]

            top = gen.trial(seconds=seconds, flows=10_000)["offered_pps"]
            steps = 10 if bench.full else 6
            rates = {str(loss): search(paced, top, loss, steps) for loss in (0.0, 0.005)}
            rates["0.005"] = capacity = max(rates.values())
            curve = [paced(capacity * share) for share in (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0) if capacity * share <= top * 1.05]
            stamped = lab.generator(extra=("--stamp", "--batch", "8"))
            latency = {}
            for share in (0.1, 0.5, 0.9):
                found = stamped.trial(rate=max(1000.0, capacity * share), seconds=max(seconds, 0.4), flows=10_000)
                latency[str(share)] = {"offered_pps": found["offered_pps"], "lost": found["lost"], **(found["latency"] or {})}
            result[name] = {"throughput": rates, "source_can": top, "curve": curve, "latency": latency}
            half = latency["0.5"]
            bench.progress(
                f"  {name:<26} {rates['0.0'] / 1e6:.3f} Mpps without loss, {rates['0.005'] / 1e6:.3f} with 0.5 %; "
                f"at half of it p50 {half.get('p50', 0) / 1e3:.1f} µs, p99 {half.get('p99', 0) / 1e3:.1f} µs"
            )
    bench.offered = result


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


def cores(bench: Bench) -> None:
    """Two sources on two cores, each with flows of its own."""
    if bench.cores < 2:
        bench.missing.append(("two cores", "this machine has one"))
        return
    bench.step("one and two cores")
    rows = {}
    with bench.labs(queues=2) as make:
        for name, lab in {"bare redirect": make("p0", Bare()), "sag-vcpe": make("p1", chain_sag(flows=65_536))}.items():
            others = ("--src", "10.0.2.0")
            Side(name, lab, extra=others).establish()
            Side(name, lab).establish()
            first = lab.generator()
            second = Generator(
                bench.pktgen, f"{lab.lan}:eth0", None, bench.other_core, 10_000, [*others, "--dst-mac", mac_of(lab.gw, "lan")]
            )
            bench.cleanup.add(second.close)
            one, two = [], []
            sent = lost = 0
            for _ in range(bench.rounds(5, 21)):
                one.append(first.trial(frames=400_000, resume=True)["offered_pps"])
                first.start(frames=800_000, resume=True, settle_ms=0)
                # The sink is that of the first source, which has reset it for this trial.
                time.sleep(0.01)
                second.start(frames=800_000, resume=True)
                found = [g.read() for g in (first, second)]
                time.sleep(0.02)
                two.append(sum(f["offered_pps"] for f in found))
                sent += sum(f["sent"] for f in found)
                lost += sum(f["sent"] for f in found) - first.count()
            second.close()
            rows[f"{name}, 1 core"], rows[f"{name}, 2 cores"] = (one, None, 0), (two, sent, lost)
    bench.tables["cores"] = {
        "scenario": "cores",
        "csit": "1c, 2c",
        "about": "Whole chain; 10,000 flows a core; two receive queues. Sum of the rates of the two sources, which both send. "
        "The daemon has no core of its own then.",
        "base": None,
        "rows": {
            n: {"rate_pps": stats.summary(rates), "sent": sent, "lost": lost, "slow_path": None}
            for n, (rates, sent, lost) in rows.items()
        },
        "broken": [f"{n}: {lost} of {sent} frames lost" for n, (_, sent, lost) in rows.items() if lost],
    }
    for name in ("bare redirect", "sag-vcpe"):
        ratio = stats.ratios(rows[f"{name}, 2 cores"][0], rows[f"{name}, 1 core"][0])
        bench.tables["cores"]["rows"][f"{name}, 2 cores"]["of_one"] = ratio


__all__ = ["cores", "new_flows", "offered_load", "under_load"]
