"""A BGP neighbor with a large table: it comes, the session flaps, the table moves, and packets pass meanwhile.

`SAG_ROUTES=1000000,200000` measures a full Internet table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.full_table import Busy, memory, prefixes, route_count, sizes, way
from harness.lab import Addresses as A
from harness.routers import BirdDaemon, FrrDaemons
from harness.stream import Stream

pytestmark = pytest.mark.sag

COUNT = sizes("20000,4000")
FLAPS = 3
TOTAL = sum(COUNT.values())
# Seconds within which a table comes or goes, on a machine that has other work.
PATIENCE = 30 + TOTAL / 2_000


def bird_text(folder: Any, ns: Any) -> str:
    """Who announces a table by IPv4 and by IPv6, by a session each."""
    text = "router id 198.51.100.1;\nlog stderr all;\nprotocol device { scan time 10; }\n"
    for family in (4, 6):
        table = folder / f"{ns.name}-{family}.conf"
        table.write_text("".join(f"route {net} blackhole;\n" for net in prefixes(family, COUNT[family])))
        text += (
            f'protocol static table{family} {{\n  ipv{family};\n  include "{table}";\n}}\n'
            f"protocol bgp bgp{family} {{ local {A.WAN_ROUTER[family]} as 65002; neighbor {A.GW_WAN[family]} as 65001; "
            f"connect delay time 1; error wait time 1, 2; hold time 180; "
            f"ipv{family} {{ import none; export all; next hop self; }}; }}\n"
        )
    return text


def frr_configs() -> dict[str, str]:
    bgp = "router bgp 65001\n bgp router-id 198.51.100.2\n no bgp ebgp-requires-policy\n timers bgp 60 180\n"
    for family in (4, 6):
        address = A.WAN_ROUTER[family]
        bgp += f" neighbor {address} remote-as 65002\n neighbor {address} timers connect 1\n"
        bgp += f" address-family ipv{family} unicast\n  neighbor {address} activate\n exit-address-family\n"
    bgp += " address-family ipv4 unicast\n  no neighbor 2001:db8:100::1 activate\n exit-address-family\n"
    return {"zebra": "hostname test\n", "bgpd": bgp}


def until(gw: Any, lab: Any, what: str, wanted: int, alive: Callable[[], str]) -> float:
    """Waits until the workers have so many routes; returns the seconds from the first change to the last one."""
    before, first = route_count(gw), None
    end = time.monotonic() + PATIENCE
    while (now := route_count(gw)) != wanted:
        if first is None and now != before:
            first = time.monotonic()
        if time.monotonic() > end:
            kernel = [lab.gw.out(["sh", "-c", f"ip -{f} route show proto bgp | wc -l"]).strip() for f in (4, 6)]
            raise AssertionError(f"{what}: {now} of {wanted} routes, {kernel} in the kernel\n{gw.tail()}\n{alive()}")
        time.sleep(0.05)
    return time.monotonic() - (first or time.monotonic())


def test_a_neighbor_with_a_large_table(gw: Any, lab: Any, wire: Any, daemons: Any, record_property: Any) -> None:
    total = sum(len(prefixes(family, COUNT[family])) for family in (4, 6))
    before = route_count(gw)
    with Stream(lab, wire) as stream, Busy(gw) as busy:
        frr = FrrDaemons(daemons, lab.gw, frr_configs())
        zebra, bgpd = (p.pid for p in daemons.processes)
        bird = BirdDaemon(daemons, lab.wan, bird_text(daemons.folder, lab.wan))
        took = until(gw, lab, "the table comes", before + total, daemons.tail)
        sizes_now = lambda: {name: memory(pid) for name, pid in (("sag-vcpe", gw.pid()), ("zebra", zebra), ("bgpd", bgpd))}
        record_property("converged_in_s", took)
        print(f"\n{total} routes in {took:.1f} s from the first to the last; MB: {sizes_now()}; {busy}")
        for family in (4, 6):
            some = prefixes(family, COUNT[family])[7].split("/")[0]
            shown = json.loads(lab.gw.out(["ip", f"-{family}", "-j", "route", "get", some]))[0]
            print(f"IPv{family} by", {k: shown[k] for k in ("gateway", "via", "nhid") if k in shown})
            assert way(gw, some) in (A.WAN_ROUTER[family], shown.get("gateway"))
        grown = []
        for _ in range(FLAPS):
            for family in (4, 6):
                bird.ctl("disable", f"bgp{family}")
            gone = until(gw, lab, "the sessions end", before, daemons.tail)
            for family in (4, 6):
                bird.ctl("enable", f"bgp{family}")
            back = until(gw, lab, "the table comes back", before + total, daemons.tail)
            grown.append(sizes_now())
            print(f"gone in {gone:.1f} s, back in {back:.1f} s; MB: {grown[-1]}; {busy}")
        assert frr.vtysh("bgpd", "show bgp summary").count("65002") == 2
    assert stream.missing() == [], f"of {stream.sent} packets of a flow that no change concerns"
    first, last = grown[0]["sag-vcpe"], grown[-1]["sag-vcpe"]
    assert last <= first * 1.1 + 8, f"memory is not flat: {grown}"
    record_property("control_ms", busy.share(50))
    print(f"{stream.sent} packets sent, none lost; lost announcements: {gw.tail(2000).count('notifications were lost')}")
