"""Two branches and a point of presence on one router, which is also the Internet and the cloud's host.

    host-a ── gw-a ──┐
                     ├── router (cloud)
    host-b ── gw-b ──┤
              gw-p ──┘
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from .lab import Lab
from .net import CommandError, Namespace, run, wire

DOCUMENT = """
[dataplane]
workers = 1
flows = 4096
state_dir = "{run}/state"
pin_dir = "{pins}"
control = "{run}/vcpe.sock"
metrics = ""

[[port]]
name = "0"
device = "wan"
role = "wan"
"""
LAN = '[[port]]\nname = "1"\ndevice = "lan"\nrole = "lan"\n'


class Site:
    """A gateway, with a host behind it unless it is the point of presence."""

    def __init__(self, sites: Sites, name: str, number: int) -> None:
        self.name, self.number, self.sites = name, number, sites
        self.net = f"10.{number}.0.0/24"
        self.host_address = f"10.{number}.0.10"
        self.wan = f"198.51.{100 + number}.2"
        self.run_dir = Path(f"/run/{sites.prefix}{name}")
        self.pins = Path(f"/sys/fs/bpf/{sites.prefix}{name}")
        self.socket = str(self.run_dir / "vcpe.sock")
        self.sagctl, self.vcpe = sites.sagctl, sites.vcpe
        self.gw = sites.namespace(f"gw-{name}", 0)
        self.host = sites.namespace(f"host-{name}", 0) if name != "p" else None
        sites.wire(sites.router, f"to-{name}", f"198.51.{100 + number}.1/24", self.gw, "wan", f"{self.wan}/24")
        self.gw.ip(f"route add default via 198.51.{100 + number}.1")
        if self.host:
            sites.wire(self.gw, "lan", f"10.{number}.0.1/24", self.host, "eth0", f"{self.host_address}/24")
            self.host.ip(f"route add default via 10.{number}.0.1")
        self.process = None

    def second_line(self) -> None:
        """Another line to the router, which the kernel likes less; `to-X2` is its end there."""
        net = f"198.51.{110 + self.number}"
        self.sites.wire(self.sites.router, f"to-{self.name}2", f"{net}.1/24", self.gw, "wan2", f"{net}.2/24")
        self.gw.ip(f"route add default via {net}.1 metric 100")

    def start(self) -> None:
        (self.run_dir / "state").mkdir(parents=True, exist_ok=True)
        conf = self.run_dir / "vcpe.toml"
        conf.write_text(DOCUMENT.format(run=self.run_dir, pins=self.pins) + (LAN if self.host else ""))
        self.log = open(self.run_dir / "vcpe.log", "ab")
        self.process = self.gw.popen([self.vcpe, "run", "--config", conf], stdout=self.log, stderr=self.log)
        end = time.monotonic() + 15
        while "ok" not in (output := self.control("status")):
            if time.monotonic() > end or self.process.poll() is not None:
                raise CommandError(f"{output}\n{(self.run_dir / 'vcpe.log').read_text()}")
            time.sleep(0.05)

    def control(self, op: str, **arguments: Any) -> Any:
        """One request on the control socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            try:
                s.connect(self.socket)
            except OSError as e:
                return {"away": str(e)}
            s.sendall(json.dumps({"v": 1, "id": 1, "op": op, **arguments}).encode() + b"\n")
            return json.loads(s.makefile().readline())

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.log.close()
        run([self.vcpe, "unload", "--config", self.run_dir / "vcpe.toml"], check=False)
        shutil.rmtree(self.pins, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)


class Sites:
    def __init__(self) -> None:
        self.prefix = f"t{os.getpid()}-s-"
        known = Lab(self.prefix)
        self.vcpe, self.sagctl = known.vcpe, known.sagctl
        self.made, self.all = [], []
        try:
            self.router = self.namespace("router", 1)
            self.inet = self.router
            for number, name in enumerate("abp", 1):
                self.all.append(Site(self, name, number))
        except BaseException:
            self.down()
            raise

    def namespace(self, name: str, forwarding: int) -> Namespace:
        full = self.prefix + name
        run(["ip", "netns", "add", full])
        self.made.append(full)
        ns = Namespace(name, f"/run/netns/{full}")
        ns.ip("link set lo up")
        ns.run(["sysctl", "-q", "-w", f"net.ipv4.ip_forward={forwarding}", "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1"])
        return ns

    def wire(self, one: Namespace, dev1: str, address1: str, other: Namespace, dev2: str, address2: str) -> None:
        wire(one, dev1, other, dev2)
        one.ip(f"addr add {address1} dev {dev1}")
        other.ip(f"addr add {address2} dev {dev2}")

    def down(self) -> None:
        for site in self.all:
            site.stop()
        for name in self.made:
            run(["ip", "netns", "delete", name], check=False)
