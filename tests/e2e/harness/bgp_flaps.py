"""A neighbor of BGP-4 whose routes flap: it announces so many prefixes and withdraws them, once a second, or slower if the
other end does not take them. In the end it withdraws them all and keeps the session until its standard input ends.

Usage: bgp_flaps.py OWN-ADDRESS ADDRESS OWN-AS PREFIXES TIMES. It prints how many prefixes it has announced."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
IPV4, IPV6 = (1, 1), (2, 1)
# Of a message, with room for the attributes.
NLRI_BYTES = 3800


def message(kind: int, body: bytes = b"") -> bytes:
    return b"\xff" * 16 + struct.pack("!HB", 19 + len(body), kind) + body


def attribute(flags: int, kind: int, value: bytes) -> bytes:
    return struct.pack("!BBH", flags | 0x10, kind, len(value)) + value


def nlri(first: str, bits: int, count: int) -> Iterator[bytes]:
    """So many prefixes from the first on, packed for messages."""
    base = int(ipaddress.ip_address(first))
    size = 4 if "." in first else 16
    part = b""
    for n in range(count):
        prefix = (base + (n << (size * 8 - bits))).to_bytes(size, "big")[: (bits + 7) // 8]
        part += bytes((bits,)) + prefix
        if len(part) > NLRI_BYTES:
            yield part
            part = b""
    if part:
        yield part


class Speaker:
    def __init__(self, own: str, peer: str, number: int) -> None:
        self.own, self.number = ipaddress.ip_address(own), number
        end = time.monotonic() + 15
        while not self.open(own, peer):
            if time.monotonic() > end:
                sys.exit("the other end does not want a session")
            time.sleep(0.2)
        self.sock.sendall(message(KEEPALIVE))
        self.alive = time.monotonic()

    def open(self, own: str, peer: str) -> bool:
        """Who does not know this neighbor yet closes the connection."""
        try:
            self.sock, self.buffer = socket.create_connection((peer, 179), 3, source_address=(own, 0)), b""
            family = IPV4 if self.own.version == 4 else IPV6
            multiprotocol = struct.pack("!BBHBB", 1, 4, family[0], 0, family[1])
            parameters = struct.pack("!BB", 2, len(multiprotocol)) + multiprotocol
            router = self.own.packed if self.own.version == 4 else b"\x0a\x00\x00\x06"
            head = struct.pack("!BHH", 4, self.number, 30)
            self.sock.sendall(message(OPEN, head + router + bytes((len(parameters),)) + parameters))
            while KEEPALIVE not in self.read(10):
                pass
        except OSError:
            return False
        return True

    def read(self, seconds: float) -> list[int]:
        """Kinds of the messages that have come meanwhile; the first ones of an open session answer it."""
        kinds = []
        if not select.select([self.sock], [], [], seconds)[0]:
            return kinds
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the other end has closed the session")
        self.buffer += data
        while len(self.buffer) >= 19:
            length, kind = struct.unpack_from("!HB", self.buffer, 16)
            if len(self.buffer) < length:
                break
            if kind == NOTIFICATION:
                raise ConnectionResetError(f"the other end ends the session: {self.buffer[19:length].hex()}")
            if kind == OPEN:
                self.sock.sendall(message(KEEPALIVE))
            kinds.append(kind)
            self.buffer = self.buffer[length:]
        return kinds

    def messages(self, part: bytes) -> tuple[bytes, bytes]:
        """The announcement of these prefixes, and their withdrawal."""
        origin = attribute(0x40, 1, b"\0")
        path = attribute(0x40, 2, struct.pack("!BBH", 2, 1, self.number))
        if self.own.version == 4:
            attributes = origin + path + attribute(0x40, 3, self.own.packed)
            announce = struct.pack("!HH", 0, len(attributes)) + attributes + part
            return message(UPDATE, announce), message(UPDATE, struct.pack("!H", len(part)) + part + b"\0\0")
        reach = struct.pack("!HBB", *IPV6, 16) + self.own.packed + b"\0" + part
        attributes = attribute(0x80, 14, reach) + origin + path
        gone = attribute(0x80, 15, struct.pack("!HB", *IPV6) + part)
        return tuple(message(UPDATE, struct.pack("!HH", 0, len(a)) + a) for a in (attributes, gone))

    def send(self, parts: list[bytes]) -> None:
        self.sock.settimeout(20)
        for part in parts:
            self.sock.sendall(part)
            self.idle(0)

    def idle(self, seconds: float) -> None:
        """Takes what comes for some time."""
        end = time.monotonic() + seconds
        while True:
            self.read(max(0, end - time.monotonic()))
            now = time.monotonic()
            if now - self.alive > 1:
                self.alive = now
                self.sock.sendall(message(KEEPALIVE))
            if now >= end:
                return


def main(own: str, peer: str, number: str, prefixes: str, times: str) -> None:
    speaker = Speaker(own, peer, int(number))
    first, bits = ("10.128.0.0", 24) if speaker.own.version == 4 else ("2001:db8:8000::", 64)
    announce, withdraw = zip(*(speaker.messages(part) for part in nlri(first, bits, int(prefixes))))
    for _ in range(int(times)):
        for parts in (announce, withdraw):
            end = time.monotonic() + 0.5
            speaker.send(parts)
            speaker.idle(end - time.monotonic())
    print(int(prefixes) * int(times), flush=True)
    while not select.select([0], [], [], 0)[0]:
        speaker.idle(0.2)


main(*sys.argv[1:])
