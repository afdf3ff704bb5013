"""What the report says before its first figure: machine, method, and what is not comparable."""

from __future__ import annotations

from typing import Any

METHOD = (
    "**Topology**: source ═ lan [gateway] wan ═ sink, two veth pairs in three network namespaces for each gateway; devices, offloads (off, GRO on) "
    "and queues (one; two in *cores*) are the same for all.",
    "**One core** carries source, gateway and sink where nothing else is said: the source (XDP live frames, 64 at a time) waits for the gateway, so nothing "
    "overruns, a lost frame makes a measurement invalid, and the rate is what the gateway leaves of the core. Daemons have the other core.",
    "**In turns**: gateways of a comparison are measured A B C A B C … in nine slices of milliseconds; the median slice is the round's. A ratio is of the "
    "same round. Tables and targets have medians of the rounds, quartiles in parentheses, the number of rounds as *n*; every round is in `report.json` (`samples`).",
    "**Traffic**: UDP in one direction, established before it counts, flows in steps of 7,919, so that none comes again soon; 64-byte frames with FCS where no size is said.",
    "**Verdicts** go by the median; *noise too large* where the limit lies between the quartiles and these are more than 5 % of the median apart. "
    "Nothing measured is left out: an invalid measurement is shown as broken.",
)
NOT_COMPARABLE = (
    "**Packet rates with those of other machines, or of NICs.** veth has no bus, no DMA, no descriptor rings; the rate includes source and sink. What carries over is the "
    "difference of *ns a frame* to the bare redirect (docs/benchmarks.md, *On real NICs*).",
    "**Shares of the bare redirect with shares of another program's**: source and sink are in both, so a share flatters who is slow; compare nanoseconds.",
    "**Linux** has no policer in its rows, which is to its advantage, and looks at its rules for every packet where no connection mark is named. Its frames "
    "become socket buffers, which on veth cost more than on a NIC with a page pool, and segmentation offloads are off: for TCP between hosts they decide.",
    "**testpmd** has no state and no policy; **librte_acl**, **ESP**, **overlay** and the *in memory* rows have no devices: frames are in the cache, batches full.",
    "**Rows of new flows** count the generator's core and the worker's together; Linux does all of it on the generator's.",
    "**Latencies** are those of a virtual machine where one is named below: the host's pauses are in the 99.9th percentile of every side.",
    "**Peers that are not here** are under *Not measured*, with the reason.",
)


def bullets(title: str, lines: tuple[str, ...]) -> list[str]:
    return [f"## {title}", "", *(f"- {line}" for line in lines), ""]


def machine(m: dict[str, Any]) -> list[str]:
    lines = ["## Machine", "", "| | |", "|---|---|"]
    for key, value in m.items():
        if isinstance(value, dict):
            value = "; ".join(f"{k}: {v}" for k, v in value.items()) or "none"
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        if value is not None:
            lines.append(f"| {key.replace('_', ' ')} | {value} |")
    return [*lines, ""]


def front(data: dict[str, Any]) -> list[str]:
    """Title to the first figure."""
    command = " ".join(["scripts/bench.sh", *data["arguments"]])
    return [
        "# sag-vcpe benchmark",
        "",
        f"`{command}` at commit `{data['machine'].get('commit', 'unknown')}`, {data['date']}, {data['seconds']:.0f} s. Raw figures: `report.json`. "
        "What the rows mean, and how each is measured: docs/benchmarks.md.",
        "",
        *machine(data["machine"]),
        *bullets("Method", METHOD),
        *bullets("What is not comparable", NOT_COMPARABLE),
    ]


__all__ = ["front"]
