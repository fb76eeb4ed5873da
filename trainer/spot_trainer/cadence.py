"""When to save. Pure.

The interval is measured from the last durable checkpoint, not from the last attempt: what
counts is how much work a loss would cost. After a failed save the next try waits longer
each time, so that a store that is away costs a warning and not the training.
Invariant: a failure never makes a save due earlier than the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spot_trainer.contract import Directives, IntervalPolicy

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 60.0

OVERHEAD_BUDGET = 0.01
"""The share of time that saving may cost."""

MEAN_SECONDS_BETWEEN_LOSSES = 2 * 3600.0
"""Assumed where nobody has measured it: losses without a notice on spot capacity."""

MIN_INTERVAL_SECONDS = 10.0
"""Each checkpoint leaves objects and log lines behind, however cheap it is."""

FIRST_AUTOMATIC_SECONDS = 30.0
"""Until the first save, which measures what saves cost."""


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

    def after_success(self, taken: float) -> Cadence:
        """The snapshot that became durable was taken at this time."""
        return Cadence(self.interval_seconds, taken)

    def after_failure(self, now: float) -> Cadence:
        delay = min(FIRST_RETRY_SECONDS * 2**self.num_failures, LAST_RETRY_SECONDS)
        return replace(self, not_before=now + delay, num_failures=self.num_failures + 1)

    def with_interval(self, interval_seconds: float) -> Cadence:
        return replace(self, interval_seconds=interval_seconds)


def automatic_interval(
    *,
    cost_seconds: float,
    persist_seconds: float,
    mean_seconds_between_losses: float = MEAN_SECONDS_BETWEEN_LOSSES,
    max_seconds: float,
    overhead_budget: float = OVERHEAD_BUDGET,
) -> float:
    """The interval in seconds that loses the least time, within the overhead budget.

    Young's first-order optimum sqrt(2 C M), with C the training time that one save costs and M
    the mean time between losses (Young 1974, doi:10.1145/361147.361115; Daly 2006,
    doi:10.1016/j.future.2004.11.016, has the same leading term). It is never shorter than a save
    takes to become durable, nor than the budget allows; `max_seconds`, the bound of the user or of
    the operator near a deadline, has the last word.
    """
    best = math.sqrt(2 * max(cost_seconds, 0.0) * mean_seconds_between_losses)
    least = max(MIN_INTERVAL_SECONDS, cost_seconds / overhead_budget, persist_seconds)
    return min(max(best, least), max_seconds)


@dataclass(frozen=True)
class SaveCost:
    """What the last save cost."""

    training_seconds: float
    """Time that training stood still or was slowed down."""
    persist_seconds: float
    """From the snapshot until the checkpoint was durable."""


def choose_interval(
    policy: IntervalPolicy, interval_seconds: float, directives: Directives, measured: SaveCost | None
) -> float:
    """The interval in seconds.

    `interval_seconds` is what the user set: the interval of policy Fixed, the longest one of Auto.
    A directive takes the place of the former and may only shorten the latter.
    """
    directed = directives.checkpoint_interval_seconds
    if policy is IntervalPolicy.FIXED:
        return interval_seconds if directed is None else directed
    bound = interval_seconds if directed is None else min(interval_seconds, directed)
    if measured is None:  # before the first save, when a fresh run has little to lose
        return min(bound, FIRST_AUTOMATIC_SECONDS)
    return automatic_interval(
        cost_seconds=measured.training_seconds,
        persist_seconds=measured.persist_seconds,
        mean_seconds_between_losses=directives.mean_seconds_between_losses or MEAN_SECONDS_BETWEEN_LOSSES,
        max_seconds=bound,
    )


@dataclass(frozen=True)
class StepCost:
    """How long steps take while nothing is saved, and what one save adds to those beside it."""

    idle_seconds: float | None = None
    """Moving average of a step."""
    extra_seconds: float = 0.0
    """Summed over the steps beside the save in flight, or beside the last one."""

    def after_idle_step(self, seconds: float) -> StepCost:
        old = self.idle_seconds
        return replace(self, idle_seconds=seconds if old is None else old + 0.1 * (seconds - old))

    def after_step_beside_save(self, seconds: float) -> StepCost:
        if self.idle_seconds is None:
            return self
        return replace(self, extra_seconds=self.extra_seconds + seconds - self.idle_seconds)

    def at_save(self) -> StepCost:
        return replace(self, extra_seconds=0.0)
