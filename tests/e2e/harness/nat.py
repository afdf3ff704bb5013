"""NAT in the tests: configurations with it, and sockets that show which address they see."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from .config import lab_config

if TYPE_CHECKING:
    from .lab import Lab
    from .net import Namespace

# Addresses that no host of the lab has; the routers on both sides route them to the gateway.
SPARE_WAN = "203.0.113.200"
SPARE_EXPRESS = "192.0.2.160"
# Another address of lan2.
LAN2_OTHER = "192.0.2.75"


def table(name: str, **keys: Any) -> str:
    """A TOML table, `[[…]]` for a list's entry."""
    head = f"[{name}]" if name == "nat" else f"[[{name}]]"
    return "\n".join(["", head, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"


def nat_config(*tables: str, mapping: str | None = None, filtering: str | None = None, wan: str = "", text: str = "", **dataplane: Any) -> str:
    """The lab's configuration with source NAT on the WAN port, and more tables."""
    keys = ["snat = true"]
    if mapping is not None:
        keys.append(f'snat_mapping = "{mapping}"')
    if filtering is not None:
        keys.append(f'snat_filtering = "{filtering}"')
    port = 'role = "wan"\n'
    config = lab_config(**dataplane)
    assert port in config
    return config.replace(port, port + "\n".join(keys) + "\n" + wan, 1) + "".join(tables) + text


def forward(entry: str, protocol: str, external: str, inside: tuple[str, str], **keys: Any) -> str:
    """A [[dnat]] from the Internet; `external` a port of the WAN address, or (address, port)."""
    address, port = external if isinstance(external, tuple) else ("", external)
    return table(
        "dnat",
        id=entry,
        **{"type": "Internet", **keys},
        ip_protocol=protocol,
        external_ip=address,
        external_port=port,
        internal_ip=inside[0],
        internal_port=inside[1],
    )


def hide_the_inside(lab: Lab) -> None:
    """Removes the routes from the Internet to the branch's IPv4 addresses: what is not translated gets no answer."""
    lab.wan.ip("route del 192.0.2.0/25")
    lab.wan.ip(f"route add {SPARE_WAN} via 198.51.100.2")
    lab.pop.ip(f"route add {SPARE_EXPRESS} via 192.0.2.129")
    lab.lan2.ip(f"addr add {LAN2_OTHER}/26 dev eth0")


class Peers:
    """Sockets of a test, all closed at its end."""

    def __init__(self) -> None:
        self.made = []

    def _socket(self, ns: Namespace, kind: int, timeout: float, address: str, port: int) -> socket.socket:
        sock = ns.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        self.made.append(sock)
        if port:
            # Not for any free port: two UDP sockets might get the same one.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(timeout)
        return sock

    def udp(self, ns: Namespace, address: str = "0.0.0.0", port: int = 0, timeout: float = 3.0) -> socket.socket:
        sock = self._socket(ns, socket.SOCK_DGRAM, timeout, address, port)
        sock.bind((address, port))
        return sock

    def listen(self, ns: Namespace, address: str = "0.0.0.0", port: int = 0, timeout: float = 3.0) -> socket.socket:
        sock = self._socket(ns, socket.SOCK_STREAM, timeout, address, port)
        sock.bind((address, port))
        sock.listen(16)
        return sock

    def connect(self, ns: Namespace, dest: tuple[str, int], source: tuple[str, int] | None = ("0.0.0.0", 0), timeout: float = 3.0) -> socket.socket:
        sock = self._socket(ns, socket.SOCK_STREAM, timeout, *source)
        sock.bind(source)
        sock.connect(dest)
        return sock

    def accept(self, listener: socket.socket, timeout: float = 3.0) -> tuple[Any, Any]:
        """(socket, whom it sees)."""
        sock, peer = listener.accept()
        self.made.append(sock)
        sock.settimeout(timeout)
        return sock, peer

    def close(self) -> None:
        for sock in self.made:
            sock.close()


def seen_as(client: socket.socket, server: socket.socket, dest: tuple[str, int], data: bytes = b"ping") -> Any:
    """A datagram to `dest`, answered by `server`; the address that the server saw. The client gets the answer from `dest`."""
    client.sendto(data, dest)
    got, peer = server.recvfrom(65535)
    assert got == data
    server.sendto(b"re:" + data, peer)
    answer, answerer = client.recvfrom(65535)
    assert (answer, answerer) == (b"re:" + data, dest)
    return peer


def silent(sock: socket.socket, wait: float = 0.4) -> bool:
    """Whether nothing arrives for a while."""
    before = sock.gettimeout()
    sock.settimeout(wait)
    try:
        sock.recvfrom(65535)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(before)
    return False


def talk(one: socket.socket, other: socket.socket, size: int = 200_000) -> None:
    """Bytes in both directions over a TCP connection, in small enough steps for one thread."""
    piece = bytes(range(256)) * 64
    done = 0
    while done < size:
        for here, there in ((one, other), (other, one)):
            here.sendall(piece)
            assert receive(there, len(piece)) == piece
        done += len(piece)


def receive(sock: socket.socket, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        got = sock.recv(size - len(out))
        if not got:
            break
        out += got
    return bytes(out)
