"""A large table of routes, and what the gateway does while it comes and goes."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address
from typing import Any


def sizes(default: str) -> dict[int, int]:
    """How many routes of each family: `SAG_ROUTES=1000000,200000` is a full Internet table."""
    return dict(zip((4, 6), map(int, os.environ.get("SAG_ROUTES", default).split(",")), strict=True))


def prefixes(family: int, count: int) -> list[str]:
    """As on the Internet: /24 of all of IPv4 that the lab does not use, /48 of 2a00::/12."""
    dice = random.Random(family)
    if family == 4:
        nets = dice.sample(range(0x010000, 0xBF0000), count)
        return [f"{IPv4Address(n << 8)}/24" for n in nets if not 0x7F0000 <= n < 0x800000]
    return [f"{IPv6Address((0x2A00 << 112) | n << 80)}/48" for n in dice.sample(range(1 << 20), count)]


class Busy:
    """Measures how long the control socket takes to answer, in milliseconds."""

    def __init__(self, gw: Any) -> None:
        self.took: list[float] = []
        self._socket = gw.lab.socket
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self._socket)
            answers = s.makefile("rb")
            while not self._over.wait(0.02):
                began = time.monotonic()
                s.sendall(b'{"v":1,"id":1,"op":"ports"}\n')
                assert b'"ok"' in answers.readline()
                self.took.append((time.monotonic() - began) * 1000)

    def share(self, percent: int) -> float:
        took = sorted(self.took)
        return took[len(took) * percent // 100]

    def __str__(self) -> str:
        shares = (self.share(n) for n in (50, 90, 99))
        return "answers within {:.0f}, {:.0f}, {:.0f} ms (50, 90, 99 %)".format(*shares) + f", at worst {max(self.took):.0f}"

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def route_count(gw: Any) -> int:
    return gw.ctl("routes", "--limit", "1")["total"]


def memory(pid: int) -> int:
    """Megabytes that a process has."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def way(gw: Any, to: str) -> str | None:
    """The router by which packets to an address go, of the longest prefix."""
    return gw.ctl("routes", "--limit", "1", to)["routes"][0]["next_hops"][0]["via"]
