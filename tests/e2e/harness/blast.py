"""UDP at a steady rate from one namespace to another, with the time of every arrival."""

from __future__ import annotations

import bisect
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .net import Namespace

# IP bytes of one packet, and what of them is payload.
SIZE = 1428
PAYLOAD = SIZE - 28


def mbit_between(times: Sequence[float], since: float, until: float) -> float:
    """Mbit/s of IP packets by their times, in order."""
    count = bisect.bisect_left(times, until) - bisect.bisect_left(times, since)
    return count * SIZE * 8 / (until - since) / 1e6


class Arrivals:
    """A UDP socket that records the times of arrivals."""

    def __init__(self, ns: Namespace, port: int) -> None:
        self.times = []
        self.sock = ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind(("", port))
        self.sock.settimeout(0.1)
        self.over = False
        self.thread = threading.Thread(target=self.take)
        self.thread.start()

    def take(self) -> None:
        buffer = bytearray(2048)
        while not self.over:
            try:
                self.sock.recv_into(buffer)
                self.times.append(time.time())
            except TimeoutError:
                pass

    def mbit(self, since: float, until: float) -> float:
        """Mbit/s of IP packets that came between two moments."""
        return mbit_between(self.times, since, until)

    def first(self, since: float) -> float:
        """When the first packet came from a moment on."""
        return self.times[bisect.bisect_left(self.times, since)]

    def close(self) -> None:
        self.over = True
        self.thread.join()
        self.sock.close()


class Blast:
    """Sends so many Mbit/s of IP packets until it is stopped, and notes when."""

    def __init__(self, ns: Namespace, address: str, port: int, mbit: float, tos: int = 0) -> None:
        self.times = []
        self.sock = ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        self.sock.connect((address, port))
        self.gap = SIZE * 8 / (mbit * 1e6)
        self.over = False
        self.thread = threading.Thread(target=self.send)
        self.thread.start()

    def send(self) -> None:
        payload, due = bytes(PAYLOAD), time.monotonic()
        while not self.over:
            now = time.monotonic()
            # A sender that did not run for long does not catch up.
            due = max(due, now - 0.05)
            while due <= now:
                try:
                    self.sock.send(payload)
                    self.times.append(time.time())
                except OSError:
                    pass
                due += self.gap
            time.sleep(0.001)

    def mbit(self, since: float, until: float) -> float:
        """Mbit/s of IP packets that were sent between two moments."""
        return mbit_between(self.times, since, until)

    def stop(self) -> None:
        self.over = True
        self.thread.join()
        self.sock.close()
