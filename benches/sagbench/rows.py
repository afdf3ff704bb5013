"""Rows of the report: targets with their verdicts, and tables of figures other than packet rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import stats

if TYPE_CHECKING:
    from .__main__ import Bench


def target(
    bench: Bench,
    text: str,
    measured: dict[str, Any] | None,
    limit: float,
    at_least: bool = True,
    source: str = "",
    broken: Sequence[str] = (),
    unit: str = "",
) -> None:
    """A row of the verdict table. `measured` is a summary (stats.summary, stats.ratios), None where it could not be measured."""
    bench.targets.append(
        {
            "target": text,
            "scenario": bench.scenario,
            "source": source,
            "limit": limit,
            "unit": unit,
            "at_least": at_least,
            "measured": measured,
            "verdict": "broken measurement" if broken else stats.verdict(measured, limit, at_least),
        }
    )


def figures(bench: Bench, title: str, about: str, columns: Sequence[str], rows: dict[str, Sequence[Any]], broken: Sequence[str] = ()) -> None:
    """A table of figures. A cell is a summary, shown as median and quartiles, a number, a text, or None."""
    for name, cells in rows.items():
        if len(cells) != len(columns):
            raise ValueError(f"{title}, {name}: {len(cells)} cells in {len(columns)} columns")
    bench.figures[title] = {"scenario": bench.scenario, "about": about, "columns": list(columns), "rows": {n: list(c) for n, c in rows.items()}, "broken": list(broken)}
    for line in broken:
        bench.warn(f"broken measurement: {line}")


def samples(values: Sequence[float]) -> dict[str, Any] | None:
    """A summary, or None of nothing."""
    return stats.summary(values) if values else None


__all__ = ["figures", "samples", "target"]
