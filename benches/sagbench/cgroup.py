"""A control group with one processor and so much memory, of version 2 or 1."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .system import Failed

if TYPE_CHECKING:
    from .__main__ import Bench

ROOT = Path("/sys/fs/cgroup")


class Group:
    """What is started by `command` runs in it. Memory of the kernel that the processes cause, such as BPF maps, counts."""

    def __init__(self, bench: Bench, name: str, core: int, memory: int) -> None:
        self.places: dict[str, Path] = {}
        second = (ROOT / "cgroup.controllers").exists()
        try:
            for controller in ("cpuset", "memory"):
                if second:
                    control = ROOT / "cgroup.subtree_control"
                    if controller not in control.read_text(encoding="ascii"):
                        control.write_text(f"+{controller}", encoding="ascii")
                place = ROOT / name if second else ROOT / controller / name
                place.mkdir(exist_ok=True)
                bench.cleanup.add(os.rmdir, place) if place not in self.places.values() else None
                self.places[controller] = place
            self.set("cpuset", "cpuset.cpus", core)
            if not second:
                self.set("cpuset", "cpuset.mems", 0)
            self.set("memory", "memory.max" if second else "memory.limit_in_bytes", memory)
        except OSError as error:
            raise Failed(f"no control group with cpuset and memory: {error}") from None
        self.current = self.places["memory"] / ("memory.current" if second else "memory.usage_in_bytes")

    def set(self, controller: str, key: str, value: int) -> None:
        (self.places[controller] / key).write_text(str(value), encoding="ascii")

    def command(self, *command: str) -> list[str]:
        """Goes into the group and becomes the command."""
        places = " ".join(f"{place}/cgroup.procs" for place in dict.fromkeys(self.places.values()))
        return ["sh", "-c", f'for p in {places}; do echo $$ >"$p" || exit 1; done; exec "$@"', "sh", *command]

    def used(self) -> int:
        """Bytes in use, page cache included."""
        return int(self.current.read_text(encoding="ascii"))

    def part(self, *names: str) -> int:
        """Bytes of these lines of memory.stat."""
        lines = dict(line.split() for line in (self.places["memory"] / "memory.stat").read_text(encoding="ascii").splitlines())
        return sum(int(lines.get(name, 0)) for name in names)


__all__ = ["Group"]
