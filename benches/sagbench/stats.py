"""Medians, spreads, ratios of neighbouring runs, verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest; share 0 to 1."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    at = (len(ordered) - 1) * share
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles, extremes, number, and the values themselves, so that a reader can compute anew."""
    return {
        "median": statistics.median(values),
        "q25": quantile(values, 0.25),
        "q75": quantile(values, 0.75),
        "min": min(values),
        "max": max(values),
        "n": len(values),
        "samples": [float(f"{v:.6g}") for v in values],
    }


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Each value by the one that was measured beside it."""
    pairs = [(v, b) for v, b in zip(values, base) if b]
    if not pairs:
        raise ValueError("nothing to compare with")
    return summary([v / b for v, b in pairs])


# Beyond this part of the median, what lies between the quartiles is too wide to decide by.
NOISE = 0.05


def verdict(measured: dict[str, Any] | None, target: float, at_least: bool = True) -> str:
    """met, missed, or noise too large: `measured` is a summary.

    The median decides. Where the target lies between the quartiles, and these are far apart, nothing
    is decided.
    """
    if measured is None:
        return "not measured"
    median, low, high = measured["median"], measured["q25"], measured["q75"]
    if low <= target <= high and high - low > NOISE * abs(median):
        return "noise too large"
    met = median >= target if at_least else median <= target
    return "met" if met else "missed"
