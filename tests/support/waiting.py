# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a condition, with a deadline that only something that hangs misses, however slow the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 300.0


def until(condition: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait until a condition holds; fails when it does not hold in time."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"the condition does not hold after {timeout_s} s"
        time.sleep(0.01)
