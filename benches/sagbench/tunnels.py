"""Tunnels: into one and out of one by XDP beside the gateway without; ESP beside its crypto library."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import stats
from .alone import example
from .lab import Bare, Sag
from .measure import Side
from .rows import target
from .scenarios import compare
from .system import Failed

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab

ROUTE = """
[[tunnel]]
name = "bench"
kind = "{kind}"
local = "203.0.113.2"
remote = "203.0.113.1"
probe_interval = 0
{more}
[[route]]
destination = "198.51.100.0/24"
tunnel = "bench"
"""
# The far end says nothing: its Ethernet address is told, not learned.
VXLAN = """vni = 77
mac = "02:00:00:00:00:4c"
remote_mac = "02:00:00:00:00:4d"
"""
KINDS = {"VXLAN": ("vxlan", VXLAN), "GRE": ("gre", ""), "IPIP": ("ipip", "")}
INTO, OUT_OF = "ethip4vxlan-10kflows", "ethip4vxlan-out-10kflows"
WITHOUT = "sag-vcpe, no tunnel"
# Into the sink goes whatever leaves the gateway: the frames are known by their number alone.
ANY = ("--any",)
LIMIT = 0.9


def look(lab: Lab) -> None:
    """What leaves the gateway are the tunnel's packets."""
    found = lab.generator(10_000, "64", ANY).trial(frames=10_000, order="ascending", window=256, seconds=3)
    if found["received"] < 9_000:
        raise Failed("no frame came out of the tunnel")
    # A sink that knows plain frames alone must see none.
    if lab.generator(10_000).trial(frames=1000)["received"]:
        raise Failed("frames leave as they came, without the tunnel's headers")


def in_tunnels(make: Callable[[str, Any], Lab], bench: Bench, name: str, wanted: Callable[[str], tuple[str, ...]], check: Callable[[Lab], None] | None) -> list[Side]:
    """A gateway for each kind of tunnel, under the traffic that `wanted` says for it."""
    sides = []
    for kind, (word, more) in KINDS.items():
        try:
            lab = make(f"{name}-{word}", Sag(extra=ROUTE.format(kind=word, more=more)))
            if check:
                check(lab)
            sides.append(Side(f"sag-vcpe, {kind}", lab, extra=wanted(word)))
        except Failed as error:
            reason = re.sub(r"\s+", " ", str(error))[-160:]
            bench.missing.append((f"tunnels: {kind}", f"not in this build ({reason})"))
    return sides


def of_plain(bench: Bench, scenario: str, found: dict[str, Side], text: str) -> None:
    """Rows and targets: the share of the same gateway without a tunnel."""
    table = bench.tables[scenario]
    for kind in KINDS:
        name = f"sag-vcpe, {kind}"
        if name not in found:
            continue
        ratio = stats.ratios(found[name].rates, found[WITHOUT].rates)
        table["rows"][name]["of_plain"] = ratio
        bench.progress(f"  {name}: {ratio['median']:.3f} of the gateway without a tunnel")
        target(bench, f"{text} {kind}: {LIMIT} of the gateway without a tunnel", ratio, LIMIT, source="#6, #21", broken=table["broken"])


def into(bench: Bench) -> None:
    """The same traffic with and without a tunnel, in turns."""
    with bench.labs() as make:
        sides = [Side("bare redirect", make("t0", Bare()), extra=ANY), Side(WITHOUT, make("t1", Sag()), extra=ANY)]
        sides += in_tunnels(make, bench, "t", lambda _: ANY, look)
        found = compare(
            bench,
            INTO,
            sides,
            bench.rounds(9, 41),
            fresh=3,
            csit="ethip4vxlan-l2xcbase",
            about="Routed into a tunnel: encapsulation in XDP, 64 B inside; beside a gateway without tunnel.",
        )
        of_plain(bench, INTO, found, "into")


def out_of(bench: Bench) -> None:
    """Frames as the far end of a tunnel sends them, and the same without its headers, in turns. The sink takes plain frames
    alone."""
    with bench.labs(back=True) as make:
        vxlan = ("--encap", "vxlan")
        sides = [
            Side("bare redirect", make("o0", Bare())),
            # What it costs to make the longer frames.
            Side("bare redirect, VXLAN frames", make("o1", Bare()), extra=(*vxlan, *ANY)),
            Side(WITHOUT, make("o2", Sag())),
            *in_tunnels(make, bench, "o", lambda word: ("--encap", word), None),
        ]
        found = compare(
            bench,
            OUT_OF,
            sides,
            bench.rounds(9, 41),
            fresh=3,
            about="Out of a tunnel: decapsulation in XDP, 64 B inside; beside a gateway without tunnel. The source writes "
            "the outer headers, too.",
        )
        of_plain(bench, OUT_OF, found, "out of")


def esp(bench: Bench) -> None:
    """In memory: ESP beside its crypto library, and the whole chain into an ESP tunnel."""
    bench.step("ESP: the crypto library alone, the whole chain")
    text = example(bench, "esp", bench.rounds(21, 201))
    if text:
        bench.notes["ethip4ipsec1tnlsw-ip4base-int-aes128gcm"] = text
        row = next(line.split() for line in text.splitlines() if line.startswith("aes-128-gcm") and " 1400 " in line)
        # name bytes library ns esp ns part library ns esp ns part
        for what, part in (("sealed", row[6]), ("opened", row[11])):
            measured = stats.summary([float(part)])
            target(bench, f"ESP AES-128-GCM, 1,400 bytes, {what}: 0.95 of the crypto library", measured, 0.95, source="#21")
    text = example(bench, "overlay", bench.rounds(9, 101))
    if text:
        bench.notes["Whole chain into ESP, in memory, one core (anchor: 5 Gbit/s a core by Snabb Vita)"] = text


def fec(bench: Bench) -> None:
    """In memory: the code of forward error correction alone."""
    bench.step("forward error correction, the code alone")
    text = example(bench, "fec", bench.rounds(21, 201))
    if not text:
        return
    bench.notes["Forward error correction, in memory, one core"] = text
    # code case ns Gbit/s
    found = {tuple(row[:2]): float(row[3]) for row in map(str.split, text.splitlines()) if len(row) == 4}
    for case, what in (("encode", "encoded"), ("decode,-4-lost", "decoded with 4 of 20 lost")):
        measured = stats.summary([found["20+4", case]])
        target(bench, f"error correction 20 + 4, 1,400 bytes, {what}: 5 Gbit/s a core", measured, 5, source="#21", unit="Gbit/s")


def tunnels(bench: Bench) -> None:
    bench.step("tunnels")
    into(bench)
    out_of(bench)
    esp(bench)
    fec(bench)
