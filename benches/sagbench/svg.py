"""Plots as SVG, by the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, TOP, BOTTOM = 76, 56, 56
# Of a letter of the legend.
LETTER = 6.6
COLOURS = ["#0b6e99", "#d1495b", "#3d8b37", "#e08e0b", "#6f4e7c", "#4f4f4f", "#a0522d", "#b03a8c"]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most low to at least high."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def label(value: float) -> str:
    """Short: 1500 is 1.5k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


class Axis:
    """From values to places; logarithmic or linear, or names in their order."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool = False, names: list[str] | None = None) -> None:
        self.start, self.end, self.log, self.names = start, end, log, names
        if names is not None:
            self.low, self.high = -0.5, len(names) - 0.5
            self.ticks = list(range(len(names)))
        elif log:
            positive = [v for v in values if v > 0] or [1]
            self.low, self.high = math.log10(min(positive)), math.log10(max(positive))
            if self.high - self.low < 1:
                self.low, self.high = math.floor(self.low), math.floor(self.low) + max(1, math.ceil(self.high - math.floor(self.low)))
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            # Few decades have room for more than their powers of ten.
            steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
            ticks = [step * 10.0**n for n in decades for step in steps]
            self.ticks = [t for t in ticks if self.low - 1e-9 <= math.log10(t) <= self.high + 1e-9]
        else:
            self.ticks = nice_ticks(min([0, *values]), max([0, *values]))
            self.low, self.high = self.ticks[0], self.ticks[-1]

    def place(self, value: float) -> float:
        if self.log:
            value = math.log10(max(value, 10**self.low))
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def text(self, tick: Any) -> str:
        return str(self.names[tick]) if self.names is not None else label(tick)


def plot(title: str, x_title: str, y_title: str, series: list[tuple[str, list[tuple[Any, ...]]]], x_log: bool = False, y_log: bool = False, x_names: list[str] | None = None, note: str = "") -> str:
    """`series`: (name, [(x, y), …]) each, or (x, y, low, high) with what lies between the quartiles; with x_names, x is a
    place in that list."""
    series = [(n, [p for p in pts if p[1] is not None]) for n, pts in series]
    series = [(n, pts) for n, pts in series if pts]
    xs = [p[0] for _, pts in series for p in pts] or [0, 1]
    ys = [y for _, pts in series for p in pts for y in p[1:]] or [0, 1]
    right = WIDTH - int(44 + LETTER * max((len(n) for n, _ in series), default=0))
    x_axis = Axis(xs, LEFT, right, x_log, x_names)
    y_axis = Axis(ys, HEIGHT - BOTTOM, TOP, y_log)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(y_axis.text(tick))}</text>')
    for tick in x_axis.ticks:
        x = x_axis.place(tick)
        out.append(f'<line x1="{x:.1f}" y1="{HEIGHT - BOTTOM}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM + 4}" stroke="#333333"/>')
        out.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(x_axis.text(tick))}</text>'
        )
    out.append(
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{right}" fill="none" stroke="#333333"/>'
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 16}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    for n, (name, points) in enumerate(series):
        colour = COLOURS[n % len(COLOURS)]
        places = [(x_axis.place(p[0]), y_axis.place(p[1])) for p in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        # Every other line is dashed, so that one below it is seen.
        dash = ' stroke-dasharray="7 4"' if n % 2 else ""
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for (x, _), p in zip(places, points):
            if len(p) == 4:
                low, high = y_axis.place(p[2]), y_axis.place(p[3])
                out.append(f'<path d="M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        y = TOP + 8 + 18 * n
        out.append(f'<path d="M{right + 12} {y - 4}h14" stroke="{colour}" stroke-width="3"{dash}/>')
        out.append(f'<text x="{right + 30}" y="{y}">{escape(name)}</text>')
    if note:
        out.append(f'<text x="{LEFT}" y="40" fill="#666666" font-size="11">{escape(note)}</text>')
    return "\n".join([*out, "</svg>", ""])
