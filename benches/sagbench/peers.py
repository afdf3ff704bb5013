"""Peers from outside that not every machine has: DPDK's testpmd over AF_XDP, librte_acl, Open vSwitch."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from . import stats
from .alone import example, lines_of_json
from .generator import Generator
from .lab import Sag, in_ns, mac_of
from .rows import target
from .system import Failed

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab


class Testpmd:
    """DPDK's forwarder over AF_XDP in copy mode, on a core of its own."""

    sink = "tcx"

    def __init__(self) -> None:
        self.process = None

    def start(self, lab: Lab) -> None:
        binary = shutil.which("dpdk-testpmd")
        if not binary:
            raise Failed("dpdk-testpmd is not installed (apt-get install dpdk)")
        remote = mac_of(lab.wan, "eth0")
        command = f"""{binary} --no-huge --no-pci --no-telemetry --no-shconf -m 512 -l 0,{lab.bench.other_core} --main-lcore {lab.bench.core if lab.bench.core != lab.bench.other_core else 0}
            --vdev net_af_xdp0,iface=lan,force_copy=1 --vdev net_af_xdp1,iface=wan,force_copy=1
            -- --forward-mode=mac --eth-peer=1,{remote} --auto-start --nb-cores=1 --total-num-mbufs=32768 --stats-period 3600 --no-lsc-interrupt"""
        command = command.replace(f"-l 0,{lab.bench.other_core}", f"-l {lab.bench.core},{lab.bench.other_core}")
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{lab.gw}", *command.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(4)
        if self.process.poll() is not None:
            raise Failed(f"testpmd ended: {self.process.stdout.read()[-300:]}")

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.pause(False)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        if self.process:
            self.process.stdout.close()

    def pause(self, still: bool) -> None:
        """It polls: nothing else runs on its core meanwhile."""
        self.process.send_signal(signal.SIGSTOP if still else signal.SIGCONT)

    def fast(self) -> None:
        return None

    def forget(self) -> None:
        pass


class XskForwarder(Testpmd):
    """An AF_XDP forwarder that looks at nothing (benches/examples/l2fwd.rs): what a worker costs at the least. It has the
    priority of a worker."""

    def start(self, lab: Lab) -> None:
        binary = lab.bench.target / "release" / "examples" / "l2fwd"
        if not binary.exists():
            raise Failed("not built: cargo build --release -p sag-benches --example l2fwd")
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{lab.gw}", "chrt", "-f", "10", str(binary), "lan", "wan", "--cpu", str(lab.bench.other_core)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
        if self.process.poll() is not None:
            raise Failed(f"l2fwd ended with {self.process.returncode}")
        self.pause(True)


def testpmd(bench: Bench) -> None:
    """What reaches the sink by AF_XDP alone. Overload: the source is not paced."""
    bench.step("testpmd over AF_XDP (forwarding by MAC, no policy); sag-vcpe without its fast path")
    with bench.labs() as make:
        try:
            peer = make("tp", Testpmd())
        except Failed as error:
            bench.missing.append(("DPDK testpmd over AF_XDP", str(error)[-200:]))
            return
        peer.forwarder.pause(True)
        labs = {"testpmd": peer, "sag-vcpe, fast_path = false": make("tpsag", Sag(fast_path=False))}
        found = {name: [] for name in labs}
        for n in range(bench.rounds(5, 21) + 1):
            for name, lab in labs.items():
                if lab is peer:
                    peer.forwarder.pause(False)
                trial = lab.generator(flows=1).trial(seconds=0.4, window=1024, flows=1)
                if lab is peer:
                    peer.forwarder.pause(True)
                if n:
                    found[name].append(trial)
    if not all(f["received"] for f in found["testpmd"]):
        bench.missing.append(("DPDK testpmd over AF_XDP", "it forwards nothing here"))
        return
    rates = {name: [f["received"] / max(f["seconds"], 1e-9) for f in trials] for name, trials in found.items()}
    bench.tables["testpmd"] = {
        "scenario": "testpmd",
        "csit": "ethip4-l2xcbase-testpmd",
        "about": "AF_XDP in copy mode, one flow, one core of its own beside the source's; at most 1,024 frames under way. "
        "testpmd (net_af_xdp) changes addresses of Ethernet and knows no route, session or rule; sag-vcpe routes and keeps sessions, its fast path turned off.",
        "base": None,
        "rows": {
            name: {"rate_pps": stats.summary(rates[name]), "sent": sum(f["sent"] for f in trials), "lost": sum(f["lost"] for f in trials), "slow_path": None}
            for name, trials in found.items()
        },
        "broken": [],
    }
    ours, theirs = (rates[name] for name in ("sag-vcpe, fast_path = false", "testpmd"))
    target(bench, "workers over AF_XDP: 1.1 × testpmd", stats.ratios(ours, theirs), 1.1, source="#21")


def librte_acl(bench: Bench) -> None:
    """The comparison of classifiers, on the same rules and the same trace."""
    if not shutil.which("dpdk-test-acl"):
        bench.missing.append(("librte_acl", "dpdk-test-acl is not installed (apt-get install dpdk-dev)"))
        return
    bench.step("librte_acl: classification alone")
    cases = [] if bench.full else ["acl", "1000"]
    text = example(bench, "rte_acl_compare", *cases, "--json", "--rounds", bench.rounds(2, 9), timeout=3600)
    if text is None:
        return
    bench.notes["librte_acl: classification alone"] = "\n".join(line for line in text.splitlines() if not line.startswith("{"))
    for row in lines_of_json(text):
        what = f"classifier, {row['case']}: × librte_acl's best method"
        target(bench, what, stats.summary(row["ratios"]) if row["ratios"] else None, 1.0, source="#2")


# Peers that users name and this benchmark does not run, and why.
ABSENT = {
    "xdp-forward (xdp-tools)": "not in Debian 12 (Debian 13 has it); routes alone, no state",
    "einat-ebpf": "not packaged by Debian; NAT alone",
    "VPP": "not packaged by Debian; its drivers for NICs have no counterpart on veth but AF_XDP in copy mode",
    "Linux, nft flowtable": "the kernel needs nf_flow_table, which kernels of virtual machines often lack; would spare Linux the rules of established flows",
}


def absent(bench: Bench) -> None:
    """Names the peers that are missing, so that nobody takes the table for all there is."""
    bench.missing += ABSENT.items()


def openvswitch(bench: Bench) -> None:
    if not shutil.which("ovs-vsctl"):
        bench.missing.append(("Open vSwitch", "not installed (apt-get install openvswitch-switch); then: docs/benchmarks.md"))
    else:
        bench.missing.append(("Open vSwitch", "installed, and measured by hand: docs/benchmarks.md"))


__all__ = ["Generator", "XskForwarder", "absent", "in_ns", "librte_acl", "openvswitch", "testpmd"]
