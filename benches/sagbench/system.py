"""Commands, settings of the machine that are put back, and its facts."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Failed(Exception):
    """Something could not be measured; the text says what and why."""


def run(*command: Any, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
    done = subprocess.run(
        [str(c) for c in command], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(str(c) for c in command)[:200]}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


class Cleanup:
    """What is undone at the end, last first, whatever happens."""

    def __init__(self) -> None:
        self.actions = []

    def add(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.actions.append((action, args, kwargs))

    def run(self) -> None:
        while self.actions:
            action, args, kwargs = self.actions.pop()
            try:
                action(*args, **kwargs)
            except Exception as error:  # pylint: disable=broad-except
                print(f"cleaning up: {error}")

    def setting(self, path: str, value: Any) -> bool:
        """Writes a setting of the machine, and the old one at the end."""
        file = Path(path)
        try:
            old = file.read_text(encoding="ascii").strip()
            file.write_text(str(value), encoding="ascii")
        except OSError:
            return False
        self.add(file.write_text, old, encoding="ascii")
        return True


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def virtualised() -> bool:
    return "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def version_of(*command: Any) -> str | None:
    try:
        lines = run(*command).strip().splitlines()
    except (OSError, Failed):
        return None
    return lines[0] if lines else None


def commit(root: Path) -> str:
    text = run("git", "-C", root, "describe", "--always", "--dirty", check=False).strip()
    return text or "unknown"


def text_of(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def caches() -> list[str]:
    """Of the first processor, as the (virtual) machine says."""
    found = []
    for place in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, shared = (text_of(f"{place}/{key}") for key in ("level", "type", "size", "shared_cpu_list"))
        found.append(f"L{level} {str(kind).lower()} {size} (processors {shared})")
    return found


def processor_ticks() -> dict[str, int]:
    """Of all processors, since the machine was started: /proc/stat."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    return dict(zip(names, map(int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9])))


def stolen(before: dict[str, int]) -> str:
    """What the host has given to others since then."""
    spent = {name: ticks - before[name] for name, ticks in processor_ticks().items()}
    return f"{100 * spent['steal'] / max(1, sum(spent.values())):.2f} % of the processors' time"


def facts(root: Path) -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0].split()[1]
    mitigations = Path("/sys/devices/system/cpu/vulnerabilities")
    known = {
        f.name: f.read_text(encoding="ascii").strip()
        for f in sorted(mitigations.glob("*"))
        if not f.read_text(encoding="ascii").startswith("Not affected")
    }
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in cpuinfo.split("\n\n", 1)[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    options = ("mitigations", "isolcpus", "nohz_full", "rcu_nocbs", "idle", "intel_pstate", "processor.max_cstate")
    boot = [word for word in (text_of("/proc/cmdline") or "").split() if word.split("=")[0] in options]
    return {
        "commit": commit(root),
        "cpu": f"{cpu_model()} (family {fields.get('cpu family')}, model {fields.get('model')}, stepping {fields.get('stepping')})",
        "processors": f"{os.cpu_count()}; threads of a core: {text_of('/sys/devices/system/cpu/cpu0/topology/thread_siblings_list')}",
        "clock": f"{fields.get('cpu MHz')} MHz as the kernel says; clock source {text_of('/sys/devices/system/clocksource/clocksource0/current_clocksource')}",
        "caches": caches(),
        "virtual_machine": virtualised(),
        "memory_gib": round(int(memory) / 1048576, 1),
        "huge pages": text_of("/sys/kernel/mm/transparent_hugepage/enabled"),
        "kernel": f"{platform.release()} {platform.version()}",
        "boot options": ", ".join(boot) or f"none of {', '.join(options)}",
        "BPF JIT, hardening": f"{text_of('/proc/sys/net/core/bpf_jit_enable')}, {text_of('/proc/sys/net/core/bpf_jit_harden')}",
        "mitigations": known,
        "load_at_the_start": [f"{load:.2f}" for load in os.getloadavg()],
        "nft": version_of("nft", "--version"),
        "DPDK": version_of("dpkg-query", "-W", "-f", "${Version}", "dpdk"),
        "compiler": version_of("rustc", "--version"),
        "clang": version_of("clang", "--version"),
    }
