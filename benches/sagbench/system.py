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


def version_of(*command: Any) -> str:
    try:
        lines = run(*command, check=False).strip().splitlines()
    except OSError:
        return None
    return lines[0] if lines else None


def commit(root: Path) -> str:
    text = run("git", "-C", root, "describe", "--always", "--dirty", check=False).strip()
    return text or "unknown"


def facts(root: Path) -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0].split()[1]
    mitigations = Path("/sys/devices/system/cpu/vulnerabilities")
    known = {
        f.name: f.read_text(encoding="ascii").strip()
        for f in sorted(mitigations.glob("*"))
        if not f.read_text(encoding="ascii").startswith("Not affected")
    }
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "virtual_machine": virtualised(),
        "memory_gib": round(int(memory) / 1048576, 1),
        "kernel": platform.release(),
        "mitigations": known,
        "load_average": list(os.getloadavg()),
        "nft": version_of("nft", "--version"),
        "compiler": version_of("rustc", "--version"),
        "clang": version_of("clang", "--version"),
        "commit": commit(root),
    }
