"""Waiting for a condition. What takes longer than expected on a busy machine is a warning; what has not happened after
TIMEOUT is an error."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

TIMEOUT = 30.0


def within(seconds: float, what: str, check: Callable[[], Any], log: Callable[[], Any] | None = None) -> float:
    """Waits until `check()` is true; returns how long it took."""
    start = time.monotonic()
    while not check():
        if time.monotonic() - start > max(seconds, TIMEOUT):
            raise AssertionError(f"not within {max(seconds, TIMEOUT):.0f} s: {what}" + (f"\n{log()}" if log else ""))
        time.sleep(0.01)
    took = time.monotonic() - start
    if took > seconds:
        warnings.warn(f"{what}: {took:.1f} s, expected within {seconds} s", stacklevel=2)
    return took
