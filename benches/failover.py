#!/usr/bin/python3
"""What a failover costs the traffic: two gateways with keepalived, 1,000 TCP connections through source NAT, and a flow of
500 datagrams a second that are answered. Beside it Linux with nftables and conntrackd, in the same bed and in turns.

  died      the master loses its power: its links are down and its processes killed (-9)
  back      it starts, has lost everything, and takes the addresses back
  planned   keepalived of the master is ended in good order
  again     and started again
  daemon    kill -9 of the gateway's daemon alone, which is started again after a second (sag-vcpe only)

For each: the longest time without an answer, connections that were reset, and whether the server sees another endpoint.
Printed, and written to target/bench/failover.json.

usage: benches/failover.py [--connections N] [--turns N] [--interval SECONDS]... [--only sag|conntrackd]
As root; keepalived, conntrackd, conntrack and nftables (apt-get install); the release build, or SAG_VCPE_BIN and SAGCTL_BIN.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.failover import Connections, Keepalived, Probe, power_off, power_on
from harness.pair import SHARED, Member, Pair
from harness.waiting import within

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

CONNTRACKD = """
Sync {{
    Mode FTFW {{ }}
    UDP {{
        IPv4_address 10.255.0.{own}
        IPv4_Destination_Address 10.255.0.{other}
        Port 3780
        Interface ha
        SndSocketBuffer 4194304
        RcvSocketBuffer 4194304
        Checksum on
    }}
}}
General {{
    HashSize 32768
    HashLimit 131072
    LogFile {run}/conntrackd.log
    LockFile {run}/conntrackd.lock
    UNIX {{
        Path {run}/conntrackd.ctl
    }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    Filter From Userspace {{
        Protocol Accept {{
            TCP
            UDP
        }}
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv4_address 10.255.0.1
            IPv4_address 10.255.0.2
        }}
    }}
}}
"""
# As primary-backup.sh of the conntrackd package does it.
NOTIFY = """#!/bin/sh
daemon="/usr/sbin/conntrackd -C {run}/conntrackd.conf"
case $1 in
primary) $daemon -c; $daemon -f; $daemon -R; $daemon -B ;;
backup) $daemon -t; $daemon -n ;;
fault) $daemon -t ;;
esac
"""
RULES = """
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr 10.1.0.0/24 oifname "wan" snat to {wan}
    }}
}}
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" ct state new accept
    }}
}}
"""


class Kernel(Member):
    """Linux with nftables and conntrackd."""

    def start(self, key: str = "") -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        own, other = (1, 2) if self.name == "a" else (2, 1)
        conf, notify = self.run_dir / "conntrackd.conf", self.run_dir / "notify.sh"
        conf.write_text(CONNTRACKD.format(run=self.run_dir, own=own, other=other))
        notify.write_text(NOTIFY.format(run=self.run_dir))
        notify.chmod(0o755)
        self.ns.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
        rules = RULES.format(wan=SHARED["wan"][0].split("/")[0])
        self.ns.run(["nft", "-f", "-"], input=f"flush ruleset\n{rules}")
        self.log = open(self.run_dir / "vcpe.log", "ab")
        self.process = self.ns.popen(["/usr/sbin/conntrackd", "-C", conf], stdout=self.log, stderr=self.log)
        within(5, "conntrackd runs", lambda: self.conntrackd("-s").returncode == 0, (self.run_dir / "conntrackd.log").read_text)

    def conntrackd(self, *args: str) -> Any:
        return self.ns.run(["/usr/sbin/conntrackd", "-C", self.run_dir / "conntrackd.conf", *args], check=False)

    def notify(self) -> str:
        states = {"master": "primary", "backup": "backup", "fault": "fault"}
        return "\n".join(f'    notify_{state} "{self.run_dir}/notify.sh {word}"' for state, word in states.items())

    def wipe(self) -> None:
        self.ns.run(["conntrack", "-F"], check=False)
        for name in ("conntrackd.lock", "conntrackd.ctl"):
            (self.run_dir / name).unlink(missing_ok=True)


def has_all(member: Member, count: int) -> bool:
    """Whether the member that waits has every connection."""
    if isinstance(member, Kernel):
        text = member.conntrackd("-e").stdout
        return text.count("ESTABLISHED") >= count
    return member.ha()["replicas"] >= count


class Turn:
    """One pair, with connections."""

    def __init__(self, kind: type[Member], interval: float, count: int, stack: contextlib.ExitStack) -> None:
        self.pair = pair = Pair(kind)
        stack.callback(pair.down)
        self.keepalived = {}
        for member in pair.members:
            member.start()
            check = notify = ""
            if isinstance(member, Kernel):
                notify = member.notify()
            else:
                check = f"{pair.sagctl} --socket {member.run_dir}/vcpe.sock ha --check"
            self.keepalived[member.name] = k = Keepalived(member, interval, check, notify)
            stack.callback(k.end)
        for k in self.keepalived.values():
            k.start()
        within(15, "a master", self.keepalived["a"].is_master, self.keepalived["a"].said)
        self.probe = Probe(pair)
        stack.callback(self.probe.close)
        within(10, "the flow is answered", lambda: self.probe.take()[1])
        self.flows = Connections(pair, count)
        stack.callback(self.flows.close)
        within(20, "the other one has every connection", lambda: has_all(pair.b, count))
        self.endpoints = len(self.probe.take()[1])
        self.result: dict[str, Any] = {}

    def measure(self, name: str, action: Callable[[], None]) -> None:
        self.flows.answer_again(30)
        lost = len(self.flows.lost)
        self.probe.take()
        action()
        self.flows.answer_again(20)
        gap, seen = self.probe.take()
        self.result[name] = {
            "ms": round(gap * 1000), "reset": len(self.flows.lost) - lost, "renumbered": len(seen) > self.endpoints,
        }  # fmt: skip
        self.endpoints = len(seen)

    def run(self) -> dict[str, Any]:
        a, b = self.pair.members
        ka, kb = self.keepalived["a"], self.keepalived["b"]

        def died() -> None:
            power_off(a, ka)
            within(10, "the other one is the master", kb.is_master, kb.said)

        def back() -> None:
            a.wipe()
            power_on(a)
            a.start()
            ka.start()
            within(30, "it is the master again", ka.is_master, ka.said)

        def planned() -> None:
            ka.end()
            within(10, "the other one is the master", kb.is_master, kb.said)

        def again() -> None:
            ka.start()
            within(30, "it is the master again", ka.is_master, ka.said)

        def daemon() -> None:
            assert a.process
            a.process.kill()
            a.process.wait()
            time.sleep(1)
            a.start()

        self.measure("died", died)
        self.measure("back", back)
        self.measure("planned", planned)
        self.measure("again", again)
        if not isinstance(a, Kernel):
            self.measure("daemon", daemon)
        return self.result


def main() -> None:
    parser = argparse.ArgumentParser(description="What a failover costs the traffic.")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--interval", type=float, action="append", help="between advertisements (1 s, and 0.1 s)")
    parser.add_argument("--only", choices=("sag", "conntrackd"))
    args = parser.parse_args()
    os.environ.setdefault("SAG_VCPE_BIN", str(TARGET / "release" / "sag-vcpe"))
    os.environ.setdefault("SAGCTL_BIN", str(TARGET / "release" / "sagctl"))
    kinds = {"sag": Member, "conntrackd": Kernel}
    chosen = {name: kind for name, kind in kinds.items() if args.only in (None, name)}
    rows = []
    for interval in args.interval or [1.0, 0.1]:
        for turn in range(args.turns):
            for name, kind in chosen.items():
                with contextlib.ExitStack() as stack:
                    found = Turn(kind, interval, args.connections, stack).run()
                rows.append({"gateway": name, "interval": interval, "turn": turn, **found})
                print(json.dumps(rows[-1]), flush=True)
    for interval in args.interval or [1.0, 0.1]:
        for name in chosen:
            mine = [r for r in rows if (r["gateway"], r["interval"]) == (name, interval)]
            for what in [k for k in mine[0] if isinstance(mine[0][k], dict)]:
                ms = [r[what]["ms"] for r in mine]
                reset, renumbered = sum(r[what]["reset"] for r in mine), sum(r[what]["renumbered"] for r in mine)
                print(
                    f"{name:10} {interval:4} s {what:8} {min(ms):6} {statistics.median(ms):8.0f} {max(ms):6} ms"
                    f"   reset {reset}   renumbered {renumbered}"
                )
    out = TARGET / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "failover.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
