#!/usr/bin/python3
"""How long each kind of change blocks traffic.

In a lab of its own: UDP of eight flows at a steady rate through source NAT and an ACL, and beside it a
new flow every two milliseconds. While both run, one thing changes. Printed, and written to
target/bench/blocked.json: packets of the established flows lost, that divided by the rate ("blocked"),
and the longest time in which no new flow came through, less the time between two of them.

usage: benches/blocked_time.py [--rounds N] [--mbit N] [KIND...]
Needs root and what scripts/setup.sh installs; release binaries, or SAG_VCPE_BIN and SAGCTL_BIN.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

# pylint: disable=wrong-import-position
import contextlib
import itertools

from harness.config import acl_table
from harness.lab import Addresses as A
from harness.lab import Gateway, Lab
from harness.nat import forward, hide_the_inside, nat_config
from harness.traffic import iperf
from harness.wire import IP, UDP, Ether, Raw, Sender, Sniffer, mark_of, marked

SECONDS = 4
CHANGE_AT = 1.5
GAP = 0.002

RULES = [{"id": f"acr-{n}", "dest_cidr": f"10.{n}.0.0/16", "policy": "drop"} for n in range(100)]
WEB = forward("web", "tcp", "8080", (A.LAN1[4], "80"))
CAR = """
[[qos]]
id = "qos-1"
[[qos.car]]
id = "qoscar-1"
priority = 1
limit_type = "Absolute"
min_bandwidth_abs = 0
max_bandwidth_abs = 4000
[[qos.policy]]
id = "qospy-1"
priority = 1
ip_protocol = "all"
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
source_port_range = "-1/-1"
dest_port_range = "-1/-1"
"""


def config(*tables: str, rules: list[dict[str, Any]] = RULES) -> str:
    return nat_config(*tables, text=acl_table("acl-1", rules), new_flow_rate=0)


class NewFlows:
    """A first packet of a new flow every GAP, and when those that came through were sent."""

    def __init__(self, lab: Lab) -> None:
        self.sender, self.sniffer = Sender(lab.lan2, "eth0"), Sniffer(lab.wan, "gw")
        head = Ether(src=lab.lan2.mac("eth0"), dst=lab.gw.mac("lan-b"))
        self.frame = bytearray(bytes(head / IP(src=A.LAN2[4], dst=A.INET[4]) / UDP(sport=1, dport=9) / Raw(marked(0))))
        self.frame[40:42] = b"\0\0"
        self.over, self.sent = threading.Event(), []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.over.is_set():
            n = len(self.sent) + 1
            self.frame[34:36] = (1024 + n).to_bytes(2, "big")
            self.frame[-8:] = n.to_bytes(8, "big")
            self.sent.append(time.monotonic())
            self.sender.send(self.frame)
            time.sleep(GAP)

    def outage(self) -> float:
        """Ends the flows; (longest time without one that came through, in ms, and what is usual)."""
        self.over.set()
        self.thread.join()
        came = sorted({m for f in self.sniffer.drain(quiet=0.3, timeout=20) if (m := mark_of(f)) is not None})
        self.sender.close()
        self.sniffer.close()
        times = [self.sent[n - 1] for n in came if 0 < n <= len(self.sent)]
        gaps = [b - a for a, b in itertools.pairwise(times)] or [SECONDS]
        return max(gaps) * 1000 - statistics.median(gaps) * 1000


def wait_end(pid: int) -> None:
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}/fd") and os.listdir(f"/proc/{pid}/fd"):
        if time.monotonic() > end:
            raise RuntimeError(f"process {pid} does not end")
        time.sleep(0.01)


def restart(gw: Gateway, lab: Lab, how: int) -> None:
    pid = gw.pid()
    os.kill(pid, how)
    with contextlib.suppress(FileNotFoundError):
        wait_end(pid)
    gw.start(config())


def upgrade(gw: Gateway, lab: Lab) -> None:
    """Another file with the same build: what a package of the same layout does."""
    other = lab.run_dir / f"sag-vcpe.{time.monotonic_ns()}"
    shutil.copy2(lab.vcpe, other)
    lab.env["SAG_VCPE_BIN"] = str(other)
    restart(gw, lab, signal.SIGTERM)


KINDS = {
    "nothing": lambda gw, lab: None,
    "ACL rule": lambda gw, lab: gw.reload(config(rules=RULES[:50])),
    "NAT entry": lambda gw, lab: gw.reload(config(WEB)),
    "CAR": lambda gw, lab: gw.reload(config(CAR)),
    "route": lambda gw, lab: lab.gw.ip("route add 10.99.0.0/16 via " + A.WAN_ROUTER[4]),
    "neighbour": lambda gw, lab: lab.gw.ip("neigh flush dev wan"),
    "restart": lambda gw, lab: restart(gw, lab, signal.SIGTERM),
    "kill -9 and start": lambda gw, lab: restart(gw, lab, signal.SIGKILL),
    "upgrade": upgrade,
}


def measure(gw: Gateway, lab: Lab, kind: str, mbit: float) -> dict[str, Any]:
    if gw.running != config():
        gw.reload(config())
    lab.gw.ip("route del 10.99.0.0/16", check=False)
    gw.ctl("sessions", "flush", "--all")
    flows, failed = NewFlows(lab), []

    def change() -> None:
        time.sleep(CHANGE_AT)
        try:
            KINDS[kind](gw, lab)
        except Exception as error:  # pylint: disable=broad-except
            failed.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    report = iperf(
        lab.lan1, lab.inet, A.INET[4], seconds=SECONDS, udp_mbit=mbit / 8, streams=8, options=("-l", "200", "-w", "4M")
    )
    thread.join()
    outage = flows.outage()
    if failed:
        raise failed[0]
    return {"packets": report["packets"], "lost": report["lost"], "new_flow_outage_ms": outage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbit", type=float, default=80, help="of the established flows together")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    args = parser.parse_args()
    for kind in args.kinds:
        if kind not in KINDS:
            parser.error(f"no kind {kind!r}; there are: {', '.join(KINDS)}")
    if os.geteuid() != 0:
        parser.error("run it as root: it makes network namespaces")
    lab = Lab(f"sagblk{os.getpid() % 10000}-")
    gw = Gateway(lab, "sag")
    rows = {}
    lab.up()
    try:
        hide_the_inside(lab)
        gw.start(config())
        for round_ in range(args.rounds):
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr, flush=True)
            for kind in args.kinds or KINDS:
                rows.setdefault(kind, []).append(measure(gw, lab, kind, args.mbit))
    finally:
        gw.stop()
        lab.down()

    print(f"{'change':<20}{'packets':>10}{'lost':>7}{'blocked, ms':>14}{'no new flow, ms (median, most)':>34}")
    result = {}
    for kind, runs in rows.items():
        packets, lost = sum(r["packets"] for r in runs), sum(r["lost"] for r in runs)
        blocked = lost / packets * SECONDS * 1000
        outages = [r["new_flow_outage_ms"] for r in runs]
        median, most = statistics.median(outages), max(outages)
        print(f"{kind:<20}{packets:>10}{lost:>7}{blocked:>14.2f}{median:>24.0f}{most:>10.0f}")
        result[kind] = {
            "packets": packets,
            "lost": lost,
            "blocked_ms": blocked,
            "new_flow_outage_ms": {"median": median, "most": most},
        }
    out = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench" / "blocked.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"mbit": args.mbit, "rounds": args.rounds, "changes": result}, indent=2) + "\n")
    print(f"report: {out}")


if __name__ == "__main__":
    main()
