"""A large table of routes: it comes in, single routes change, it goes, and packets pass meanwhile.

`SAG_ROUTES=1000000,200000` measures a full Internet table.
"""

from __future__ import annotations

import statistics
import time
from ipaddress import ip_network
from typing import Any

import pytest

from harness.config import lab_config
from harness.full_table import Busy, memory, prefixes, route_count, sizes, way
from harness.lab import Addresses as A
from harness.net import CommandError
from harness.stream import Stream
from harness.waiting import within

COUNT = sizes("80000,20000")
# How many changes are made at a time beside the large table.
FLAPS = 2_000


def ip(lab: Any, family: int, verb: str, nets: list[str], router: str = "", metric: int = 0) -> None:
    via = f" via {router} proto bgp" if router else ""
    via += f" metric {metric}" if metric else ""
    lines = (f"route {verb} {net}{via}" for net in nets)
    lab.gw.run(["ip", f"-{family}", "-batch", "-"], input="\n".join(lines) + "\n")


def learned(gw: Any, within_net: str) -> list[Any]:
    """The destinations of learned routes within a network, asked for part by part."""
    found, more = [], []
    while True:
        answer = gw.ctl("routes", "--within", within_net, "--limit", "7001", *more)
        found += [ip_network(r["destination"]) for r in answer["routes"] if r["protocol"] == "bgp"]
        if "next" not in answer:
            return found
        more = ["--after", answer["next"]]


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

        # An answer is bounded, says so, and can be gone on with.
        assert len(gw.ctl("routes")["routes"]) == 10_000
        with pytest.raises(CommandError, match="the limit is 20000"):
            gw.ctl("routes", "--limit", str(before + total))
        for family, all_nets in nets.items():
            within_net = ("0.0.0.0/1", "2a00::/16")[family == 6]
            inside = [ip_network(net) for net in all_nets if ip_network(net).subnet_of(ip_network(within_net))]
            found = learned(gw, within_net)
            assert found == sorted(inside), f"{len(found)} of {len(inside)} in {within_net}"

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


FILE_ROUTE = """
[[route]]
destination = "100.66.0.0/24"
next_hop = "%s"
"""


def test_a_port_and_the_file_change_beside_a_large_table(gw: Any, lab: Any, wire: Any) -> None:
    """Routes by a port that has lost its carrier make room for others, and everybody is answered meanwhile."""
    nets = {family: prefixes(family, COUNT[family] // 2) for family in (4, 6)}
    before, total = route_count(gw), sum(map(len, nets.values()))
    patience = 20 + total / 5_000
    some = {family: [all_nets[n].split("/")[0] for n in (0, len(all_nets) // 2, -1)] for family, all_nets in nets.items()}

    def go_by(routers: dict[int, str]) -> bool:
        return all(way(gw, to) == routers[family] for family, tos in some.items() for to in tos)

    try:
        with Stream(lab, wire) as stream:
            for family, all_nets in nets.items():
                ip(lab, family, "add", all_nets, A.POP_LINK[family], 20)
                ip(lab, family, "add", all_nets, A.WAN_ROUTER[family], 30)
            within(patience, "all routes are there", lambda: route_count(gw) == before + total and go_by(A.POP_LINK), gw.tail)
            for state, routers in (("down", A.WAN_ROUTER), ("up", A.POP_LINK)):
                with Busy(gw) as busy:
                    began = time.monotonic()
                    lab.pop.ip(f"link set gw {state}")
                    within(patience, f"the port is {state}", lambda routers=routers: go_by(routers), gw.tail)
                    print(f"{total} routes by a port that is {state}: {time.monotonic() - began:.1f} s; {busy}")
            with Busy(gw) as busy:
                for router in (A.POP_LINK, A.WAN_ROUTER):
                    gw.reload(lab_config(FILE_ROUTE % router[4]))
                    assert way(gw, "100.66.0.1") == router[4], "a reload that is answered is in force"
                gw.reload(lab_config())
                assert route_count(gw) == before + total
                print(f"routes of the file come, move and go: {busy}")
    finally:
        lab.pop.ip("link set gw up")
        for family in nets:
            lab.gw.ip(f"-{family} route flush proto bgp")
    within(patience, "all routes are gone", lambda: route_count(gw) == before, gw.tail)
    assert stream.missing() == [], "packets of a flow that no change concerns"
