#!/usr/bin/python3
"""Draws docs/images/peers.svg, the plot of the README, from the figures in docs/performance.md.

The figures are those of the table in "What memory alone costs": the gateway, a bare XDP redirect with and without
memory accesses, and Linux with the same policy in nftables, on two machines, a value for each run. Linux's share is
the gateway's share divided by "times Linux" of the same run.

usage: benches/peers_plot.py [--check]
With --check nothing is written; the exit code is 1 if the plot is not the one that the figures give.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "peers.svg"
HEADING = "## What memory alone costs"

# Beginning of the row's name in the table, text in the plot, class of its colour.
ROWS = [
    ("one line a flow", "redirect + 1 memory access", "peer"),
    ("two lines", "redirect + 2 memory accesses", "peer"),
    ("sag-vcpe", "sag-vcpe, the whole chain", "ours"),
    ("the same, times Linux", "Linux, nftables + SNAT", "linux"),
]
STYLE = """
    svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px }
    .page { fill: #ffffff } text { fill: #1f2933 } .dim { fill: #5b6773 } .small { font-size: 11.5px }
    .title { font-size: 15px; font-weight: 600 } .head { font-weight: 600 } .grid { stroke: #e4e7eb } .one { stroke: #9aa5b1 }
    .bare { fill: #9aa5b1; stroke: #52606d } .peer { fill: #8fa9c4; stroke: #4a6785 }
    .ours { fill: #2680c2; stroke: #14507c } .linux { fill: #e0a458; stroke: #9c6316 }
    .bar { stroke: none; opacity: 0.55 } .run { stroke-width: 1; fill-opacity: 0.9 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0f1419 } text { fill: #e4e7eb } .dim { fill: #9aa5b1 } .grid { stroke: #27313b } .one { stroke: #616e7c }
      .bare { stroke: #cbd2d9 } .peer { stroke: #b9cde2 } .ours { fill: #4aa3df; stroke: #a6d5f7 } .linux { stroke: #f3cf9b }
    }
"""


def numbers(cell: str) -> list[float]:
    return [float(x) for x in re.findall(r"\d+(?:\.\d+)?", cell)]


def table(text: str) -> tuple[list[str], dict[str, list[list[float]]]]:
    """The names of the columns, and for each row of ROWS a list of runs for each column."""
    lines = text[text.index(HEADING) :].split("\n\n## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    # "AMD EPYC (Zen 5), 10,000 flows", "1,000,000 flows": a column without a machine is its neighbour's machine.
    columns: list[str] = []
    for name in cells[0][1:]:
        machine = columns[-1].rsplit(": ", 1)[0] if name[0].isdigit() else name.rsplit(", ", 1)[0]
        columns.append(f"{machine}: {name if name[0].isdigit() else name.rsplit(', ', 1)[1]}")
    rows = {}
    for key, _, _ in ROWS:
        row = next((c for c in cells if c[0].startswith(key)), None)
        if row is None:
            raise SystemExit(f"{SOURCE.name}: no row that begins with “{key}” below “{HEADING}”")
        rows[key] = [numbers(c) for c in row[1:]]
    gateway, linux = (rows[key] for key, _, _ in ROWS[2:])
    rows[ROWS[3][0]] = [
        [share / times for share, times in zip(a, b, strict=True)] for a, b in zip(gateway, linux, strict=True)
    ]
    return columns, rows


def draw(columns: list[str], rows: dict[str, list[list[float]]]) -> str:
    left, right, row_height, panel_gap = 232, 850, 26, 34
    panel_height = row_height * (len(ROWS) + 1)
    height = 78 + len(columns) * (panel_height + panel_gap) + 62

    def x(share: float) -> float:
        return left + (right - left) * share / 1.0

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" width="960" height="{height}" role="img" '
        'aria-labelledby="t">',
        '  <title id="t">Throughput beside a bare XDP redirect and beside Linux with nftables</title>',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="page" width="960" height="{height}" rx="10"/>',
        '  <text class="title" x="24" y="32">How much of a bare XDP redirect is left: longer is better</text>',
        '  <text class="dim small" x="24" y="52">The whole chain is an ACL of 1,000 rules, source NAT, a policer and a '
        "route. Linux has the same policy without the policer.</text>",
    ]
    top = 84
    for n, column in enumerate(columns):
        out.append(f'  <text class="head" x="24" y="{top}">{escape(column)}</text>')
        top += 12
        out += [
            f'  <path class="{"one" if tick == 10 else "grid"}" d="M{x(tick / 10):.1f} {top}v{panel_height}"/>'
            for tick in range(0, 11, 2)
        ]
        for place, (text, css, runs) in enumerate(
            [("bare XDP redirect", "bare", [1.0])] + [(t, c, rows[k][n]) for k, t, c in ROWS]
        ):
            y = top + place * row_height + row_height / 2
            middle = statistics.median(runs)
            weight = ' class="head"' if css == "ours" else ""
            low, high = f"{min(runs):.2f}", f"{max(runs):.2f}"
            spread = low if low == high else f"{low} to {high}"
            out.append(f'  <text{weight} x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
            out.append(
                f'  <rect class="{css} bar" x="{left}" y="{y - 8:.1f}" width="{x(middle) - left:.1f}" height="16" rx="2"/>'
            )
            out += [f'  <circle class="{css} run" cx="{x(run):.1f}" cy="{y:.1f}" r="4"/>' for run in runs]
            at = max(x(max(runs)), x(middle)) + 10
            if len(runs) > 1:
                out.append(f'  <text class="dim small" x="{at:.1f}" y="{y + 4:.1f}">{spread}</text>')
        top += panel_height + panel_gap - 12
    out += [
        f'  <text class="dim small" x="{x(tick / 10):.1f}" y="{top - 6}" text-anchor="middle">{tick / 10:g}</text>'
        for tick in range(0, 11, 2)
    ]
    out += [
        f'  <text class="dim small" x="24" y="{top + 20}">A dot is a run, the bar ends at the median. 64-byte frames on veth '
        "devices; source, gateway and sink share one core of a virtual machine with two,</text>",
        f'  <text class="dim small" x="24" y="{top + 37}">in turns of milliseconds within a run. Figures: docs/performance.md, '
        "“What memory alone costs”. Measure it yourself: scripts/bench.sh.</text>",
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    picture = draw(*table(SOURCE.read_text(encoding="utf-8")))
    if sys.argv[1:]:
        if PLOT.read_text(encoding="utf-8") == picture:
            return 0
        print(f"{PLOT.relative_to(ROOT)} is not what {SOURCE.relative_to(ROOT)} says: run benches/peers_plot.py")
        return 1
    PLOT.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
