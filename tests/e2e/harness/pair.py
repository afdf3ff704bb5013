"""Two gateways beside each other, with the same addresses at one of them:

    client (bridge) ──┬── gw-a ──┬── (bridge) server
                      └── gw-b ──┘
                   gw-a ── ha ── gw-b
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .lab import Lab
from .net import CommandError, Namespace, run, wire
from .waiting import TIMEOUT

KEY = "5a" * 32
CLIENT, SERVER = {4: "10.1.0.10", 6: "fd01::10"}, {4: "198.51.100.10", 6: "fd02::10"}
# The addresses that one of the gateways has.
SHARED = {"lan": ["10.1.0.1/24", "fd01::1/64"], "wan": ["198.51.100.1/24", "fd02::1/64"]}

DOCUMENT = """
[dataplane]
workers = 1
flows = 4096
state_dir = "{run}/state"
pin_dir = "{pins}"
control = "{run}/vcpe.sock"
metrics = ""

[[port]]
name = "{first}"
device = "{first}"
role = "{first}"
{snat_first}
[[port]]
name = "{second}"
device = "{second}"
role = "{second}"
{snat_second}
[ha]
listen = "10.255.0.{own}:7788"
peer = "10.255.0.{other}:7788"
key_file = "{run}/ha.key"
"""


class Member:
    """One of the two gateways."""

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair, self.name = pair, name
        self.run_dir = Path(f"/run/{pair.prefix}{name}")
        self.pins = Path(f"/sys/fs/bpf/{pair.prefix}{name}")
        self.conf = self.run_dir / "vcpe.toml"
        self.ns = pair.namespace(f"gw-{name}")
        self.process: subprocess.Popen[str] | None = None

    def document(self) -> str:
        own, other = (1, 2) if self.name == "a" else (2, 1)
        # Numbers of ports are each gateway's own.
        first, second = ("lan", "wan") if self.name == "a" else ("wan", "lan")
        snat = {"wan": "snat = true\n", "lan": ""}
        return DOCUMENT.format(
            run=self.run_dir, pins=self.pins, own=own, other=other, first=first, second=second,
            snat_first=snat[first], snat_second=snat[second],
        )  # fmt: skip

    def start(self, key: str = KEY) -> None:
        (self.run_dir / "state").mkdir(parents=True, exist_ok=True)
        (self.run_dir / "ha.key").write_text(key + "\n")
        self.conf.write_text(self.document())
        self.log = open(self.run_dir / "vcpe.log", "ab")
        self.process = self.ns.popen(
            [self.pair.vcpe, "run", "--config", self.conf], stdout=self.log, stderr=self.log
        )
        end = time.monotonic() + TIMEOUT
        while self.ctl("status", check=False) is None:
            if time.monotonic() > end or self.process.poll() is not None:
                raise CommandError((self.run_dir / "vcpe.log").read_text())
            time.sleep(0.05)

    def sagctl(self, *args: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run([self.pair.sagctl, "--socket", self.run_dir / "vcpe.sock", *args], check=check)

    def ctl(self, *args: Any, check: bool = True) -> Any:
        done = self.sagctl("--json", *args, check=check)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def ha(self) -> Any:
        return self.ctl("ha")

    def wipe(self) -> None:
        """What a machine that starts has of sessions: nothing."""
        run([self.pair.vcpe, "unload", "--config", self.conf], check=False)

    def kill(self) -> None:
        """As if the machine had lost its power: the daemon ends, and XDP forwards nothing any more."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(TIMEOUT)
        self.process = None
        self.log.close()
        for device in SHARED:
            self.ns.ip(f"link set {device} down")
            self.ns.ip(f"addr flush dev {device}")

    def plug(self) -> None:
        for device in SHARED:
            self.ns.ip(f"link set {device} up")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(TIMEOUT)
            self.process = None
            self.log.close()

    def remove(self) -> None:
        self.stop()
        if self.conf.exists():
            self.wipe()
        shutil.rmtree(self.pins, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)


class Pair:
    def __init__(self, kind: type[Member] = Member) -> None:
        self.prefix = f"t{os.getpid()}-h-"
        known = Lab(self.prefix)
        self.vcpe, self.sagctl = known.vcpe, known.sagctl
        self.kind = kind
        self.made: list[str] = []
        self.members: list[Member] = []
        try:
            self.client, self.server = self.namespace("client"), self.namespace("server")
            self.a, self.b = (self._member(name) for name in "ab")
            wire(self.a.ns, "ha", self.b.ns, "ha")
            for member, own in ((self.a, 1), (self.b, 2)):
                member.ns.ip(f"addr add 10.255.0.{own}/24 dev ha")
            for host, addresses, gateway, to in (
                (self.client, CLIENT, SHARED["lan"], SERVER),
                (self.server, SERVER, SHARED["wan"], CLIENT),
            ):
                for family, address in addresses.items():
                    via = gateway[0 if family == 4 else 1].split("/")[0]
                    host.ip(f"addr add {address}/{24 if family == 4 else 64} dev br0 {'nodad' if family == 6 else ''}")
                    if family == 6 or host is self.client:
                        host.ip(f"-{family} route add {to[family]} via {via}")
        except BaseException:
            self.down()
            raise

    def _member(self, name: str) -> Member:
        member = self.kind(self, name)
        self.members.append(member)
        for host, device in ((self.client, "lan"), (self.server, "wan")):
            wire(member.ns, device, host, f"to-{name}")
            host.ip(f"link set to-{name} master br0")
        return member

    def namespace(self, name: str) -> Namespace:
        full = self.prefix + name
        run(["ip", "netns", "add", full])
        self.made.append(full)
        ns = Namespace(name, f"/run/netns/{full}")
        ns.ip("link set lo up")
        ns.run(["sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
                "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"])
        if not name.startswith("gw"):
            ns.ip("link add br0 type bridge")
            ns.ip("link set br0 up")
        return ns

    def move_to(self, member: Member) -> None:
        """The shared addresses come to this gateway, and hosts hear of it, as by gratuitous ARP."""
        for other in self.members:
            for device, addresses in SHARED.items():
                for address in addresses:
                    if other is member:
                        nodad = "nodad" if ":" in address else ""
                        other.ns.ip(f"addr add {address} dev {device} {nodad}", check=False)
                    else:
                        other.ns.ip(f"addr del {address} dev {device}", check=False)
        for host, device in ((self.client, "lan"), (self.server, "wan")):
            for address in SHARED[device]:
                mac = member.ns.mac(device)
                host.ip(f"neigh replace {address.split('/')[0]} lladdr {mac} dev br0 nud reachable")

    def down(self) -> None:
        for member in self.members:
            member.remove()
        for name in self.made:
            run(["ip", "netns", "delete", name], check=False)
