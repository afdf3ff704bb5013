"""A branch and the Internet, in namespaces of this machine, with a guest between them as the gateway.

                lan (tap)  ── lan  guest  wan ──  (tap) wan
    192.0.2.10, 2001:db8:1::10               198.51.100.1, 203.0.113.10, 2001:db8:203::10

The guest may have a second card to the branch, `spare`; then the host of the branch is at a bridge of both wires, br0.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

from harness.net import Namespace, run
from wire import signed

from .guest import Guest, Nic
from .images import Kernel

LAN = {4: "192.0.2.10", 6: "2001:db8:1::10"}
INET = {4: "203.0.113.10", 6: "2001:db8:203::10"}
GW_LAN = {4: "192.0.2.1", 6: "2001:db8:1::1"}
GW_WAN = {4: "198.51.100.2", 6: "2001:db8:100::2"}
INSIDE_PORT, ECHO_PORT = 7443, 7001
# Where clients reach the host inside: a port that is forwarded, and its own address.
SERVICE = {4: GW_WAN[4], 6: LAN[6]}
VIRTIO, QUEUES = "virtio-net-pci", 4
LAN_MAC, WAN_MAC, SPARE_MAC = "02:00:00:00:09:01", "02:00:00:00:09:02", "02:00:00:00:09:03"

# Names of ports as the cloud has them.
GATEWAY = f"""
[dataplane]
workers = 2
flows = 65536

[[port]]
name = "0"
device = "wan"
role = "wan"
snat = true

[[port]]
name = "1"
device = "lan"
role = "lan"

[[dnat]]
id = "inside"
type = "Internet"
ip_protocol = "tcp"
external_port = "{INSIDE_PORT}"
internal_ip = "{LAN[4]}"
internal_port = "{INSIDE_PORT}"

[[syn_cookies]]
id = "v4"
port = {INSIDE_PORT}
mode = "always"

[[syn_cookies]]
id = "v6"
address = "{LAN[6]}"
port = {INSIDE_PORT}
mode = "always"
"""

NETWORK = {
    "lan": f"[Network]\nAddress={GW_LAN[4]}/26\nAddress={GW_LAN[6]}/64\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n",
    "wan": f"[Network]\nAddress={GW_WAN[4]}/24\nAddress={GW_WAN[6]}/64\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n"
    "Gateway=198.51.100.1\nGateway=2001:db8:100::1\n",
}  # fmt: skip
ENABLED = ("systemd-networkd.service", "sag-vcpe.service")
# What a package would bring.
USERS = 'u sag - "sag-vcpe" /var/lib/sag\n'

IN_NAMESPACE = (
    "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0", "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0", "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ping_group_range=0 2147483647",
)  # fmt: skip


class Site:
    """The namespaces; a guest is plugged in by `boot`."""

    def __init__(self, name: str) -> None:
        self.prefix = f"vm{os.getpid()}-{name}-"
        self.lan, self.wan = (Namespace(n, f"/run/netns/{self.prefix}{n}") for n in ("lan", "wan"))
        for ns in (self.lan, self.wan):
            run(["ip", "netns", "add", self.prefix + ns.name])
            ns.run(["sysctl", "-q", "-w", *IN_NAMESPACE])
            ns.ip("link set lo up")

    def boot(
        self,
        kernel: Kernel,
        lan: str = VIRTIO,
        wan: str = VIRTIO,
        packages: dict[str, bytes] | None = None,
        spare: str | None = None,
    ) -> Guest:
        """A guest whose gateway starts as the machine does, with cards of two models, or three; or one that has these files
        instead of our programs."""
        nics = [
            Nic(self.lan, "eth0", LAN_MAC, lan, QUEUES if lan == VIRTIO else 1),
            Nic(self.wan, "eth0", WAN_MAC, wan, QUEUES if wan == VIRTIO else 1),
        ]
        if spare is not None:
            nics.append(Nic(self.lan, "eth1", SPARE_MAC, spare))
        files = {f"etc/systemd/network/{d}.network": f"[Match]\nName={d}\n{text}".encode() for d, text in NETWORK.items()}
        # The order in which drivers find cards is not that of their slots.
        for device, mac in (("lan", LAN_MAC), ("wan", WAN_MAC), ("spare", SPARE_MAC)):
            link = f"[Match]\nMACAddress={mac}\nType=ether\nKind=!*\n[Link]\nName={device}\n"
            files[f"etc/systemd/network/10-{device}.link"] = link.encode()
        if packages is None:
            files["etc/sag/vcpe.toml"] = GATEWAY.encode()
            files["usr/lib/sysusers.d/sag.conf"] = USERS.encode()
            guest = Guest(kernel, nics, files, ENABLED)
        else:
            guest = Guest(kernel, nics, files | packages, ENABLED[:1], programs=False)
        try:
            guest.start()
            host = "eth0" if spare is None else "br0"
            if spare is not None:
                self.lan.batch(
                    "link add br0 type bridge\nlink set eth0 master br0\nlink set eth1 master br0\nlink set br0 up\n"
                )
            self.lan.batch(
                f"addr add {LAN[4]}/26 dev {host}\naddr add {LAN[6]}/64 dev {host}\n"
                f"route add default via {GW_LAN[4]}\nroute add ::/0 via {GW_LAN[6]}\n"
            )
            self.wan.batch(
                "addr add 198.51.100.1/24 dev eth0\naddr add 2001:db8:100::1/64 dev eth0\n"
                f"addr add {INET[4]}/32 dev lo\naddr add {INET[6]}/128 dev lo\n"
                f"route add 2001:db8:1::/64 via {GW_WAN[6]}\n"
            )
        except BaseException:
            guest.stop()
            raise
        return guest

    def close(self) -> None:
        for ns in (self.lan, self.wan):
            run(["ip", "netns", "delete", self.prefix + ns.name], check=False)


def inet(family: int) -> socket.AddressFamily:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def connect(ns: Namespace, family: int, to: tuple[str, int], timeout: float = 30) -> socket.socket:
    sock = ns.socket(inet(family), socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(to)
    except OSError:
        sock.close()
        raise
    return sock


def echoes(sock: socket.socket, data: bytes) -> bool:
    """Whether what is sent comes back."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        more = sock.recv(65536)
        if not more:
            return False
        got += more
    return got == data


def reaches(site: Site, family: int = 4) -> bool:
    """Whether a connection from the LAN to the Internet comes about now."""
    try:
        with connect(site.lan, family, (INET[family], ECHO_PORT), timeout=2) as sock:
            return echoes(sock, b"through")
    except OSError:
        return False


@contextlib.contextmanager
def conversations(site: Site, port: int = ECHO_PORT) -> Iterator[list[socket.socket]]:
    """A TCP connection from the LAN to the Internet by each family, that somebody sends back on."""
    made: list[socket.socket] = []
    try:
        for family in (4, 6):
            made.append(connect(site.lan, family, (INET[family], port)))
            assert echoes(made[-1], b"hello")
        yield made
    finally:
        for sock in made:
            sock.close()


class Cloud:
    """The cloud API inside a guest, by requests signed here."""

    def __init__(self, guest: Guest, key: list[str], port: int = 8180) -> None:
        self.guest, self.key, self.port = guest, key, port

    def call(self, action: str, **params: object) -> Any:
        query = urllib.parse.urlencode(signed(self.key, "GET", action, Format="JSON", **params))
        fetch = (
            "import sys, urllib.request as u, urllib.error as e\n"
            "try: print(u.urlopen(sys.argv[1], timeout=60).read().decode())\n"
            "except e.HTTPError as x: print(x.read().decode()); sys.exit(1)\n"
        )
        return json.loads(self.guest.out(["python3", "-c", fetch, f"http://127.0.0.1:{self.port}/?{query}"]))
