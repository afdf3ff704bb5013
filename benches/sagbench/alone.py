"""What is measured without a lab: the pipeline and the classifier in memory, the cloud API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from . import stats
from .rows import target
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench

# Case of `targets` (benches/examples): text, limit, issue.
IN_MEMORY = {
    "established, whole chain, 10,000 flows": ("established flow, whole chain, in memory, ns", 60, "#2"),
    "first packet, no NAT": ("first packet, ACL of 1,000 rules, in memory, ns", 400, "#2"),
}
# Rules: milliseconds.
COMPILE = {10_000: 200, 100_000: 5000}


def example(bench: Bench, name: str, *args: Any, timeout: float = 600) -> str | None:
    """What an example prints, or None where it is not built."""
    binary = bench.target / "release" / "examples" / name
    if not binary.exists():
        bench.missing.append((name, f"not built: cargo build --release --example {name}"))
        return None
    return run(binary, *args, timeout=timeout)


def lines_of_json(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def memory(bench: Bench) -> None:
    """The pipeline and the compiler of rules, in memory on one core."""
    bench.step("in memory: pipeline, compilation of rules")
    text = example(bench, "targets", bench.rounds(5, 41))
    if text is None:
        return
    rows = lines_of_json(text)
    found = {row["case"]: row["values"] for row in rows}
    shown = [f"{'median of the rounds, least, most':<44}"]
    for row in rows:
        s = stats.summary(row["values"])
        shown.append(f"{row['case']:<44} {s['median']:9.2f} {s['min']:9.2f} {s['max']:9.2f} {row['unit']}")
        bench.progress(f"  {shown[-1]}")
    bench.notes["In memory, one core"] = "\n".join(shown)
    for case, (what, limit, source) in IN_MEMORY.items():
        target(bench, what, stats.summary(found[case]), limit, False, source)
    for count, limit in COMPILE.items():
        for family in ("acl", "fw", "ipc"):
            values = found[f"compile {count} rules, {family}"]
            target(bench, f"{count:,} {family} rules compiled, ms", stats.summary(values), limit, False, "#2")
    if bench.full:
        bench.step("in memory: a million sessions made, refreshed, aged")
        bench.notes["A million sessions in memory"] = example(bench, "million") or ""
        bench.step("in memory: cases of NAT")
        bench.notes["Pipeline in memory"] = example(bench, "nat", 9) or ""


def cloud(bench: Bench) -> None:
    """benches/cloud_bench.py: a server of its own."""
    bench.step("sag-cloud: 1,000 gateways of 100 rules")
    binary = bench.target / "release" / "sag-cloud"
    if not binary.exists():
        bench.missing.append(("sag-cloud", "not built: cargo build --release -p sag-cloud"))
        return
    script = bench.root / "benches" / "cloud_bench.py"
    env = os.environ | {"SAG_CLOUD_BIN": str(binary), "CARGO_TARGET_DIR": str(bench.target)}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode not in (0, 1):
        raise Failed(f"{script.name}: {done.stderr.strip()[-300:]}")
    rows = json.loads((bench.target / "bench" / "cloud.json").read_text(encoding="utf-8"))
    for row in rows:
        sign, limit, *unit = row["target"].split()
        value = float(row["measured"].split()[0])
        what = ", ".join([f"sag-cloud: {row['what']}", *unit])
        target(bench, what, stats.summary([value]), float(limit), sign == ">", "#7")


__all__ = ["cloud", "example", "lines_of_json", "memory"]
