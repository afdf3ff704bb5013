"""A large table of routes: it comes in, single routes change, it goes, and packets pass meanwhile.

`SAG_ROUTES=1000000,200000` measures a full Internet table.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from harness.full_table import Busy, memory, prefixes, route_count, sizes, way
from harness.lab import Addresses as A
from harness.net import CommandError
from harness.stream import Stream
from harness.waiting import within

COUNT = sizes("80000,20000")
# How many changes are made at a time beside the large table.
FLAPS = 2_000


def ip(lab: Any, family: int, verb: str, nets: list[str], router: str = "") -> None:
    via = f" via {router} proto bgp" if router else ""
    lines = (f"route {verb} {net}{via}" for net in nets)
    lab.gw.run(["ip", f"-{family}", "-batch", "-"], input="\n".join(lines) + "\n")


def test_a_large_table_comes_changes_and_goes(gw: Any, lab: Any, wire: Any, record_property: Any) -> None:
    nets = {family: prefixes(family, COUNT[family]) for family in (4, 6)}
    before, total = route_count(gw), sum(map(len, nets.values()))
    patience = 20 + total / 10_000
    with Stream(lab, wire) as stream, Busy(gw) as busy:
        began = time.monotonic()
        for family, all_nets in nets.items():
            ip(lab, family, "add", all_nets, A.WAN_ROUTER[family])
        within(patience, "all routes are there", lambda: route_count(gw) == before + total, gw.tail)
        took = time.monotonic() - began
        record_property("routes_in_s", took)
        print(f"{total} routes in after {took:.1f} s, {memory(gw.pid())} MB; {busy}")

        # An answer is bounded, and says so.
        assert len(gw.ctl("routes")["routes"]) == 10_000
        with pytest.raises(CommandError, match="the limit is 20000"):
            gw.ctl("routes", "--limit", str(before + total))

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
            within(5, "flaps are over", lambda: route_count(gw) == before + total)
            assert way(gw, some[0].split("/")[0]) == A.POP_LINK[family]

        for family in nets:
            lab.gw.ip(f"-{family} route flush proto bgp")
        within(patience, "all routes are gone", lambda: route_count(gw) == before, gw.tail)
    assert stream.missing() == [], "packets of a flow that no change concerns"
    record_property("control_ms", statistics.median(busy.took))
    print(f"all gone, {memory(gw.pid())} MB; {busy}; {stream.sent} packets sent")
    assert statistics.median(busy.took) < 250, sorted(busy.took)[-10:]
    assert "kernel notifications were lost" not in gw.tail(2000)
