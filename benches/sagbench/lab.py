"""The topology: host, gateway, Internet, in three network namespaces and two veth pairs.

    PREFIX-NAME-lan:eth0 ═ lan [PREFIX-NAME-gw] wan ═ PREFIX-NAME-wan:eth0

Traffic goes from left to right, or in a lab that is `back` from right to left, to one host.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import rules as policy
from .generator import Generator
from .system import Failed, run

if TYPE_CHECKING:
    from .__main__ import Bench

OUTSIDE = "203.0.113.2"
INSIDE = "10.0.2.1"
PARTS = ("lan", "gw", "wan")


def in_ns(namespace: str, *command: Any, **more: Any) -> str:
    # Not `ip netns exec`, which hides the bpffs.
    return run("nsenter", f"--net=/run/netns/{namespace}", *command, **more)


def mac_of(namespace: str, device: str) -> str:
    return json.loads(run("ip", "-n", namespace, "-j", "link", "show", device))[0]["address"]


class Lab:
    """One gateway between two hosts. A forwarder is one of the classes below."""

    def __init__(self, bench: Bench, name: str, queues: int = 1, ip6: bool = False, back: bool = False) -> None:
        self.bench, self.name, self.ip6, self.back = bench, name, ip6, back
        self.lan, self.gw, self.wan = (f"{bench.prefix}-{name}-{part}" for part in PARTS)
        self.generators = {}
        self.forwarder = None
        bench.cleanup.add(self.remove)
        for namespace in (self.lan, self.gw, self.wan):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        for device, peer in (("lan", self.lan), ("wan", self.wan)):
            many = ("numtxqueues", queues, "numrxqueues", queues)
            run("ip", "link", "add", device, "netns", self.gw, *many, "type", "veth", "peer", "name", "eth0", "netns", peer, *many)
        for namespace, device in ((self.gw, "lan"), (self.gw, "wan"), (self.lan, "eth0"), (self.wan, "eth0")):
            in_ns(
                namespace,
                "sysctl",
                "-qw",
                f"net.ipv6.conf.{device}.disable_ipv6={0 if ip6 else 1}",
                f"net.ipv6.conf.{device}.accept_dad=0",
                f"net.ipv6.conf.{device}.router_solicitations=0",
                f"net.ipv4.conf.{device}.rp_filter=0",
            )
            # With GRO a veth device has a NAPI context, which redirected frames need.
            in_ns(namespace, "ethtool", "-K", device, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "on")
            run("ip", "-n", namespace, "link", "set", device, "up")
        remote = mac_of(self.wan, "eth0")
        run("ip", "-n", self.gw, "addr", "add", "10.0.0.1/16", "dev", "lan")
        run("ip", "-n", self.gw, "addr", "add", f"{OUTSIDE}/24", "dev", "wan")
        run("ip", "-n", self.gw, "route", "add", "default", "via", "203.0.113.1")
        run("ip", "-n", self.gw, "neigh", "add", "203.0.113.1", "lladdr", remote, "dev", "wan", "nud", "permanent")
        if back:
            run("ip", "-n", self.gw, "neigh", "add", INSIDE, "lladdr", mac_of(self.lan, "eth0"), "dev", "lan", "nud", "permanent")
        if ip6:
            run("ip", "-n", self.gw, "addr", "add", "2001:db8:1::1/64", "dev", "lan", "nodad")
            run("ip", "-n", self.gw, "addr", "add", "2001:db8:100::2/64", "dev", "wan", "nodad")
            run("ip", "-n", self.gw, "route", "add", "default", "via", "2001:db8:100::1")
            run("ip", "-n", self.gw, "neigh", "add", "2001:db8:100::1", "lladdr", remote, "dev", "wan", "nud", "permanent")

    def remove(self) -> None:
        self.close_generators()
        if self.forwarder:
            self.forwarder.stop()
            self.forwarder = None
        for namespace in (self.lan, self.gw, self.wan):
            run("ip", "netns", "del", namespace, check=False)

    def close_generators(self) -> None:
        while self.generators:
            self.generators.popitem()[1].close()

    def generator(self, flows: int = 10_000, size: str = "64", extra: Sequence[str] = (), sink: str | None = None, core: int = 1, receive: bool = True) -> Generator:
        """One for every kind of traffic; made at the first use."""
        key = (flows, size, tuple(extra), sink, core, receive)
        if key not in self.generators:
            # A device takes one sink at a time.
            self.close_generators() if receive else None
            near, far, to = (self.wan, self.lan, "wan") if self.back else (self.lan, self.wan, "lan")
            options = ["--size", size, "--dst-mac", mac_of(self.gw, to), "--sink", sink or self.forwarder.sink, *extra]
            if self.back:
                options += ["--src", "198.51.100.0", "--dst", INSIDE]
            if self.ip6:
                options += ["--src", "2001:db8:1::100:0", "--dst", "2001:db8:ffff::1"]
            rx = f"{far}:eth0" if receive else None
            self.generators[key] = Generator(self.bench.pktgen, f"{near}:eth0", rx, core, flows, options)
        return self.generators[key]

    def overruns(self) -> int:
        """Frames that found the ring of 256 at the other end of a wire full, before the gateway and behind it."""
        output = in_ns(self.lan, "ethtool", "-S", "eth0") + in_ns(self.gw, "ethtool", "-S", "wan")
        return sum(int(line.split(":")[1]) for line in output.splitlines() if "xdp_xmit_errors" in line)

    def start(self, forwarder: Any) -> Lab:
        if self.forwarder:
            self.forwarder.stop()
        self.forwarder = forwarder
        forwarder.start(self)
        return self


class Bare:
    """An XDP redirect without a lookup: the limit. Or with accesses to so many lines of memory of each flow, one after the
    other: the least that a flow table costs."""

    sink = "xdp"

    def __init__(self, looks: int = 0, flows: int = 10_000) -> None:
        self.looks, self.flows, self.process = looks, flows, None

    def start(self, lab: Lab) -> None:
        ends = ("wan", "lan") if lab.back else ("lan", "wan")
        self.process = subprocess.Popen(
            [
                str(lab.bench.pktgen),
                *("bare", "--from", f"{lab.gw}:{ends[0]}", "--to", f"{lab.gw}:{ends[1]}"),
                *("--looks", str(self.looks), "--flows", str(self.flows)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if "redirecting" not in self.process.stdout.readline():
            raise Failed("the bare redirect did not start")

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def fast(self) -> None:
        return None

    def forget(self) -> None:
        pass

    def renew(self) -> bool:
        return False


class Linux:
    """The kernel's forwarding, with nftables tables if there are some."""

    sink = "tcx"

    def __init__(self, *tables: str) -> None:
        self.tables, self.lab = tables, None

    def start(self, lab: Lab) -> None:
        self.lab = lab
        in_ns(lab.gw, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv6.conf.all.forwarding=1")
        for table in self.tables:
            in_ns(lab.gw, "nft", "-f", "-", stdin=table)

    def stop(self) -> None:
        pass

    def fast(self) -> None:
        return None

    def forget(self) -> None:
        pass

    def renew(self) -> bool:
        return False


class Sag:
    """sag-vcpe with a generated configuration."""

    sink = "xdp"

    def __init__(self, rules: Sequence[dict[str, Any]] = (), snat: bool = False, car: bool = False, flows: int = 65_536, workers: int = 1, extra: str = "", fast_path: bool = True) -> None:
        self.text = {"rules": rules, "snat": snat, "car": car, "flows": flows, "workers": workers, "extra": extra, "fast_path": fast_path}
        if not fast_path:
            # The workers send by the socket.
            self.sink = "tcx"
        self.lab, self.dir, self.process, self.log = None, None, None, None

    def config(self, **other: Any) -> str:
        t = self.text | other
        d = self.dir
        return f"""[dataplane]
workers = {t["workers"]}
fast_path = {"true" if t["fast_path"] else "false"}
flows = {t["flows"]}
state_dir = "{d}/state"
pin_dir = "/sys/fs/bpf/{self.lab.bench.prefix}-{self.lab.name}"
control = "{d}/vcpe.sock"
metrics = ""
new_flow_rate = 0
[timeouts]
udp = 3600
[[port]]
name = "lan"
device = "lan"
role = "lan"
[[port]]
name = "wan"
device = "wan"
role = "wan"
snat = {"true" if t["snat"] else "false"}
{policy.CAR if t["car"] else ""}{t["extra"]}{policy.toml(t["rules"]) if t["rules"] else ""}"""

    def start(self, lab: Lab) -> None:
        self.lab = lab
        self.dir = Path(lab.bench.work) / lab.name
        (self.dir / "state").mkdir(parents=True, exist_ok=True)
        (self.dir / "vcpe.toml").write_text(self.config(), encoding="utf-8")
        self.spawn()

    def spawn(self) -> None:
        self.log = (self.dir / "log").open("ab")
        self.process = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while True:
            try:
                self.ctl("status")
                self.precedence()
                return
            except (Failed, ValueError):
                if self.process.poll() is not None or time.monotonic() > end:
                    tail = (self.dir / "log").read_text(encoding="utf-8")[-800:]
                    raise Failed(f"sag-vcpe did not start: {tail}") from None
                time.sleep(0.02)

    def command(self) -> list[str]:
        lab = self.lab
        command = ["nsenter", f"--net=/run/netns/{lab.gw}", str(lab.bench.vcpe), "run", "--config", str(self.dir / "vcpe.toml")]
        return ["taskset", "-c", str(lab.bench.other_core), *command]

    def precedence(self) -> None:
        """Workers come before all else on their core, as the kernel's share comes on the source's. Before them
        comes the control thread, which sleeps until a worker needs it."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            worker = (task / "comm").read_text(encoding="utf-8").startswith("worker")
            run("chrt", "-f", "-p", 10 if worker else 11, task.name)

    def end(self, signal: str = "terminate") -> None:
        if self.process:
            getattr(self.process, signal)()
            self.process.wait(20)
            self.process = None
            self.log.close()

    def renew(self) -> bool:
        """Other tables, at other places in memory."""
        self.stop()
        self.spawn()
        return True

    def stop(self) -> None:
        self.end()
        in_ns(self.lab.gw, self.lab.bench.vcpe, "unload", "--config", self.dir / "vcpe.toml", check=False)

    def ctl(self, *command: Any, stdin: str | None = None) -> dict[str, Any]:
        text = run(self.lab.bench.sagctl, "--socket", self.dir / "vcpe.sock", "--json", *command, stdin=stdin)
        return json.loads(text) if text.strip() else None

    def apply(self, **other: Any) -> None:
        """Commits the configuration with other rules, or with a CAR or without."""
        file = self.dir / "next.toml"
        file.write_text(self.config(**other), encoding="utf-8")
        self.ctl("config", "apply", file)

    def fast(self) -> int | None:
        """Frames that XDP alone has forwarded."""
        return self.ctl("status")["fastpath_packets"]

    def punts(self) -> dict[Any, Any]:
        """Frames that XDP gave to a worker, by reason."""
        return {p["reason"]: p["packets"] for p in self.ctl("status")["punts"]}

    def forget(self) -> None:
        self.ctl("sessions", "flush", "--all")
