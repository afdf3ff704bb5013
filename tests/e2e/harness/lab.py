"""The lab and the gateway in it, driven by scripts/lab.sh."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .config import LAB_TOML, ROOT
from .net import CommandError, Namespace, run
from .waiting import TIMEOUT

LAB_SH = ROOT / "scripts" / "lab.sh"

# For hosts that listen only: they answer neighbour discovery, and nothing else.
MUTE = """
table inet mute
delete table inet mute
table inet mute {
    chain in {
        type filter hook prerouting priority raw; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""

# What the lab looks like: device of the gateway by port name, and the far end of each wire.
PORT_DEVICES = {"0": "lan-a", "1": "wan", "2": "express", "3": "lan-b"}


class Addresses:
    """Addresses of the lab by family (4 or 6), as lab.sh gives them."""

    LAN1 = {4: "192.0.2.10", 6: "2001:db8:1::10"}
    LAN2 = {4: "192.0.2.74", 6: "2001:db8:2::10"}
    INET = {4: "203.0.113.10", 6: "2001:db8:203::10"}
    NARROW = {4: "203.0.113.74", 6: "2001:db8:204::10"}
    POP = {4: "192.0.2.193", 6: "2001:db8:ee::1"}
    POP_LINK = {4: "192.0.2.130", 6: "2001:db8:e::2"}
    WAN_ROUTER = {4: "198.51.100.1", 6: "2001:db8:100::1"}
    GW_LAN_A = {4: "192.0.2.1", 6: "2001:db8:1::1"}
    GW_LAN_B = {4: "192.0.2.65", 6: "2001:db8:2::1"}
    GW_WAN = {4: "198.51.100.2", 6: "2001:db8:100::2"}
    GW_EXPRESS = {4: "192.0.2.129", 6: "2001:db8:e::1"}


class Lab:
    """Six namespaces under a prefix of their own."""

    NAMES = ("lan1", "lan2", "gw", "wan", "inet", "pop")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.env = {**os.environ, "SAG_LAB_PREFIX": prefix}
        values = dict(
            pair.split("=", 1) for pair in shlex.split(run([LAB_SH, "env"], env=self.env).stdout)
        )
        self.run_dir = Path(values["RUN"])
        self.pins = Path(values["PINS"])
        self.conf = Path(values["CONF"])
        self.socket = values["SOCKET"]
        self.pid_file = Path(values["PIDFILE"])
        self.log = Path(values["LOG"])
        self.vcpe = values["VCPE"]
        self.sagctl = values["SAGCTL"]
        for name in self.NAMES:
            setattr(self, name, Namespace(name, values[f"NS_{name}"]))
        self.hosts = [getattr(self, name) for name in self.NAMES if name != "gw"]

    def sh(self, *args: Any, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        # The daemon that lab.sh starts must not hold our pipes open: it writes to its log.
        return run([LAB_SH, *args], env=self.env, check=check, timeout=timeout)

    def up(self) -> None:
        self.sh("up")

    def down(self) -> None:
        self.sh("down")

    def unmute(self, *names: str) -> None:
        for name in names:
            getattr(self, name).run(["nft", "delete", "table", "inet", "mute"], check=False)

    def mute(self, *names: str) -> None:
        """These hosts drop all they receive; sniffers still see what arrives."""
        for name in names:
            getattr(self, name).run(["nft", "-f", "-"], input=MUTE)

    def flush_neighbours(self, *namespaces: Namespace) -> None:
        for ns in namespaces or [self.gw, *self.hosts]:
            ns.ip("neigh flush all")


class Gateway:
    """The forwarder under test: `sag` (the product) or `kernel` (the baseline)."""

    def __init__(self, lab: Lab, forwarder: str | None) -> None:
        self.lab = lab
        self.forwarder = forwarder
        self.running = None  # text of the configuration that it runs with

    @property
    def is_sag(self) -> bool:
        return self.forwarder == "sag"

    def ensure(self, config: str | None = None) -> None:
        """Runs with this configuration; restarts only if it runs with another."""
        config = config if config is not None else LAB_TOML.read_text()
        if self.running != config:
            self.stop()
            self.start(config)

    def start(self, config: str | None = None, check: bool = True) -> Any:
        config = config if config is not None else LAB_TOML.read_text()
        source = self.lab.run_dir / "requested.toml"
        source.write_text(config)
        done = self.lab.sh("gw-start", "--forwarder", self.forwarder, "--config", str(source), check=check)
        if done.returncode == 0:
            self.running = config
        return done

    def stop(self) -> None:
        self.running = None
        self.lab.sh("gw-stop")

    def pid(self) -> int:
        return int(self.lab.pid_file.read_text())

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Ends the daemon by a signal, and waits for the end. What it pinned stays."""
        pid = self.pid()
        os.kill(pid, how)
        self.running = None
        end = time.monotonic() + TIMEOUT
        while os.path.exists(f"/proc/{pid}/fd") and os.listdir(f"/proc/{pid}/fd"):
            if time.monotonic() > end:
                raise CommandError(f"process {pid} survives {how.name}")
            time.sleep(0.01)

    def write_config(self, config: str | None) -> None:
        self.lab.conf.write_text(config.replace("sag-lab", self.lab.run_dir.name))

    def reload(self, config: str | None, timeout: float = TIMEOUT) -> None:
        """New configuration by SIGHUP; returns when it is in force."""
        before = self.status()["config_epoch"]
        self.write_config(config)
        os.kill(self.pid(), signal.SIGHUP)
        end = time.monotonic() + timeout
        while self.status()["config_epoch"] == before:
            if time.monotonic() > end:
                raise CommandError(f"no new config_epoch {timeout} s after SIGHUP\n{self.tail()}")
            time.sleep(0.01)
        self.running = config

    def ctl(self, *args: Any) -> Any:
        return json.loads(run([self.lab.sagctl, "--socket", self.lab.socket, "--json", *args]).stdout)

    def status(self) -> dict[str, Any]:
        return self.ctl("status")

    def ports(self) -> dict[Any, Any]:
        return {p["name"]: p for p in self.ctl("ports")["ports"]}

    def drops(self) -> dict[tuple[Any, Any], Any]:
        """{(port, reason): packets}."""
        return {(d["port"], d["reason"]): d["packets"] for d in self.ctl("drops")["drops"]}

    def rules(self) -> dict[Any, Any]:
        """{rule id: rule} over all ACLs."""
        return {r["id"]: r for acl in self.ctl("acl")["acls"] for r in acl["rules"]}

    def tail(self, lines: str = 20) -> str:
        try:
            return "\n".join(self.lab.log.read_text().splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def foreground(self, *args: Any, timeout: float = 20) -> tuple[Any, Any]:
        """Runs the daemon's binary in the gateway namespace to its end: (exit code, output)."""
        done = subprocess.run(
            self.lab.gw.argv([self.lab.vcpe, *args]), capture_output=True, text=True, timeout=timeout
        )
        return done.returncode, done.stdout + done.stderr
