"""Tunnels: into one by XDP beside the gateway without; ESP beside its crypto library."""

import re

from . import stats
from .lab import Bare, Sag
from .measure import Side
from .scenarios import compare, target
from .system import Failed, run

ROUTE = """
[[tunnel]]
name = "bench"
kind = "{kind}"
local = "203.0.113.2"
remote = "203.0.113.1"
{more}
[[route]]
destination = "198.51.100.0/24"
tunnel = "bench"
"""
KINDS = {"VXLAN": ("vxlan", "vni = 77"), "GRE": ("gre", ""), "IPIP": ("ipip", "")}
WITHOUT = "sag-vcpe, no tunnel"
# Into the sink goes whatever leaves the gateway: the frames are known by their number alone.
ANY = ("--any",)


def side(make, place, name):
    """A gateway whose route leads into a tunnel, looked at once: what leaves it are the tunnel's packets."""
    kind, more = KINDS[name]
    lab = make(place, Sag(extra=ROUTE.format(kind=kind, more=more)))
    found = lab.generator(10_000, "64", ANY).trial(frames=10_000, order="ascending", window=256, seconds=3)
    if found["received"] < 9_000:
        raise Failed("no frame came out of the tunnel")
    # A sink that knows plain frames alone must see none.
    if lab.generator(10_000).trial(frames=1000)["received"]:
        raise Failed("frames leave as they came, without the tunnel's headers")
    return Side(f"sag-vcpe, {name}", lab, extra=ANY)


def into(bench):
    """The same traffic with and without a tunnel, in turns."""
    with bench.labs() as make:
        sides = [Side("bare redirect", make("t0", Bare()), extra=ANY), Side(WITHOUT, make("t1", Sag()), extra=ANY)]
        for n, name in enumerate(KINDS):
            try:
                sides.append(side(make, f"t{n + 2}", name))
            except Failed as error:
                reason = re.sub(r"\s+", " ", str(error))[-160:]
                bench.missing.append((f"tunnels: {name}", f"not in this build ({reason})"))
        found = compare(
            bench,
            "ethip4vxlan-10kflows",
            sides,
            bench.rounds(9, 21),
            csit="ethip4vxlan-l2xcbase",
            about="Routed into a tunnel: encapsulation in XDP, 64 B inside; beside the gateway with the same route and no tunnel.",
            fresh=3,
        )
        for name in KINDS:
            tunneled = found.get(f"sag-vcpe, {name}")
            if tunneled:
                ratio = stats.ratios(tunneled.rates, found[WITHOUT].rates)
                bench.tables["ethip4vxlan-10kflows"]["rows"][tunneled.name]["of_plain"] = ratio
                bench.progress(f"  {tunneled.name}: {ratio['median']:.3f} of the gateway without a tunnel")
                if name == "VXLAN":
                    broken = bench.tables["ethip4vxlan-10kflows"]["broken"]
                    target(bench, "VXLAN: 0.8 of the gateway without a tunnel", ratio, 0.8, source="#6", broken=broken)


def tunnels(bench):
    bench.step("tunnels")
    into(bench)
    esp = bench.target / "release" / "examples" / "esp"
    if esp.exists():
        bench.step("ipsec: the crypto library alone")
        bench.notes["ethip4ipsec1tnlsw-ip4base-int-aes128gcm"] = run(esp, timeout=300)
    else:
        bench.missing.append(("ethip4ipsec1tnlsw-ip4base-int-aes128gcm", "not in this build (no example esp of sag-benches)"))
