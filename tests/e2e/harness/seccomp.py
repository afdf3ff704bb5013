"""System calls that fail: how a kernel that lacks them looks to a program, and how the filter of a systemd unit does.

As a program: `seccomp.py PLAN PROGRAM [ARGUMENTS]` runs PROGRAM so; PLAN is a JSON file with `default` and `calls`."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

HEADERS = [Path(f"/usr/include/{where}asm/unistd_64.h") for where in ("x86_64-linux-gnu/", "")]
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2


def numbers() -> dict[str, int]:
    """System calls of this machine by name; empty where there are no headers, or on another processor."""
    if os.uname().machine != "x86_64":
        return {}
    text = next((path.read_text() for path in HEADERS if path.exists()), "")
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}


def unit_calls(directives: Iterable[str], groups: str) -> set[str]:
    """The names that the lines `SystemCallFilter=` of a unit allow (systemd.exec(5)). `groups`: what `systemd-analyze
    syscall-filter` prints."""
    members: dict[str, list[str]] = {}
    for line in groups.splitlines():
        if line.startswith("@"):
            name = line.strip()
            members[name] = []
        elif (word := line.strip()) and not word.startswith("#"):
            members[name].append(word)

    def expand(word: str) -> set[str]:
        return set().union(*(expand(each) for each in members[word])) if word.startswith("@") else {word}

    # Always allowed with a list of what is allowed.
    allowed = expand("@default")
    for line in directives:
        words = set().union(*(expand(word) for word in line.removeprefix("~").split()))
        allowed = allowed - words if line.startswith("~") else allowed | words
    return allowed


def plan(path: Path, default: int, calls: dict[int, int]) -> Path:
    """`default` and the values of `calls` are error numbers; 0 lets a call through."""
    path.write_text(json.dumps({"default": default, "calls": calls}))
    path.chmod(0o644)
    return path


def without(path: Path, *names: str) -> Path:
    """The plan of a kernel that does not know these calls."""
    known = numbers()
    return plan(path, 0, {known[name]: errno.ENOSYS for name in names})


def wrapper(folder: Path, program: str, of: Path) -> str:
    """A script in place of `program` that runs it by a plan."""
    script, here = Path(folder) / f"{of.stem}-run", Path(folder) / "seccomp.py"
    shutil.copy(__file__, here)
    script.write_text(f'#!/bin/sh\nexec /usr/bin/python3 {here} {of} {program} "$@"\n')
    script.chmod(0o755)
    return str(script)


def apply(default: int, calls: dict[str, int]) -> None:
    """Of this process and what it becomes. Programs of one processor alone run here, so its kind is not looked at."""
    action = lambda error: ERRNO | error if error else ALLOW
    instruction = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
    program = instruction(0x20, 0, 0, 0)
    for number, error in calls.items():
        # Equal: the answer follows. Otherwise over it.
        program += instruction(0x15, 0, 1, int(number)) + instruction(0x06, 0, 0, action(error))
    program += instruction(0x06, 0, 0, action(default))
    text = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, MODE_FILTER, ctypes.c_void_p(ctypes.addressof(head)))):
        if libc.prctl(*arguments, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text())
    apply(wanted["default"], wanted["calls"])
    os.execv(sys.argv[2], sys.argv[2:])
