"""Tunnels: into one by XDP beside the gateway without; ESP beside its crypto library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
KINDS = {"VXLAN": ("vxlan", 'vni = 77\nremote_mac = "02:00:00:00:00:4d"'), "GRE": ("gre", ""), "IPIP": ("ipip", "")}
TABLE = "ethip4vxlan-10kflows"
WITHOUT = "sag-vcpe, no tunnel"
# Into the sink goes whatever leaves the gateway: the frames are known by their number alone.
ANY = ("--any",)


def look(lab: Lab) -> None:
    """What leaves the gateway are the tunnel's packets."""
    found = lab.generator(10_000, "64", ANY).trial(frames=10_000, order="ascending", window=256, seconds=3)
    if found["received"] < 9_000:
        raise Failed("no frame came out of the tunnel")
    # A sink that knows plain frames alone must see none.
    if lab.generator(10_000).trial(frames=1000)["received"]:
        raise Failed("frames leave as they came, without the tunnel's headers")


def into(bench: Bench) -> None:
    """The same traffic with and without a tunnel, in turns."""
    with bench.labs() as make:
        sides = [Side("bare redirect", make("t0", Bare()), extra=ANY), Side(WITHOUT, make("t1", Sag()), extra=ANY)]
        for name, (kind, more) in KINDS.items():
            try:
                lab = make(f"t-{kind}", Sag(extra=ROUTE.format(kind=kind, more=more)))
                look(lab)
                sides.append(Side(f"sag-vcpe, {name}", lab, extra=ANY))
            except Failed as error:
                reason = re.sub(r"\s+", " ", str(error))[-160:]
                bench.missing.append((f"tunnels: {name}", f"not in this build ({reason})"))
        found = compare(
            bench,
            TABLE,
            sides,
            bench.rounds(9, 41),
            fresh=3,
            csit="ethip4vxlan-l2xcbase",
            about="Routed into a tunnel: encapsulation in XDP, 64 B inside; beside a gateway without tunnel.",
        )
        table = bench.tables[TABLE]
        for name in [f"sag-vcpe, {kind}" for kind in KINDS if f"sag-vcpe, {kind}" in found]:
            ratio = stats.ratios(found[name].rates, found[WITHOUT].rates)
            table["rows"][name]["of_plain"] = ratio
            bench.progress(f"  {name}: {ratio['median']:.3f} of the gateway without a tunnel")
            if name == "sag-vcpe, VXLAN":
                target(bench, "VXLAN: 0.8 of the gateway without a tunnel", ratio, 0.8, source="#6", broken=table["broken"])


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
            target(bench, f"ESP AES-128-GCM, 1,400 bytes, {what}: 0.8 of the crypto library", measured, 0.8, source="#6")
    text = example(bench, "overlay", bench.rounds(9, 101))
    if text:
        bench.notes["Whole chain into ESP, in memory, one core (anchor: 5 Gbit/s a core by Snabb Vita)"] = text


def tunnels(bench: Bench) -> None:
    bench.step("tunnels")
    into(bench)
    esp(bench)
