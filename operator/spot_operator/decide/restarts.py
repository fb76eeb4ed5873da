"""Budgets: what an ended incarnation costs, and when the next one may start.

Every counter derives from the recorded restarts. The first restart is immediate; the
back-off starts with the second ending of the same kind in a row without durable progress.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from spot_operator.model import JobSpec, JobStatus, PolicySettings, Restart, RestartCounts
from spot_operator.names import Cause, Reason

MAX_RECENT_RESTARTS: Final = 50

IMMEDIATE: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST, Cause.REQUESTED, Cause.CAPACITY_CHANGE})
"""Never delayed: the program is not at fault, and the scheduler itself waits for capacity."""

MISSING_OBJECT_MAX_SECONDS: Final = 60
"""A missing object heals when somebody creates it: look often enough that they notice."""

ALWAYS_DELAYED: Final = frozenset({Cause.MISSING_OBJECT})
"""Delayed from the first time on: an immediate retry cannot find what did not exist."""


def count(counts: RestartCounts, cause: Cause) -> RestartCounts:
    match cause:
        case Cause.INTERRUPTION:
            return replace(counts, interruptions=counts.interruptions + 1)
        case Cause.FAILURE:
            return replace(counts, failures=counts.failures + 1)
        case Cause.OUT_OF_MEMORY:
            return replace(counts, out_of_memory=counts.out_of_memory + 1)
        case Cause.REQUESTED | Cause.CAPACITY_CHANGE:
            return replace(counts, requested=counts.requested + 1)
        case _:
            return replace(counts, infrastructure=counts.infrastructure + 1)


def recount(counts: RestartCounts, old: Cause, new: Cause) -> RestartCounts:
    """Move one restart from one counter to another, when its verdict was upgraded."""
    moved = count(counts, new)
    before = count(RestartCounts(), old)
    return RestartCounts(
        interruptions=moved.interruptions - before.interruptions,
        failures=moved.failures - before.failures,
        out_of_memory=moved.out_of_memory - before.out_of_memory,
        infrastructure=moved.infrastructure - before.infrastructure,
        requested=moved.requested - before.requested,
    )


def record(status: JobStatus, restart: Restart) -> JobStatus:
    return replace(
        status,
        restarts=count(status.restarts, restart.cause),
        recent_restarts=(*status.recent_restarts, restart)[-MAX_RECENT_RESTARTS:],
    )


def exceeded_limit(status: JobStatus, spec: JobSpec, now: datetime) -> tuple[Reason, str] | None:
    """The budget that is used up, as the reason and message of the Failed condition."""
    policy = spec.failure_policy
    since = now - timedelta(seconds=policy.window_seconds)
    recent = [restart for restart in status.recent_restarts if restart.time > since]
    failures = sum(1 for restart in recent if restart.charged)
    out_of_memory = sum(1 for restart in recent if restart.cause is Cause.OUT_OF_MEMORY)
    if out_of_memory > policy.out_of_memory_limit:
        return (
            Reason.OUT_OF_MEMORY,
            f"out of memory {out_of_memory} times within {policy.window_seconds} s "
            f"(failurePolicy.outOfMemoryLimit is {policy.out_of_memory_limit}); "
            "raise the container's memory limit or lower the batch size",
        )
    if failures > policy.backoff_limit:
        return (
            Reason.BACKOFF_LIMIT_EXCEEDED,
            f"failed {failures} times within {policy.window_seconds} s "
            f"(failurePolicy.backoffLimit is {policy.backoff_limit}); see status.lastFailure",
        )
    return None


def repeats_without_progress(restarts: tuple[Restart, ...]) -> int:
    """How many endings in a row, newest first, share the newest one's cause and durable step."""
    if not restarts:
        return 0
    newest = restarts[-1]
    repeats = 0
    for restart in reversed(restarts):
        if restart.cause is not newest.cause or restart.durable_step != newest.durable_step:
            break
        repeats += 1
    return repeats


def delay_seconds(restarts: tuple[Restart, ...], settings: PolicySettings) -> int:
    """Seconds to wait before the next launch, after the newest restart."""
    repeats = repeats_without_progress(restarts)
    if repeats == 0 or restarts[-1].cause in IMMEDIATE:
        return 0
    doublings = repeats - 1 if restarts[-1].cause in ALWAYS_DELAYED else repeats - 2
    if doublings < 0:
        return 0
    longest = settings.backoff_max_seconds
    if restarts[-1].cause is Cause.MISSING_OBJECT:
        longest = min(longest, MISSING_OBJECT_MAX_SECONDS)
    return min(settings.backoff_base_seconds << min(doublings, 16), longest)
