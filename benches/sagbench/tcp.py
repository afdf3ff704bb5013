"""TCP of hosts on the same machine: iperf3 with and without offloads, beside Linux forwarding with nftables."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import stats
from .lab import Linux, Sag, in_ns
from .rows import figures, samples, target
from .scenarios import SNAT
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab

SERVER = "203.0.113.1"
OFFLOADS = ("tx", "rx", "sg", "tso", "gso", "gro")
SIDES = ("Linux, nft SNAT", "sag-vcpe, tc", "sag-vcpe, native")


class SagIn(Sag):
    """The gateway in a mode."""

    def __init__(self, mode: str) -> None:
        super().__init__(snat=True)
        self.mode = mode

    def config(self, **other: Any) -> str:
        return super().config(**other).replace("[dataplane]\n", f'[dataplane]\nmode = "{self.mode}"\n', 1)


def addresses(lab: Lab) -> None:
    run("ip", "-n", lab.lan, "addr", "add", "10.0.0.2/16", "dev", "eth0")
    run("ip", "-n", lab.lan, "route", "add", "default", "via", "10.0.0.1")
    run("ip", "-n", lab.wan, "addr", "add", f"{SERVER}/24", "dev", "eth0")


def offloads(lab: Lab, on: bool) -> None:
    """Of the hosts. What the gateway's devices refuse, because XDP is there, stays off."""
    for namespace, devices in ((lab.lan, ("eth0",)), (lab.wan, ("eth0",)), (lab.gw, ("lan", "wan"))):
        for device in devices:
            for offload in OFFLOADS if on else reversed(OFFLOADS):
                state = "on" if on or offload == "gro" else "off"
                in_ns(namespace, "ethtool", "-K", device, offload, state, check=False)


@contextlib.contextmanager
def server(lab: Lab) -> Iterator[None]:
    with subprocess.Popen(["nsenter", f"--net=/run/netns/{lab.wan}", "iperf3", "-s"], stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 5
            while not in_ns(lab.wan, "ss", "-Hltn", "sport = :5201").strip():
                if time.monotonic() > end:
                    raise Failed("iperf3 does not listen")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def gbits(lab: Lab, streams: int, seconds: float) -> float:
    report = json.loads(in_ns(lab.lan, "iperf3", "-c", SERVER, "-t", seconds, "-O", 0.5, "-P", streams, "-J", check=False))
    if "error" in report:
        raise Failed(f"iperf3 in {lab.name}: {report['error']}")
    return report["end"]["sum_received"]["bits_per_second"] / 1e9


def tcp(bench: Bench) -> None:
    """One stream and eight, offloads of the hosts on and off; the sides in turns."""
    if not shutil.which("iperf3"):
        bench.missing.append(("TCP between hosts", "iperf3 is not installed (apt-get install iperf3)"))
        return
    bench.step(f"TCP between hosts: {', '.join(SIDES)}")
    seconds = 2
    found: dict[tuple[str, bool, int], list[float]] = {}
    with bench.labs() as make, contextlib.ExitStack() as servers:
        labs = dict(zip(SIDES, (make("tcp0", Linux(SNAT)), make("tcp1", SagIn("tc")), make("tcp2", SagIn("native")))))
        for lab in labs.values():
            addresses(lab)
            servers.enter_context(server(lab))
        for n in range(bench.rounds(2, 10)):
            bench.progress(f"round {n + 1}")
            for on in (True, False):
                for lab in labs.values():
                    offloads(lab, on)
                for streams in (1, 8):
                    for name, lab in labs.items():
                        found.setdefault((name, on, streams), []).append(gbits(lab, streams, seconds))
    cases = [(on, streams) for on in (True, False) for streams in (1, 8)]
    columns = [f"{streams} stream{'s' if streams > 1 else ''}, offloads {'on' if on else 'off'}" for on, streams in cases]
    figures(
        bench,
        "TCP between hosts, Gbit/s",
        "iperf3 from host to host through the gateway: source NAT and a route, MTU 1,500. Hosts and gateway share the cores. "
        "Offloads are those of the hosts' devices (tx, tso, gso, gro); with XDP on the ports (native) the kernel keeps tso off.",
        columns,
        {name: [samples(found[name, on, streams]) for on, streams in cases] for name in SIDES},
    )
    linux, ours, _ = SIDES
    for (on, streams), column in zip(cases, columns):
        ratio = stats.ratios(found[ours, on, streams], found[linux, on, streams])
        target(bench, f"TCP, {column}: {ours} beside Linux with nft SNAT", ratio, 1.0, source="#21")
