"""A large table of routes: it comes in, single routes change, it goes, and packets pass meanwhile.

`SAG_ROUTES=1000000,200000` measures a full Internet table.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import threading
import time
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from harness.lab import Addresses as A
from harness.stream import Stream
from harness.waiting import within

COUNT = dict(zip((4, 6), map(int, os.environ.get("SAG_ROUTES", "80000,20000").split(",")), strict=True))
# How many changes are made at a time beside the large table.
FLAPS = 2_000


def prefixes(family: int) -> list[str]:
    """As on the Internet: /24 of all of IPv4 that the lab does not use, /48 of 2a00::/12."""
    dice = random.Random(family)
    if family == 4:
        nets = dice.sample(range(0x010000, 0xBF0000), COUNT[4])
        return [f"{IPv4Address(n << 8)}/24" for n in nets if not 0x7F0000 <= n < 0x800000]
    return [f"{IPv6Address((0x2A00 << 112) | n << 80)}/48" for n in dice.sample(range(1 << 20), COUNT[6])]


def ip(lab: Any, family: int, verb: str, nets: list[str], router: str = "") -> None:
    via = f" via {router} proto bgp" if router else ""
    lines = (f"route {verb} {net}{via}" for net in nets)
    lab.gw.run(["ip", f"-{family}", "-batch", "-"], input="\n".join(lines) + "\n")


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

    def __str__(self) -> str:
        took = sorted(self.took)
        shares = (took[len(took) * n // 100] for n in (50, 90, 99))
        return "answers within {:.0f}, {:.0f}, {:.0f} ms (50, 90, 99 %)".format(*shares) + f", at worst {took[-1]:.0f}"

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def count(gw: Any) -> int:
    return gw.ctl("routes", "--limit", "1")["total"]


def memory(gw: Any) -> int:
    """Megabytes that the daemon has."""
    with open(f"/proc/{gw.pid()}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def way(gw: Any, to: str) -> str | None:
    """The router by which packets to an address go, of the longest prefix."""
    return gw.ctl("routes", "--limit", "1", to)["routes"][0]["next_hops"][0]["via"]


def test_a_large_table_comes_changes_and_goes(gw: Any, lab: Any, wire: Any, record_property: Any) -> None:
    nets = {family: prefixes(family) for family in (4, 6)}
    before, total = count(gw), sum(map(len, nets.values()))
    patience = 20 + total / 10_000
    with Stream(lab, wire) as stream, Busy(gw) as busy:
        began = time.monotonic()
        for family, all_nets in nets.items():
            ip(lab, family, "add", all_nets, A.WAN_ROUTER[family])
        within(patience, "all routes are there", lambda: count(gw) == before + total, gw.tail)
        took = time.monotonic() - began
        record_property("routes_in_s", took)
        print(f"{total} routes in after {took:.1f} s, {memory(gw)} MB; {busy}")

        # One route moves to another router, beside all the others: at once.
        for family, all_nets in nets.items():
            delays = []
            for turn in range(6):
                router = (A.POP_LINK, A.WAN_ROUTER)[turn % 2][family]
                to = all_nets[turn].split("/")[0]
                ip(lab, family, "replace", [all_nets[turn]], router)
                delays.append(within(1, "a route moves", lambda: way(gw, to) == router))
            print(f"one of IPv{family} moves within {statistics.median(delays) * 1000:.0f} ms, sagctl's included")
            assert statistics.median(delays) < 0.5, delays

        # Many go and come back, more than once.
        for family, all_nets in nets.items():
            some = all_nets[-FLAPS:]
            for _ in range(2):
                ip(lab, family, "del", some)
                ip(lab, family, "add", some, A.POP_LINK[family])
            within(5, "flaps are over", lambda: count(gw) == before + total)
            assert way(gw, some[0].split("/")[0]) == A.POP_LINK[family]

        for family in nets:
            lab.gw.ip(f"-{family} route flush proto bgp")
        within(patience, "all routes are gone", lambda: count(gw) == before, gw.tail)
    assert stream.missing() == [], "packets of a flow that no change concerns"
    record_property("control_ms", statistics.median(busy.took))
    print(f"all gone, {memory(gw)} MB; {busy}; {stream.sent} packets sent")
    assert statistics.median(busy.took) < 250, sorted(busy.took)[-10:]
    assert "kernel notifications were lost" not in gw.tail(2000)
