"""Echo requests and their answers, as `ping` sends them. `ping` itself waits for two round trips after the last one and
counts what comes later as lost, which on a busy machine it is not."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_RECVERR, IPV6_RECVERR = 10, 23, 11, 25
DISCOVERY = {"dont": 0, "want": 1, "do": 2}
MSG_ERRQUEUE, FROM_HERE = 0x2000, 1
# Type of request and answer.
TYPES = {4: (8, 0), 6: (128, 129)}


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Echo:
    """Requests of one identifier, by a raw socket of the namespace in which the thread is that makes this."""

    def __init__(self, dest: str, size: int, source: str | None, discovery: str | None) -> None:
        self.version = 6 if ":" in dest else 4
        family = socket.AF_INET6 if self.version == 6 else socket.AF_INET
        self.dest = socket.getaddrinfo(dest, 0, family, socket.SOCK_DGRAM)[0][4]
        proto = socket.IPPROTO_ICMPV6 if self.version == 6 else socket.IPPROTO_ICMP
        self.socket = socket.socket(family, socket.SOCK_RAW, proto)
        level = socket.IPPROTO_IPV6 if self.version == 6 else socket.IPPROTO_IP
        # What an ICMP error answers is not waited for.
        self.socket.setsockopt(level, IPV6_RECVERR if self.version == 6 else IP_RECVERR, 1)
        if discovery is not None:
            option = IPV6_MTU_DISCOVER if self.version == 6 else IP_MTU_DISCOVER
            self.socket.setsockopt(level, option, DISCOVERY[discovery])
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.setblocking(False)
        self.identifier, self.filling = random.getrandbits(16), os.urandom(size)
        self.readable = select.poll()
        self.readable.register(self.socket, select.POLLIN)
        self.waiting: set[int] = set()
        self.answered = self.errors = 0

    def send(self, number: int) -> None:
        kind = TYPES[self.version][0]
        head = struct.pack("!BBHHH", kind, 0, 0, self.identifier, number & 0xFFFF)
        if self.version == 4:
            head = struct.pack("!BBHHH", kind, 0, checksum(head + self.filling), self.identifier, number & 0xFFFF)
        try:
            self.socket.sendto(head + self.filling, self.dest)
        except OSError:
            self.errors += 1
            return
        self.waiting.add(number & 0xFFFF)

    def receive(self) -> None:
        """Takes what has come."""
        while True:
            try:
                packet = self.socket.recv(65535)
            except BlockingIOError:
                self.receive_errors()
                return
            except OSError:
                continue
            if self.version == 4:
                packet = packet[4 * (packet[0] & 15):]
            if len(packet) < 8 or packet[0] != TYPES[self.version][1] or packet[8:] != self.filling:
                continue
            _, identifier, number = struct.unpack("!HHH", packet[2:8])
            if identifier == self.identifier and number in self.waiting:
                self.waiting.remove(number)
                self.answered += 1

    def receive_errors(self) -> None:
        """Takes the ICMP errors that have come."""
        while True:
            try:
                _, more, _, _ = self.socket.recvmsg(2048, 512, MSG_ERRQUEUE)
            except BlockingIOError:
                return
            # struct sock_extended_err: the error, and where it comes from.
            self.errors += sum(data[4] != FROM_HERE for _, kind, data in more if kind in (IP_RECVERR, IPV6_RECVERR))

    def until(self, end: float, count: int | None = None) -> None:
        """Takes what comes until then, or until so many requests have an answer or an error."""
        while count is None or self.answered + self.errors < count:
            left = end - time.monotonic()
            if left <= 0:
                return
            self.readable.poll(1000 * left)
            self.receive()


def prepare(dest: str, options: Sequence[Any] = ()) -> Echo:
    """Of the options of `ping` there are -s, -I with an address, and -M."""
    given = dict(zip(map(str, options[::2]), options[1::2], strict=True))
    echo = Echo(dest, int(given.pop("-s", 56)), given.pop("-I", None), given.pop("-M", None))
    assert not given, f"options that are not known here: {given}"
    return echo


def run(echo: Echo, count: int, interval: float, wait: float) -> int:
    """Answers received to `count` requests, within `wait` seconds after the last one."""
    with echo.socket:
        for n in range(count):
            if n > 0:
                echo.until(time.monotonic() + interval)
            echo.send(n)
        echo.until(time.monotonic() + wait, count)
    return echo.answered
