"""Peers from outside that not every machine has: DPDK's testpmd over AF_XDP, librte_acl, Open vSwitch."""

import shutil
import subprocess
import time

from . import stats
from .alone import example, lines_of_json
from .generator import Generator
from .lab import in_ns, mac_of
from .scenarios import target
from .system import Failed, run


class Testpmd:
    """DPDK's forwarder over AF_XDP in copy mode, on a core of its own."""

    sink = "tcx"

    def __init__(self):
        self.process = None

    def start(self, lab):
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

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        if self.process:
            self.process.stdout.close()

    def fast(self):
        return None

    def forget(self):
        pass


def testpmd(bench):
    """What reaches the sink; no policy. Overload: nothing holds the source back."""
    bench.step("testpmd over AF_XDP (forwarding by MAC, no policy)")
    with bench.labs() as make:
        try:
            lab = make("tp", Testpmd())
        except Failed as error:
            bench.missing.append(("DPDK testpmd over AF_XDP", str(error)[-200:]))
            return
        gen = lab.generator()
        found = [gen.trial(seconds=0.5, window=1024) for _ in range(bench.rounds(5, 11) + 1)][1:]
    if not all(f["received"] for f in found):
        bench.missing.append(("DPDK testpmd over AF_XDP", "it forwards nothing here"))
        return
    rates = [f["received"] / max(f["seconds"], 1e-9) for f in found]
    bench.tables["testpmd"] = {
        "scenario": "testpmd",
        "csit": "ethip4-l2xcbase-testpmd",
        "about": "DPDK testpmd, net_af_xdp in copy mode, one core of its own beside the source's; at most 1,024 frames under way. "
        "It has no ACL, NAT or meter: it shows what AF_XDP in copy mode gives.",
        "base": None,
        "rows": {"testpmd over AF_XDP": {"rate_pps": stats.summary(rates), "sent": sum(f["sent"] for f in found), "lost": sum(f["lost"] for f in found), "slow_path": None}},
        "broken": [],
    }


def librte_acl(bench):
    """The comparison of classifiers, on the same rules and the same trace."""
    if not shutil.which("dpdk-test-acl"):
        bench.missing.append(("librte_acl", "dpdk-test-acl is not installed (apt-get install dpdk-dev)"))
        return
    bench.step("librte_acl: classification alone")
    cases = [] if bench.full else ["acl", "fw", "ipc", "1000"]
    text = example(bench, "rte_acl_compare", *cases, "--json", "--rounds", bench.rounds(3, 9), timeout=3600)
    if text is None:
        return
    bench.notes["librte_acl: classification alone"] = "\n".join(line for line in text.splitlines() if not line.startswith("{"))
    for row in lines_of_json(text):
        what = f"classifier, {row['case']}: × librte_acl's best method"
        target(bench, what, stats.summary(row["ratios"]) if row["ratios"] else None, 1.0, source="#2")


def openvswitch(bench):
    if not shutil.which("ovs-vsctl"):
        bench.missing.append(("Open vSwitch", "not installed (apt-get install openvswitch-switch); then: docs/benchmarks.md"))
    else:
        bench.missing.append(("Open vSwitch", "installed, and measured by hand: docs/benchmarks.md"))


__all__ = ["Generator", "in_ns", "librte_acl", "openvswitch", "testpmd"]
