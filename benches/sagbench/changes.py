"""New flows, changes under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import rules as policy
from . import stats
from .lab import Linux, Sag
from .measure import Side
from .peers import XskForwarder
from .rows import target
from .scenarios import RULES, SNAT, chain_sag
from .system import Failed

if TYPE_CHECKING:
    from .__main__ import Bench


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


__all__ = ["new_flows", "under_load"]
