"""Trials of pktgen: numbered packets of many flows through the lab, each of which is looked for at the sink."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .cloud import Missing, binary
from .lab import Addresses as A
from .net import CommandError, Namespace, run

if TYPE_CHECKING:
    from .lab import Lab

WIRE = 20  # bytes of preamble and gap that a frame takes beside its own
# A paced source does not catch up on time in which it did not run: it has priority, on a core of its own.
FIRST = ["chrt", "--other", "0", "nice", "-n", "-10"]
CORE = min(os.sched_getaffinity(0))


def softirqs_before(nice: int) -> Any:
    """What forwards for the source runs in the core's softirq thread: a source that goes before that overruns the
    devices' rings of 256 frames. Returns what puts it back."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == f"ksoftirqd/{CORE}":
                before = os.getpriority(os.PRIO_PROCESS, int(pid))
                os.setpriority(os.PRIO_PROCESS, int(pid), nice)
                return lambda: os.setpriority(os.PRIO_PROCESS, int(pid), before)
        except OSError:
            continue
    return lambda: None


def line_rate(bps: float, size: int) -> float:
    """Frames of `size` bytes a second that fill a line of so many bit/s."""
    return bps / 8 / (size + WIRE)


class Trials:
    """From the first LAN host to the provider's router. Every option is pktgen's."""

    def __init__(self, lab: Lab, flows: int, *options: str) -> None:
        try:
            self.program = binary("pktgen", "PKTGEN_BIN")
        except Missing as missing:
            pytest.skip(str(missing))
        self.lab, self.running = lab, []
        self.restore = softirqs_before(-15)
        self.base = [
            self.program, "run", "--json", "--check", "--flows", str(flows), "--endpoints", str(flows), "--sources", "1",
            *map(str, options),
        ]
        self.endpoints = [
            "--tx", place(lab.lan1, "eth0"), "--rx", place(lab.wan, "gw"), "--src", A.LAN1[4], "--dst", A.INET[4],
            "--src-mac", lab.lan1.mac("eth0"), "--dst-mac", lab.gw.mac("lan-a"),
        ]

    def start(self, *options: str, endpoints: str | None = None) -> Any:
        """One trial; `result` waits for it."""
        paced = "--rate" in options
        first = [*FIRST, *self.base, "--core", CORE] if paced else self.base
        command = [*map(str, first), *(endpoints or self.endpoints), *map(str, options)]
        self.running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=paced)
        )
        # For kernels that schedule by session (autogroup) before processes.
        if paced:
            with contextlib.suppress(OSError):
                Path(f"/proc/{self.running[-1].pid}/autogroup").write_text("-10")
        return self.running[-1]

    def run(self, *options: str, endpoints: str | None = None) -> Any:
        return result(self.start(*options, endpoints=endpoints))

    def overruns(self) -> int:
        """Frames that found the ring of 256 at the other end of a wire full, before the gateway and behind it: so many are lost
        because the machine did not run the softirq in time."""
        output = [ns.run(["ethtool", "-S", dev]).stdout for ns, dev in ((self.lab.lan1, "eth0"), (self.lab.gw, "wan"))]
        return sum(int(line.split(":")[1]) for text in output for line in text.splitlines() if "xdp_xmit_errors" in line)

    @staticmethod
    def aside(*pids: int) -> None:
        """These processes leave the source's core to it, if there is another."""
        others = os.sched_getaffinity(0) - {CORE}
        for task in (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
            if others:
                os.sched_setaffinity(int(task.name), others)

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        self.restore()

    @contextlib.contextmanager
    def bare(self, prefix: str) -> Iterator[list[Any]]:
        """Two wires with nothing but an XDP redirect between them, for `endpoints`: what this machine offers at most."""
        made = [Namespace(name, f"/run/netns/{prefix}{name}") for name in ("bare-a", "bare-x", "bare-b")]
        a, x, b = made
        try:
            for ns in made:
                run(["ip", "netns", "add", Path(ns.path).name])
            for ns, dev in ((a, "one"), (b, "two")):
                run(["ip", "link", "add", "eth0", "netns", Path(ns.path).name, "type", "veth", "peer", "name", dev, "netns", Path(x.path).name])
                ns.ip("link set eth0 up")
                x.ip(f"link set {dev} up")
            redirect = subprocess.Popen(
                [self.program, "bare", "--from", place(x, "one"), "--to", place(x, "two")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            self.running.append(redirect)
            output = redirect.stdout.readline()
            if not output.startswith("redirecting"):
                raise CommandError(f"pktgen bare: {output}")
            time.sleep(0.1)
            yield ["--tx", place(a, "eth0"), "--rx", place(b, "eth0"), "--src", A.LAN1[4], "--dst", A.INET[4]]
            redirect.stdin.close()
            redirect.wait(5)
        finally:
            for ns in made:
                run(["ip", "netns", "delete", Path(ns.path).name], check=False)


def place(ns: Namespace, device: str) -> str:
    return f"{Path(ns.path).name}:{device}"


def result(process: subprocess.Popen[str], timeout: float = 900) -> Any:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return json.loads(out)
