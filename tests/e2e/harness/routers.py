"""Routing daemons of a router, as they are: FRR, BIRD, keepalived and dnsmasq, in namespaces of the lab."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .net import Namespace, run
from .waiting import within

FRR_DIR = Path("/usr/lib/frr")
SETUP = "(scripts/setup.sh installs it)"


def program(name: str, *places: str) -> str:
    """Where it is; the test is skipped where it is not installed."""
    found = shutil.which(name) or next((p for p in places if Path(p).exists()), None)
    if found is None:
        pytest.skip(f"{name} is not installed {SETUP}")
    return found


class Daemons:
    """Starts daemons that write into a folder, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[Any]] = []
        # By the names of their logs.
        self.named: dict[str, subprocess.Popen[Any]] = {}

    def start(self, ns: Namespace, name: str, command: list[Any]) -> subprocess.Popen[Any]:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes.append(ns.popen(command, stdout=log, stderr=log, cwd=self.folder))
        self.named[name] = self.processes[-1]
        return self.processes[-1]

    def end(self, process: subprocess.Popen[Any], how: int = signal.SIGTERM) -> None:
        process.send_signal(how)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        self.processes.remove(process)

    def close(self) -> None:
        for process in list(reversed(self.processes)):
            self.end(process)

    def tail(self) -> str:
        """The end of each log, for failures."""
        logs = sorted(self.folder.glob("**/*.log"))
        return "\n".join(f"== {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-15:]) for p in logs)


class FrrDaemons:
    """Daemons of FRR in a namespace, each with a configuration of its own. They give up root."""

    def __init__(self, daemons: Daemons, ns: Namespace, configs: dict[str, str], name: str = "frr") -> None:
        if not (FRR_DIR / "zebra").exists():
            pytest.skip(f"frr is not installed {SETUP}")
        self.folder = daemons.folder / name
        self.folder.mkdir()
        for daemon, text in configs.items():
            (self.folder / f"{daemon}.conf").write_text(text)
        # They give up root, and their sockets are theirs.
        shutil.chown(self.folder, "frr", "frr")
        for daemon in configs:
            command = [
                FRR_DIR / daemon, "-u", "frr", "-g", "frr", "-f", self.folder / f"{daemon}.conf", "-i", self.folder / f"{daemon}.pid",
                "-z", self.folder / "zserv.api", "--vty_socket", self.folder, "-P", "0", "--log", "stdout",
            ]
            if daemon == "bfdd":
                command += ["--bfdctl", self.folder / "bfdd.sock"]
            daemons.start(ns, f"{name}-{daemon}", command)
            if daemon == "zebra":
                # Who does not find it tries again after ten seconds.
                within(3, "zebra listens", (self.folder / "zserv.api").exists, daemons.tail)

    def vtysh(self, daemon: str, *commands: str) -> str:
        argv = ["vtysh", "--vty_socket", self.folder, "-d", daemon]
        for command in commands:
            argv += ["-c", command]
        return run(argv, check=False, env={**os.environ, "VTYSH_PAGER": "cat"}).stdout

    def show(self, daemon: str, what: str) -> Any:
        """An answer of a daemon; nothing while it starts."""
        try:
            return json.loads(self.vtysh(daemon, f"show {what} json"))
        except ValueError:
            return {}


class Frr(FrrDaemons):
    """zebra, ospfd, ospf6d and bfdd in a namespace: OSPFv2 and OSPFv3 with BFD on one device, with fast timers. `kind`: "ptp"
    or "broadcast", with a designated router."""

    ZEBRA = "hostname test\n"
    OSPF = "interface {dev}\n ip ospf area 0\n ip ospf bfd\n{timers}!\nrouter ospf\n ospf router-id 192.0.2.1\n timers throttle lsa all 0\n timers throttle spf 0 50 500\n"
    OSPF6 = "interface {dev}\n ipv6 ospf6 area 0\n ipv6 ospf6 bfd\n{timers}!\nrouter ospf6\n ospf6 router-id 192.0.2.1\n timers throttle spf 0 50 500\n"

    def __init__(self, daemons: Daemons, ns: Namespace, dev: str, kind: str) -> None:
        network = {"ptp": "point-to-point", "broadcast": "broadcast"}[kind]
        timers = lambda word: f" {word} hello-interval 1\n {word} dead-interval 3\n {word} network {network}\n"
        configs = {
            "zebra": self.ZEBRA,
            "ospfd": self.OSPF.format(dev=dev, timers=timers("ip ospf")),
            "ospf6d": self.OSPF6.format(dev=dev, timers=timers("ipv6 ospf6")),
            "bfdd": "",
        }
        super().__init__(daemons, ns, configs)


class FrrBgp(FrrDaemons):
    """zebra and bgpd in a namespace: BGP of AS 65001 with one neighbor of AS 65002 by each address; `far`: the other way round."""

    def __init__(self, daemons: Daemons, ns: Namespace, neighbors: dict[int, str], networks: dict[int, str], far: bool = False) -> None:
        own, other = (65002, 65001) if far else (65001, 65002)
        bgp = f"router bgp {own}\n bgp router-id 192.0.2.{1 + far}\n no bgp ebgp-requires-policy\n no bgp network import-check\n timers bgp 2 9\n"
        for address in neighbors.values():
            bgp += f" neighbor {address} remote-as {other}\n neighbor {address} timers connect 1\n"
        for family, address in neighbors.items():
            bgp += f" address-family ipv{family} unicast\n  network {networks[family]}\n  neighbor {address} activate\n exit-address-family\n"
        super().__init__(daemons, ns, {"zebra": "hostname test\n", "bgpd": bgp}, "frr-far" if far else "frr")
        self.networks = networks

    def has(self, network: str) -> bool:
        """Whether it has learned a network."""
        family = "ipv6" if ":" in network else "ipv4"
        return network in self.show("bgpd", f"bgp {family} unicast").get("routes", {})

    def withdraw(self, family: int) -> None:
        """Its own network of a family."""
        self.vtysh("bgpd", "configure", "router bgp", f"address-family ipv{family} unicast", f"no network {self.networks[family]}")


class BirdBgp:
    """BIRD in a namespace: AS 65002, which announces a network of each family to AS 65001."""

    def __init__(self, daemons: Daemons, ns: Namespace, own: dict[int, str], neighbors: dict[int, str], networks: dict[int, str]) -> None:
        bird = program("bird", "/usr/sbin/bird")
        self.control = daemons.folder / "bird.ctl"
        conf = daemons.folder / "bird.conf"
        text = "router id 192.0.2.2;\nlog stderr all;\nprotocol device { scan time 1; }\n"
        for family in own:
            text += (
                f"protocol static net{family} {{ ipv{family}; route {networks[family]} blackhole; }}\n"
                f"protocol bgp bgp{family} {{ local {own[family]} as 65002; neighbor {neighbors[family]} as 65001; "
                f"connect delay time 1; hold time 9; ipv{family} {{ import all; export all; next hop self; }}; }}\n"
            )
        conf.write_text(text)
        daemons.start(ns, "bird", [bird, "-f", "-c", conf, "-s", self.control, "-P", daemons.folder / "bird.pid"])

    def show(self, what: str) -> str:
        return run(["birdc", "-s", self.control, *what.split()], check=False).stdout

    def has(self, network: str) -> bool:
        """Whether it has learned a network."""
        return network in self.show("show route")

    def withdraw(self, family: int) -> None:
        """Its own network of a family."""
        self.show(f"disable net{family}")


BIRD = """
router id 192.0.2.2;
log stderr all;
protocol device {{ scan time 1; }}
protocol static {{ ipv4; route {net4} blackhole; }}
protocol static {{ ipv6; route {net6} blackhole; }}
protocol bfd {{ interface "{dev}" {{ interval 200 ms; multiplier 5; }}; }}
protocol ospf v2 ospf4 {{
  ipv4 {{ export where source = RTS_STATIC; }};
  area 0 {{ interface "{dev}" {{ type {kind}; hello 1; dead 3; priority 0; bfd yes; }}; }};
}}
protocol ospf v3 ospf6 {{
  ipv6 {{ export where source = RTS_STATIC; }};
  area 0 {{ interface "{dev}" {{ type {kind}; hello 1; dead 3; priority 0; bfd yes; }}; }};
}}
"""


class BirdDaemon:
    """BIRD in a namespace, with this configuration."""

    def __init__(self, daemons: Daemons, ns: Namespace, text: str) -> None:
        bird = program("bird", "/usr/sbin/bird")
        self.daemons, self.control = daemons, daemons.folder / f"bird-{ns.name}.ctl"
        self.conf = daemons.folder / f"bird-{ns.name}.conf"
        self.conf.write_text(text)
        command = [bird, "-f", "-c", self.conf, "-s", self.control, "-P", daemons.folder / f"bird-{ns.name}.pid"]
        self.process = daemons.start(ns, f"bird-{ns.name}", command)

    def ctl(self, *words: str) -> str:
        return run(["birdc", "-s", self.control, *words], check=False).stdout

    def show(self, what: str) -> str:
        return self.ctl("show", *what.split())

    def end(self, how: int) -> None:
        self.daemons.end(self.process, how)


class Bird(BirdDaemon):
    """BIRD in a namespace: the same as `Frr` on its side, and a network of each family that it announces. It never is the
    designated router, so it speaks to all of these (224.0.0.6, ff02::6)."""

    def __init__(self, daemons: Daemons, ns: Namespace, dev: str, kind: str, net4: str, net6: str) -> None:
        super().__init__(daemons, ns, BIRD.format(dev=dev, kind=kind, net4=net4, net6=net6))


class Vrrp:
    """A virtual router, by number and family: plain, or with a macvlan device that has its Ethernet address."""

    def __init__(self, vrid: int, family: int, vmac: bool, addresses: list[str]) -> None:
        self.vrid, self.family, self.vmac, self.addresses = vrid, family, vmac, addresses

    @property
    def mac(self) -> str:
        return f"00:00:5e:00:0{1 if self.family == 4 else 2}:{self.vrid:02x}"

    def text(self, dev: str, priority: int) -> str:
        vmac = f"    use_vmac vrrp.{self.vrid}\n" if self.vmac else ""
        return (
            f"vrrp_instance v{self.vrid} {{\n    state BACKUP\n    interface {dev}\n    virtual_router_id {self.vrid}\n"
            f"    priority {priority}\n    advert_int 0.3\n{vmac}"
            f"    virtual_ipaddress {{\n        {' '.join(f'{a}{chr(10)}       ' for a in self.addresses)}\n    }}\n}}\n"
        )


class Keepalived:
    """keepalived in a namespace, with these virtual routers."""

    def __init__(self, daemons: Daemons, ns: Namespace, dev: str, routers: list[Vrrp], priority: int) -> None:
        self.daemons, self.ns, self.routers = daemons, ns, routers
        folder = daemons.folder / f"keepalived-{ns.name}"
        folder.mkdir(exist_ok=True)
        conf = folder / "keepalived.conf"
        head = "global_defs {\n    vrrp_version 3\n    router_id test\n    script_user root\n}\n"
        conf.write_text(head + "".join(r.text(dev, priority) for r in routers))
        command = [
            program("keepalived", "/usr/sbin/keepalived"), "-f", conf, "-n", "-l", "-D", "-P", "-G",
            "-p", folder / "pid", "-r", folder / "vrrp.pid",
        ]
        self.process = daemons.start(ns, f"keepalived-{ns.name}", command)

    def has(self) -> set[int]:
        """The numbers of the virtual routers whose addresses are all here: those of which it is the master."""
        devices = json.loads(self.ns.out(["ip", "-j", "addr"]))
        here = {a["local"] for d in devices for a in d.get("addr_info", [])}
        return {r.vrid for r in self.routers if here >= {a.split("/")[0] for a in r.addresses}}

    def end(self, how: int = signal.SIGTERM) -> None:
        self.daemons.end(self.process, how)


def dnsmasq(daemons: Daemons, ns: Namespace, dev: str, *options: str) -> subprocess.Popen[Any]:
    """DHCPv6 and router advertisements on a device."""
    command = [
        program("dnsmasq", "/usr/sbin/dnsmasq"), "--no-daemon", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file=",
        f"--interface={dev}", "--bind-dynamic", "--log-dhcp", f"--dhcp-leasefile={daemons.folder / f'leases-{ns.name}'}", *options,
    ]
    return daemons.start(ns, f"dnsmasq-{ns.name}", command)
