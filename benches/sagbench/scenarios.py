"""What is measured: throughput side by side. Names after FD.io CSIT's suites where one corresponds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import rules as policy
from . import stats
from .lab import OUTSIDE, Bare, Linux, Sag
from .measure import Side, broken, in_turns
from .rows import target
from .system import run

if TYPE_CHECKING:
    from .__main__ import Bench
    from .lab import Lab

MILLION = 1_000_000
SNAT = policy.nft_snat(OUTSIDE)
RULES = policy.uniform(1000)


def short(flows: int) -> str:
    return f"{flows // MILLION}M" if flows >= MILLION else f"{flows // 1000}k" if flows >= 1000 else str(flows)


def compare(bench: Bench, scenario: str, sides: Sequence[Side], rounds: int, base: int | None = 0, seconds: float = 0.12, csit: str | None = None, about: str = "", fresh: int = 0) -> dict[Any, Any]:
    """Runs the sides in turns and keeps a table of them; `base` is the limit."""
    bench.step(f"{scenario}: {', '.join(s.name for s in sides)}")
    broken = in_turns(sides, rounds, bench.progress, seconds, fresh)
    table = {
        "scenario": scenario,
        "csit": csit,
        "about": about,
        "base": sides[base].name if base is not None else None,
        "rows": {s.name: s.result(sides[base] if base is not None else None) for s in sides},
        "broken": broken,
    }
    bench.tables[scenario] = table
    for line in broken:
        bench.warn(f"broken measurement: {line}")
    for name, row in table["rows"].items():
        share = f"  {row['of_limit']['median']:.3f} of {table['base']}" if "of_limit" in row else ""
        bench.progress(f"  {name:<34} {row['rate_pps']['median'] / 1e6:7.3f} Mpps{share}")
    return {s.name: s for s in sides}


# What a gateway is between: the redirect, and a line of memory of each flow, or two of which the first names the second.
LOOKS = {1: "bare redirect, 1 line a flow", 2: "bare redirect, 2 lines a flow"}


MARKED = "Linux, nft ct mark + SNAT"
CHAIN = "Linux, nft chain"


def least(make: Callable[[str, Any], Lab], flows: int) -> list[tuple[str, Lab]]:
    return [(name, make(f"l{looks}-{short(flows)}", Bare(looks, flows))) for looks, name in LOOKS.items()]


def chain_sag(**more: Any) -> Sag:
    return Sag(rules=RULES, snat=True, car=True, **more)


def headline(bench: Bench) -> None:
    """The whole chain beside bare redirect and kernel."""
    with bench.labs() as make:
        sides = {
            "bare redirect": Bare(),
            "sag-vcpe": chain_sag(flows=1 << 20),
            "Linux, nft set + SNAT": Linux(policy.nft_set(RULES), SNAT),
            MARKED: Linux(policy.nft_marked(RULES), SNAT),
        }
        if bench.full:
            sides |= {
                "Linux forwarding": Linux(),
                "Linux, nft SNAT": Linux(SNAT),
                "Linux, nft set": Linux(policy.nft_set(RULES)),
                CHAIN: Linux(policy.nft_chain(RULES)),
            }
        labs = [(name, make(f"h{n}", f)) for n, (name, f) in enumerate(sides.items())]
        for flows, kernel, limit in ((10_000, 6, 0.90), (MILLION, 10, 0.70)):
            name = f"chain-{short(flows)}flows"
            # A million connections of conntrack take their time to be made, one rule after the other a minute.
            slow = () if flows < MILLION else (CHAIN,) if bench.full else (CHAIN, MARKED)
            sides = [Side(n, lab, flows) for n, lab in [*labs, *least(make, flows)] if n not in slow]
            found = compare(
                bench,
                name,
                sides,
                bench.rounds(9 if flows < MILLION else 6, 21),
                fresh=3 if flows < MILLION or bench.full else 0,
                csit=f"ethip4udp-ip4base-iacl1ksl-ipolicemark-nat44ed-{short(flows)}flows (no one suite has all)",
                about="ACL of 1,000 rules, source NAT, CAR, route; 64 B; source, gateway and sink on one core. "
                "Linux has no policer here, which is to its advantage.",
            )
            broken = bench.tables[name]["broken"]
            sag = found["sag-vcpe"]
            linux = found["Linux, nft set + SNAT"].rates
            ratio = stats.ratios(sag.rates, linux)
            for other in ("bare redirect", *LOOKS.values(), "sag-vcpe"):
                bench.tables[name]["rows"][other]["of_kernel"] = stats.ratios(found[other].rates, linux)
            target(bench, f"whole chain, {short(flows)} flows: {kernel} × Linux with nft set + SNAT", ratio, kernel, source="#4, #9", broken=broken)
            target(
                bench,
                f"whole chain, {short(flows)} flows: {limit} of the bare redirect",
                stats.ratios(sag.rates, found["bare redirect"].rates),
                limit,
                source="#21",
                broken=broken,
            )
            target(bench, f"whole chain, {short(flows)} flows: frames lost", stats.summary([sag.lost]), 0, False, "#4")
            bench.point("flows", "bare redirect, chain", flows, found["bare redirect"].rates)
            for other in (*LOOKS.values(), "sag-vcpe", "Linux, nft set + SNAT"):
                bench.point("flows", f"{other}, chain" if other == "sag-vcpe" else other, flows, found[other].rates)


def acl(bench: Bench) -> None:
    """Throughput by number of rules."""
    counts = (0, 100, 1000, 10_000) if bench.full else (0, 1000, 10_000)
    with bench.labs() as make:
        sag = [
            Side(f"sag-vcpe, {short(n)} rules", make(f"a{short(n)}", Sag(rules=policy.uniform(n))), renews=n <= 10_000)
            for n in (*counts, 100_000)
        ]
        bare = Side("bare redirect", make("a-bare", Bare()))
        found = compare(
            bench,
            "iacl-10kflows",
            [bare, *sag],
            bench.rounds(6, 41),
            fresh=3,
            csit="ethip4udp-ip4base-iacl{n}sf-10kflows",
            about="ACL alone, rules of one shape, stateful; 10,000 flows.",
        )
        none, many = found["sag-vcpe, 0 rules"], found["sag-vcpe, 10k rules"]
        target(
            bench,
            "ACL of 10,000 rules: within 3 % of none",
            stats.ratios(many.rates, none.rates),
            0.97,
            source="#4, #9",
            broken=bench.tables["iacl-10kflows"]["broken"],
        )
        for n in (*counts, 100_000):
            bench.point("rules", "sag-vcpe", max(n, 1), found[f"sag-vcpe, {short(n)} rules"].rates)
            bench.point("rules", "bare redirect", max(n, 1), bare.rates)
    with bench.labs() as make:
        sides = [Side("bare redirect", make("k-bare", Bare()))]
        chains = (1, 100, 1000) if bench.full else (100, 1000)
        sets = (100, 1000, 10_000) if bench.full else (1000, 10_000)
        sides += [Side(f"Linux, nft chain, {short(n)} rules", make(f"c{n}", Linux(policy.nft_chain(policy.uniform(n))))) for n in chains]
        sides += [Side(f"Linux, nft set, {short(n)} rules", make(f"s{n}", Linux(policy.nft_set(policy.uniform(n))))) for n in sets]
        found = compare(bench, "iacl-10kflows-linux", sides, bench.rounds(3, 15), about="The same rules in nftables, every packet.")
        for kind, ns in (("chain", chains), ("set", sets)):
            for n in ns:
                bench.point("rules", f"Linux, nft {kind}", n, found[f"Linux, nft {kind}, {short(n)} rules"].rates)


def classbench(bench: Bench) -> None:
    """Rule sets in the style of ClassBench's families, by seed."""
    counts = (1000, 10_000) if bench.full else (1000,)
    with bench.labs() as make:
        sides = [Side("bare redirect", make("cb-bare", Bare()))]
        for family in ("acl", "fw", "ipc"):
            for n in counts:
                text = run(bench.pktgen, "rules", "--family", family, "--count", n, "--seed", bench.seed)
                rules = [json.loads(line) for line in text.splitlines()]
                sides.append(Side(f"sag-vcpe, {family}{short(n)}", make(f"{family}{n}", Sag(rules=rules))))
                if n == 1000 and (bench.full or family == "acl"):
                    sides.append(Side(f"Linux, nft chain, {family}{short(n)}", make(f"n{family}{n}", Linux(policy.nft_chain(rules)))))
        compare(
            bench,
            "iacl-classbench-10kflows",
            sides,
            bench.rounds(3, 21),
            about=f"Rule sets like ClassBench's seeds acl, fw, ipc; seed {bench.seed}; rules that may match the traffic accept.",
        )


def forwarding(bench: Bench) -> None:
    with bench.labs() as make:
        sides = [Side("bare redirect", make("f0", Bare())), Side("sag-vcpe", make("f1", Sag())), Side("Linux forwarding", make("f2", Linux()))]
        compare(bench, "ip4base-10kflows", sides, bench.rounds(5, 21), csit="ethip4-ip4base", about="Route alone.")
        meter(bench, [sides[1].lab, make("f3", Sag())])


def meter(bench: Bench, labs: Sequence[Lab]) -> None:
    """Two gateways, of which one has a CAR, in turns: so where their tables lie in memory makes no difference."""
    bare, car = "sag-vcpe, no CAR", "sag-vcpe, CAR"
    bench.step(f"ipolicemark-10kflows: {bare}, {car}")
    places = [Side(name, lab) for name, lab in zip((bare, car), labs)]
    rounds = {bare: [], car: []}
    for n in range(2 * bench.rounds(4, 20)):
        bench.progress(f"round {n + 1}")
        for k, side in enumerate(places):
            side.lab.forwarder.apply(car=n % 2 == k)
            side.revalidate()
        in_turns(places, 1, lambda text: None, establish=False)
        with_car = n % 2
        rounds[car].append(places[with_car].rates[-1])
        rounds[bare].append(places[1 - with_car].rates[-1])
    # Two rounds with exchanged roles are one.
    mean = {name: [math.sqrt(a * b) for a, b in zip(rates[::2], rates[1::2])] for name, rates in rounds.items()}
    ratio = stats.ratios(mean[car], mean[bare])
    lines = broken(places)
    rows = {
        name: {"rate_pps": stats.summary(mean[name]), "sent": side.sent, "lost": side.lost, "slow_path": side.slow}
        for name, side in zip((bare, car), places)
    }
    rows[car]["of_limit"] = ratio
    bench.tables["ipolicemark-10kflows"] = {
        "scenario": "ipolicemark-10kflows",
        "csit": "ethip4-ip4base-ipolicemarkbase",
        "about": "A CAR that all traffic conforms to, beside the same gateway without; two gateways take turns at having it.",
        "base": bare,
        "rows": rows,
        "broken": lines,
    }
    bench.progress(f"  {car}: {ratio['median']:.3f} of {bare}")
    target(bench, "one meter: 0.9 of the gateway without", ratio, 0.90, source="#5", broken=lines)


def nat(bench: Bench) -> None:
    with bench.labs() as make:
        labs = {
            "bare redirect": make("n0", Bare()),
            "sag-vcpe, SNAT": make("n1", Sag(snat=True, flows=1 << 20)),
            "Linux, nft SNAT": make("n2", Linux(SNAT)),
        }
        for flows in (1, 10_000, 100_000, MILLION) if bench.full else (1, 100_000):
            found = compare(
                bench,
                f"nat44ed-{short(flows)}flows",
                [Side(n, lab, flows) for n, lab in labs.items()],
                bench.rounds(3, 15),
                csit="ethip4udp-nat44ed-h…-p63-s…-udir",
                about="Source NAT to one address; 50,000 inside endpoints at most, then several remotes each.",
            )
            for name, side in found.items():
                bench.point("flows", name if name != "bare redirect" else "bare redirect, NAT", flows, side.rates)


def sizes(bench: Bench) -> None:
    """Frame sizes, IPv4 and IPv6."""
    for ip6 in (False, True):
        with bench.labs(ip6=ip6) as make:
            version = "6" if ip6 else "4"
            table = policy.nft_set(RULES) if not ip6 else None
            labs = {
                "bare redirect": make(f"z{version}0", Bare()),
                "sag-vcpe": make(f"z{version}1", Sag(car=True, flows=1 << 20) if ip6 else chain_sag(flows=65_536)),
                "Linux": make(f"z{version}2", Linux(*([table, SNAT] if table else []))),
            }
            chosen = ("64", "256", "512", "1500", "imix") if bench.full or not ip6 else ("64", "1500")
            for size in chosen:
                found = compare(
                    bench,
                    f"ip{version}-{size if size == 'imix' else size + 'B'}",
                    [Side(n, lab, 10_000, size) for n, lab in labs.items()],
                    bench.rounds(3, 11),
                    seconds=0.08,
                    csit=f"{size if size == 'imix' else size + 'b'}-…-ethip{version}-ip{version}base",
                    about="Route and CAR; Linux: route." if ip6 else "Whole chain; Linux: nft set + SNAT.",
                )
                if size != "imix":
                    for name, side in found.items():
                        bench.point("size", f"{name}, IPv{version}", int(size), side.rates)
