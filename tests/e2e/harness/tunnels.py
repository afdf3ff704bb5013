"""The far end of a tunnel, in the lab's `inet`: a kernel device, a second gateway with a branch behind
it, or the test itself."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import lab_config
from .lab import Addresses as A
from .net import CommandError, Namespace, run
from .waiting import within

if TYPE_CHECKING:
    from .lab import Gateway, Lab

LOCAL = {4: A.GW_WAN[4], 6: A.GW_WAN[6]}
REMOTE = {4: A.INET[4], 6: A.INET[6]}
# A host behind the far end, and the far branch's network.
FAR = {4: "10.77.0.10", 6: "fd77::10"}
FAR_NET = {4: "10.77.0.0/24", 6: "fd77::/64"}
BRANCH_NET = {4: "192.0.2.0/26", 6: "2001:db8:1::/64"}

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 23, 0, 2


# The gateway's associations, unless a test says otherwise.
SPI_IN, SPI_OUT = 0x1001, 0x1002


def esp_keys(length: int = 20, spi: int = 0) -> dict[str, Any]:
    return {
        "spi_in": SPI_IN + spi,
        "spi_out": SPI_OUT + spi,
        "key_in": os.urandom(length).hex(),
        "key_out": os.urandom(length).hex(),
    }


def turned(keys: dict[str, Any]) -> dict[str, Any]:
    """The same pair as the other end has it."""
    pairs = (("spi_in", "spi_out"), ("spi_out", "spi_in"), ("key_in", "key_out"), ("key_out", "key_in"))
    return {**keys, **{mine: keys[theirs] for mine, theirs in pairs}}


def tunnel(name: str, kind: str, outer: int, local: str | None = None, remote: str | None = None, **keys: Any) -> str:
    """A [[tunnel]] from the gateway to `inet`, or the other way with ends given. Plain ones send no probes
    unless configured, so that they count packets of the test only."""
    if kind != "esp":
        keys.setdefault("probe_interval", 0)
    full = {"name": name, "kind": kind, "local": local or LOCAL[outer], "remote": remote or REMOTE[outer], **keys}
    return "\n[[tunnel]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in full.items())


def route(destination: str, name: str) -> str:
    return f'\n[[route]]\ndestination = "{destination}"\ntunnel = "{name}"\n'


def to_far(name: str) -> str:
    return "".join(route(FAR_NET[f], name) for f in (4, 6))


def gateway_config(kind: str, outer: int, extra: Sequence[str] = "", **keys: Any) -> str:
    """The lab's gateway with one tunnel, and the far branch behind it."""
    return lab_config(tunnel("pop1", kind, outer, **keys) + to_far("pop1") + extra)


def has_kernel(ns: Namespace, kind: str) -> str | None:
    """Why the kernel has no such device; None: it has."""
    done = ns.run(["ip", "link", "add", "probe", "type", *kind.split()], check=False)
    if done.returncode == 0:
        ns.ip("link del probe")
        return None
    return done.stderr.strip() or "no such device type"


class Far:
    """A branch behind `inet`, which is its gateway: another sag-vcpe."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        name = f"{lab.prefix}site"
        self.name = name
        run(["ip", "netns", "add", name])
        self.site = Namespace("site", f"/run/netns/{name}")
        self.dir = lab.run_dir / "far"
        self.dir.mkdir(exist_ok=True)
        self.socket = str(self.dir / "vcpe.sock")
        self.pins = Path(f"/sys/fs/bpf/{lab.run_dir.name}-far")
        self.process = None
        far = lab.inet
        run(
            ["ip", "link", "add", "site", "netns", f"{lab.prefix}inet", "address", "02:00:00:00:07:01",
             "numtxqueues", "2", "numrxqueues", "2", "type", "veth",
             "peer", "name", "eth0", "netns", name, "address", "02:00:00:00:07:02",
             "numtxqueues", "2", "numrxqueues", "2"]
        )
        for ns, dev in ((far, "site"), (self.site, "eth0")):
            ns.run(["sysctl", "-q", "-w", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"])
            ns.run(["ethtool", "-K", dev, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "on"])
        far.batch("addr add 10.77.0.1/24 dev site\naddr add fd77::1/64 dev site nodad\nlink set site up\n")
        self.site.batch(
            "link set lo up\naddr add 10.77.0.10/24 dev eth0\naddr add fd77::10/64 dev eth0 nodad\n"
            "link set eth0 up\nroute add default via 10.77.0.1\nroute add default via fd77::1\n"
        )

    def config(self, kind: str, outer: int, **keys: Any) -> str:
        own = tunnel("branch", kind, outer, local=REMOTE[outer], remote=LOCAL[outer], **keys)
        return f"""
[dataplane]
workers = 2
flows = 65536
state_dir = "{self.dir}/state"
pin_dir = "{self.pins}"
control = "{self.socket}"
metrics = "127.0.0.1:9478"

[[port]]
name = "wan"
device = "eth0"
role = "wan"

[[port]]
name = "site"
device = "site"
role = "lan"
{own}{route(BRANCH_NET[4], "branch")}{route(BRANCH_NET[6], "branch")}"""

    def use(self, text: str) -> None:
        path = self.dir / "vcpe.toml"
        path.write_text(text)
        if self.process is None:
            log = open(self.dir / "log", "w", encoding="utf-8")
            self.process = self.lab.inet.popen([self.lab.vcpe, "run", "--config", path], stdout=log)
            self.wait(lambda: self.ctl("status"))
        else:
            before = self.ctl("status")["config_epoch"]
            os.kill(self.process.pid, signal.SIGHUP)
            self.wait(lambda: self.ctl("status")["config_epoch"] != before)

    def wait(self, ready: Callable[[], Any], timeout: float = 15) -> None:
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(CommandError):
                if ready():
                    return
            if time.monotonic() > end or self.process.poll() is not None:
                raise CommandError(f"the far gateway does not answer:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """The end of its log, and what it has dropped."""
        log = self.dir / "log"
        output = log.read_text()[-2000:] if log.exists() else ""
        with contextlib.suppress(CommandError):
            output += "".join(f"\ndrops {d['port']}/{d['reason']}: {d['packets']}" for d in self.ctl("drops")["drops"] if d["packets"])
        return output

    def ctl(self, *args: Any) -> Any:
        return json.loads(run([self.lab.sagctl, "--socket", self.socket, "--json", *args]).stdout)

    def stop(self) -> None:
        """Ends the gateway; its programs and maps are gone."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
            path = self.dir / "vcpe.toml"
            self.lab.inet.run([self.lab.vcpe, "unload", "--config", path], check=False)

    def close(self) -> None:
        self.stop()
        # The numbers that it has received stay until the machine restarts.
        Path("/run/sag", str(self.pins).strip("/").replace("/", "-") + ".esp").unlink(missing_ok=True)
        self.lab.inet.run(["ip", "link", "del", "site"], check=False)
        run(["ip", "netns", "del", self.name], check=False)


def tunnels(gateway: Gateway) -> dict[Any, Any]:
    return {t["name"]: t for t in gateway.ctl("tunnels")["tunnels"]}


def sweep(src: Namespace, dst: Namespace, family: int, sizes: Sequence[int], dont_fragment: bool, tries: int = 6) -> dict[int, str]:
    """UDP of each size (IP bytes) from host to host and back: {size: "echoed", "too-big" or "lost"}.

    "too-big": the sender was refused by its own host, which knows the MTU from an ICMP error.
    """
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    option = IP_MTU_DISCOVER if family == 4 else IPV6_MTU_DISCOVER
    headers = 28 if family == 4 else 48
    server, client = src_dst_sockets(src, dst, af)
    try:
        for s in (server, client):
            s.setsockopt(level, option, PMTUDISC_DO if dont_fragment else PMTUDISC_DONT)
        server.bind(("", 7777))
        # Answers may be fragmented: only the forward direction is tested.
        server.setsockopt(level, option, PMTUDISC_DONT)
        server.settimeout(0.25)
        out = {}
        for size in sizes:
            out[size] = "lost"
            for _ in range(tries):
                data = size.to_bytes(2, "big").ljust(size - headers, b"x")
                try:
                    client.sendto(data, (FAR[family], 7777))
                except OSError as e:
                    if e.errno != errno.EMSGSIZE:
                        raise
                    out[size] = "too-big"
                    break
                try:
                    if server.recvfrom(2000)[0] == data:
                        out[size] = "echoed"
                        break
                except TimeoutError:
                    pass
        return out
    finally:
        server.close()
        client.close()


def src_dst_sockets(src: Namespace, dst: Namespace, af: int) -> tuple[Any, Any]:
    return dst.socket(af, socket.SOCK_DGRAM), src.socket(af, socket.SOCK_DGRAM)


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> None:
    within(seconds, "both ends agree", what)


@contextlib.contextmanager
def hop(lab: Lab, rule: str) -> Iterator[None]:
    """The router between the gateways drops what the rule says, silently."""
    chain = f"chain c {{\n type filter hook forward priority 0;\n {rule} drop\n}}\n"
    table = f"table inet hop\ndelete table inet hop\ntable inet hop {{\n{chain}}}\n"
    lab.wan.run(["nft", "-f", "-"], input=table)
    try:
        yield
    finally:
        lab.wan.run(["nft", "delete", "table", "inet", "hop"])
