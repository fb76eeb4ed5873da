"""When to save. Pure.

The interval is measured from the last durable checkpoint, not from the last attempt: what
counts is how much work a loss would cost. After a failed save the next try waits longer
each time, so that a store that is away costs a warning and not the training.
Invariant: a failure never makes a save due earlier than the interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Cadence:
    """Times are monotonic seconds."""

    interval_seconds: float
    last_durable: float
    not_before: float = float("-inf")
    num_failures: int = 0

    def is_due(self, now: float) -> bool:
        return now >= max(self.last_durable + self.interval_seconds, self.not_before)

    def may_retry(self, now: float) -> bool:
        """Whether a save that was asked for may be tried now."""
        return now >= self.not_before

    def after_success(self, now: float) -> Cadence:
        return Cadence(self.interval_seconds, now)

    def after_failure(self, now: float) -> Cadence:
        delay = min(FIRST_RETRY_SECONDS * 2**self.num_failures, LAST_RETRY_SECONDS)
        return replace(self, not_before=now + delay, num_failures=self.num_failures + 1)

    def with_interval(self, interval_seconds: float) -> Cadence:
        return replace(self, interval_seconds=interval_seconds)


def fits(*, remaining_seconds: float, expected_seconds: float | None) -> bool:
    """Whether a save can end before the machine is gone; an unmeasured one is always tried."""
    if remaining_seconds <= 0:
        return False
    return expected_seconds is None or expected_seconds * 1.2 <= remaining_seconds
