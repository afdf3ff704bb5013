"""A flood at a steady rate from one device, and what others get meanwhile.

As a program it sends: frames are made first and then sent, so one core reaches tens of thousands a second.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import random
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .net import Namespace

TCP, UDP = 6, 17
FLAGS = {"syn": 0x02, "ack": 0x10, "fin": 0x11, "synack": 0x12}
TRIES = 3.0  # seconds in which a connection must come about


@dataclass(frozen=True)
class Attack:
    """Packets a second, for how long, and sessions that the gateway's tables hold (`None`: by default)."""

    rate: int
    seconds: int
    flows: int | None

    @classmethod
    def of(cls, rate: int | None) -> Attack:
        """As hard as asked for, on tables of default size; else what a test has time for, on small ones."""
        return cls(4000, 5, 8192) if rate is None else cls(rate, 12, None)

    @property
    def table(self) -> dict[str, int]:
        """For `lab_config`."""
        return {"flows": self.flows or 1 << 20}

    def fills(self, capacity: int) -> bool:
        """Whether sessions of the attack, which last ten seconds when refused, fill such a table."""
        return self.rate * min(self.seconds, 10) > 2 * capacity


def checksum(*parts: bytes) -> int:
    data = b"".join(parts)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def many(macs: bytes, src: str, dst: str, kind: str, count: int, rng: random.Random) -> list[bytes]:
    """Frames to random ports that nobody listens on. Checksums are carried on from one frame to the next."""
    template = frame(macs, src, dst, kind, (1024, 10_000), 0)
    at = 14 + (20 if ":" not in src else 40)
    field = at + (6 if kind == "udp" else 16)
    base = ~int.from_bytes(template[field : field + 2], "big") & 0xFFFF
    base += (~1024 & 0xFFFF) + (~10_000 & 0xFFFF)
    made = []
    for _ in range(count):
        sport, dport, low = rng.randrange(1024, 65536), rng.randrange(10_000, 60_000), rng.getrandbits(16)
        total = base + sport + dport + low
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        out = bytearray(template)
        struct.pack_into("!HH", out, at, sport, dport)
        # The sequence number of TCP; what UDP carries is as long.
        struct.pack_into("!H", out, at + (14 if kind == "udp" else 6), low)
        struct.pack_into("!H", out, field, ~total & 0xFFFF or 0xFFFF)
        made.append(bytes(out))
    return made


def scan(macs: bytes, src: str, dst: str, made_up: bool, count: int) -> list[bytes]:
    """UDP without a checksum (IPv6: a wrong one, for nobody gets it) to one address after the other of 40,000, from one
    source, or each from another one."""
    a, b = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    made = []
    for n in range(1, count + 1):
        to = int(b) + (256 + n % 40_000 if b.version == 4 else 0x0F000000 + n)
        if made_up:
            a = ipaddress.ip_address(0x65000000 + n) if b.version == 4 else ipaddress.ip_address((0x20010DB900000000 + n << 64) + 1)
        payload = n.to_bytes(8, "big")
        l4 = struct.pack("!HHHH", 9, 9, 8 + len(payload), 0 if b.version == 4 else 1) + payload
        if b.version == 6:
            made.append(macs + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(l4), UDP, 64) + a.packed + to.to_bytes(16, "big") + l4)
            continue
        head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, UDP, 0) + a.packed + to.to_bytes(4, "big"))
        struct.pack_into("!H", head, 10, checksum(bytes(head)))
        made.append(macs + b"\x08\x00" + bytes(head) + l4)
    return made


def frame(macs: bytes, src: str, dst: str, kind: str, ports: tuple[int, int], seq: int) -> bytes:
    """An Ethernet frame with right checksums."""
    a, b = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    proto = UDP if kind == "udp" else TCP
    if proto == UDP:
        l4 = bytearray(struct.pack("!HHHH", *ports, 16, 0) + seq.to_bytes(8, "big"))
        at = 6
    else:
        l4 = bytearray(struct.pack("!HHIIBBHHH", *ports, seq, 0, 5 << 4, FLAGS[kind], 1024, 0, 0))
        at = 16
    pseudo = a.packed + b.packed + struct.pack("!II", len(l4), proto)
    struct.pack_into("!H", l4, at, checksum(pseudo, bytes(l4)) or 0xFFFF)
    if a.version == 6:
        return macs + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(l4), proto, 64) + a.packed + b.packed + l4
    head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, proto, 0) + a.packed + b.packed)
    struct.pack_into("!H", head, 10, checksum(bytes(head)))
    return macs + b"\x08\x00" + head + l4


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--dev", "--macs", "--src", "--dst", "--kind"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, help="to one port; else to such as nobody listens on")
    args = parser.parse_args()
    rng, macs = random.Random(args.seed), bytes.fromhex(args.macs)
    count = min(int(args.rate * args.seconds), 400_000)
    if args.kind.startswith("scan"):
        frames = scan(macs, args.src, args.dst, args.kind == "scan-made-up", count)
    elif args.kind == "udp-spoofed":
        # In the name of fifty others.
        first = ipaddress.ip_address(args.src)
        frames = [f for n in range(50) for f in many(macs, str(first + n), args.dst, "udp", count // 50, rng)]
        rng.shuffle(frames)
    elif args.port:
        # From any address of a network.
        net = ipaddress.ip_network(args.src)
        ports = [(rng.randrange(1024, 65536), args.port) for _ in range(min(count, 40_000))]
        sources = [str(net[rng.randrange(net.num_addresses)]) for _ in ports]
        frames = [frame(macs, s, args.dst, args.kind, p, rng.getrandbits(32)) for s, p in zip(sources, ports, strict=True)]
    else:
        frames = many(macs, args.src, args.dst, args.kind, count, rng)
    count = len(frames)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((args.dev, 0))
    print("ready", flush=True)
    begun, sent = time.monotonic(), 0
    while (now := time.monotonic() - begun) < args.seconds:
        due = int(now * args.rate)
        for n in range(sent, due):
            with contextlib.suppress(OSError):
                sock.send(frames[n % count])
        sent = max(sent, due)
        time.sleep(0.001)
    print(sent, flush=True)


class Flood:
    """Such a sender in a namespace, for the length of a block."""

    def __init__(self, ns: Namespace, dev: str, macs: tuple[str, str], way: tuple[str, str], kind: str, rate: int, seconds: float, port: int = 0) -> None:
        both = "".join(m.replace(":", "") for m in macs)
        command = [sys.executable, __file__, "--dev", dev, "--macs", both, "--src", way[0], "--dst", way[1]]
        command += ["--kind", kind, "--rate", rate, "--seconds", seconds, "--seed", sum(kind.encode())]
        command += ["--port", port] if port else []
        self.child = ns.popen(command)
        self.sent = 0

    def __enter__(self) -> Flood:
        line = self.child.stdout.readline()
        assert line == "ready\n", line + self.child.stdout.read()
        return self

    def running(self) -> bool:
        return self.child.poll() is None

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self.child.kill()
        try:
            output, _ = self.child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise
        if kind is None:
            self.sent = int(output)


class Server:
    """Accepts connections in a namespace and sends back what it gets."""

    def __init__(self, ns: Namespace, port: int) -> None:
        self.over = False
        self.listeners = []
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            sock = ns.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((any_address, port))
            sock.listen(1024)
            sock.setblocking(False)
            self.listeners.append(sock)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        poll = selectors.DefaultSelector()
        for sock in self.listeners:
            poll.register(sock, selectors.EVENT_READ, True)
        while not self.over:
            for key, _ in poll.select(0.1):
                if key.data:
                    with contextlib.suppress(OSError):
                        one, _ = key.fileobj.accept()
                        poll.register(one, selectors.EVENT_READ, False)
                    continue
                try:
                    data = key.fileobj.recv(4096)
                except OSError:
                    data = b""
                if data:
                    with contextlib.suppress(OSError):
                        key.fileobj.send(data)
                else:
                    poll.unregister(key.fileobj)
                    key.fileobj.close()
        for key in list(poll.get_map().values()):
            key.fileobj.close()

    def close(self) -> None:
        self.over = True
        self.thread.join()


class Clients:
    """Connections of one host to a server, each with an answer from there."""

    def __init__(self, ns: Namespace, family: int, address: str, port: int) -> None:
        self.ns, self.to = ns, (address, port)
        self.family = socket.AF_INET if family == 4 else socket.AF_INET6
        # When connections began that did not come about.
        self.failed: list[float] = []

    @contextlib.contextmanager
    def connected(self, count: int) -> Iterator[list[socket.socket]]:
        """So many connections that stay for the length of a block."""
        made = []
        try:
            for _ in range(count):
                sock = self.ns.socket(self.family, socket.SOCK_STREAM)
                made.append(sock)
                sock.settimeout(10)
                sock.connect(self.to)
            yield made
        finally:
            for sock in made:
                sock.close()

    @staticmethod
    def alive(sock: socket.socket, text: bytes = b"still here") -> bool:
        sock.settimeout(10)
        try:
            sock.send(text)
            return sock.recv(100) == text
        except OSError:
            return False

    def connect_while(self, going_on: Any, gap: float = 0.05) -> tuple[int, int]:
        """New connections at a steady pace: how many of them got an answer within three seconds, of how many."""
        poll, open_now, done, tried, due = selectors.DefaultSelector(), {}, 0, 0, time.monotonic()
        while open_now or going_on():
            now = time.monotonic()
            if now >= due and going_on():
                due, tried = now + gap, tried + 1
                sock = self.ns.socket(self.family, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.connect_ex(self.to)
                poll.register(sock, selectors.EVENT_WRITE)
                open_now[sock] = now
            for key, events in poll.select(max(0.0, min(due - now, 0.02))):
                sock = key.fileobj
                try:
                    if events & selectors.EVENT_WRITE:
                        sock.send(b"hello")
                        poll.modify(sock, selectors.EVENT_READ)
                        continue
                    well = sock.recv(100) == b"hello" and now - open_now[sock] <= TRIES
                except OSError:
                    well = False
                done += well
                self._end(poll, open_now, sock, well)
            for sock, since in list(open_now.items()):
                if time.monotonic() - since > TRIES:
                    self._end(poll, open_now, sock, False)
        return done, tried

    def _end(
        self, poll: selectors.BaseSelector, open_now: dict[socket.socket, float], sock: socket.socket, well: bool
    ) -> None:
        poll.unregister(sock)
        since = open_now.pop(sock)
        if not well:
            self.failed.append(since)
        sock.close()


if __name__ == "__main__":
    main()
