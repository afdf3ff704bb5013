"""Programs under what their systemd unit grants, where systemd itself does not run: its user, capabilities, no new
privileges, system calls, and a file system that is read-only but for the unit's own directories."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import seccomp
from .config import ROOT
from .net import run

UNITS = ROOT / "configs" / "systemd"
# A user that no machine has.
USER = 61217


class Unit:
    def __init__(self, name: str) -> None:
        self.name, self.path = name, UNITS / f"{name}.service"
        self.settings = {}
        for line in self.path.read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.settings.setdefault(key, []).append(value)

    def one(self, key: str, default: str = "") -> str:
        return self.settings.get(key, [default])[-1]

    def capabilities(self, key: str = "CapabilityBoundingSet") -> set[Any]:
        return {word.removeprefix("CAP_").lower() for word in self.one(key).split()}

    def wrapper(self, folder: Path, program: str, writable: Sequence[Any] | None = None, without: Sequence[str] = ()) -> str:
        """A script in place of `program`, which runs it as the unit does. `writable`: the unit's StateDirectory,
        RuntimeDirectory and ReadWritePaths, and which folder is there. `without`: capabilities that it does not get."""
        granted = self.capabilities("AmbientCapabilities") - set(without)
        bounding = self.capabilities() - set(without)
        plus = lambda names: ",".join(["-all", *(f"+{name}" for name in sorted(names))])
        command = [
            "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", f"--inh-caps={plus(granted)}",
            f"--ambient-caps={plus(granted)}", f"--bounding-set={plus(bounding)}",
        ]
        if self.one("NoNewPrivileges") == "yes":
            command.append("--no-new-privs")
        program = self.filtered(Path(folder), program)
        lines = ["#!/bin/sh", f"umask {self.one('UMask', '0022')}"]
        # Mounts of the shell below; the network namespace stays as it is.
        if self.one("ProtectSystem") == "strict":
            binds = "".join(f"mount --rbind {shlex.quote(str(source))} {shlex.quote(str(path))}; " for path, source in writable.items())
            inside = (
                f'set -e; {binds}mount -o remount,bind,ro /; for d in /run /tmp /var; do '
                'if mountpoint -q $d; then mount -o remount,bind,ro $d; fi; done; exec "$0" "$@"'
            )
            lines.append(f"exec unshare --mount sh -c {shlex.quote(inside)} {shlex.join(command)} {shlex.quote(str(program))} \"$@\"")
        else:
            lines.append(f"exec {shlex.join(command)} {shlex.quote(str(program))} \"$@\"")
        name = "-".join(["as", self.name, *without])
        script = Path(folder) / name
        script.write_text("\n".join(lines) + "\n")
        script.chmod(0o755)
        return str(script)


    def filtered(self, folder: Path, program: str) -> str:
        """The program with the system calls of the unit alone; as it is where systemd's groups of them are not known."""
        known, analyze = seccomp.numbers(), shutil.which("systemd-analyze")
        if not known or not analyze:
            return program
        groups = run([analyze, "syscall-filter", "--no-pager"]).stdout
        allowed = seccomp.unit_calls(self.settings["SystemCallFilter"], groups)
        # Names of other processors have no number here.
        calls = {known[name]: 0 for name in sorted(allowed) if name in known}
        error = getattr(errno, self.one("SystemCallErrorNumber", "EPERM"))
        return seccomp.wrapper(folder, str(program), seccomp.plan(folder / f"{self.name}-calls", error, calls))


def own(*paths: Any) -> None:
    """What the unit's user owns."""
    for path in paths:
        Path(path).mkdir(parents=True, exist_ok=True)
        for each in (Path(path), *Path(path).rglob("*")):
            os.chown(each, USER, USER, follow_symlinks=False)


def reachable(program: str, folder: Path) -> str:
    """The program, or a copy where every user may run it: builds may lie in somebody's home."""
    path = Path(program).resolve()
    if all(d.stat().st_mode & 0o001 for d in (path, *path.parents)):
        return str(path)
    copy = Path(folder) / path.name
    if not copy.exists():
        shutil.copy(path, copy)
    return str(copy)


def privileges(pid: int) -> dict[str, Any]:
    """(user, effective, permitted, bounding, ambient capabilities as numbers, no new privileges) of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    sets = {key: int(lines[key], 16) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
    return {"user": int(lines["Uid"].split()[1]), "no_new_privs": lines["NoNewPrivs"].strip() == "1", **sets}


NUMBERS = {"chown": 0, "dac_override": 1, "fowner": 3, "kill": 5, "net_bind_service": 10, "net_admin": 12, "net_raw": 13, "ipc_lock": 14, "sys_admin": 21, "perfmon": 38, "bpf": 39}


def mask(names: Sequence[str]) -> int:
    return sum(1 << NUMBERS[name] for name in names)
