"""The one place where the trainer reads a clock.

Everything else takes a `Clock` or a `now`, so that cadence, retries and retention can
be tested without waiting. Invariant: durations are measured on the monotonic clock;
wall time is only ever written down for people, never compared across machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def _wall() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  (the edge that everybody else is handed)


@dataclass(frozen=True)
class Clock:
    """Wall time, monotonic seconds and sleep, as one value that tests replace."""

    wall: Callable[[], datetime] = _wall
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
