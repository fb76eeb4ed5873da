"""Budgets: what an ended incarnation costs, and when the next one may start.

Every counter derives from the recorded restarts. The first restart is immediate; the
back-off starts with the second ending of the same kind in a row without durable progress.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from spot_operator.model import JobSpec, JobStatus, PolicySettings, Restart, RestartCounts
from spot_operator.names import Cause, Reason

MAX_RECENT_RESTARTS: Final = 50

IMMEDIATE: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST, Cause.REQUESTED, Cause.CAPACITY_CHANGE})
"""Never delayed: the program is not at fault, and the scheduler itself waits for capacity."""

TAKEN: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST})

MISSING_OBJECT_MAX_SECONDS: Final = 60
"""A missing object heals when somebody creates it: look often enough that they notice."""

MAX_SPREAD: Final = 0.25
"""By how much of itself a delay is spread."""

STALLED_RESTARTS: Final = 4
"""So many endings in a row at one durable step: work is paid for and comes to nothing."""

PROGRAMS_FAULT: Final = frozenset({Cause.FAILURE, Cause.OUT_OF_MEMORY})
PLANNED: Final = frozenset({Cause.REQUESTED, Cause.CAPACITY_CHANGE})
"""Endings that say nothing about whether the job gets on."""

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


def exceeded_limit(status: JobStatus, spec: JobSpec) -> tuple[Reason, str] | None:
    """The budget that is used up, as the reason and message of the Failed condition.

    The window ends with the newest restart: while a failure settles, those before it must not slide out.
    """
    if not status.recent_restarts:
        return None
    policy = spec.failure_policy
    since = status.recent_restarts[-1].time - timedelta(seconds=policy.window_seconds)
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
    repeats = charged_without_progress(status.recent_restarts, claims=status.claims)
    if repeats > policy.backoff_limit:
        step = status.recent_restarts[-1].durable_step
        place = "before the first checkpoint" if step is None else f"at durable step {step}"
        return (
            Reason.NO_PROGRESS if failures <= policy.backoff_limit else Reason.BACKOFF_LIMIT_EXCEEDED,
            f"failed {repeats} times in a row {place} (failurePolicy.backoffLimit is "
            f"{policy.backoff_limit}); see status.lastFailure",
        )
    if failures > policy.backoff_limit:
        return (
            Reason.BACKOFF_LIMIT_EXCEEDED,
            f"failed {failures} times within {policy.window_seconds} s "
            f"(failurePolicy.backoffLimit is {policy.backoff_limit}); see status.lastFailure",
        )
    return None


def settle_time(restart: Restart, settings: PolicySettings) -> datetime | None:
    """Until when the loss of its node may still take the blame for a failure; None: it is settled."""
    if not restart.charged or restart.row not in ("17", "21") or restart.node_name is None:
        return None
    if not settings.settle_seconds:
        return None
    if restart.node_was_well:
        return None
    return restart.time + timedelta(seconds=settings.settle_seconds)


def charged_without_progress(restarts: tuple[Restart, ...], *, claims: bool) -> int:
    """Charged failures since the last durable progress; what was taken away in between does not count.

    However far apart they are: a program that always fails at the same step is never done, nor is one that
    has the library (`claims`) and fails before its first checkpoint. Of others no durable step is known.
    """
    if not restarts or (restarts[-1].durable_step is None and not claims):
        return 0
    count = 0
    for restart in reversed(restarts):
        if restart.durable_step != restarts[-1].durable_step:
            break
        count += restart.charged
    return count


def stalled_restarts(restarts: tuple[Restart, ...], durable_step: int | None) -> int:
    """How many endings in a row, newest first, found the run at this durable step; planned ones aside."""
    count = 0
    for restart in reversed(restarts):
        if restart.durable_step != durable_step:
            break
        count += restart.cause not in PLANNED
    return count


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


def is_taken_early(restart: Restart) -> bool:
    """Taken away before its program had started: the next one may be bound to the same place at once."""
    return restart.cause in TAKEN and not restart.ran


def spread_of(job_uid: str, incarnation: int) -> float:
    """A number in [0, 1) that differs from job to job, and is the same whoever asks."""
    digest = hashlib.sha256(f"{job_uid}/{incarnation}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def delay_seconds(restarts: tuple[Restart, ...], settings: PolicySettings, *, spread: float = 0.0) -> int:
    """Seconds to wait before the next launch, after the newest restart.

    `spread` in [0, 1) makes it up to a quarter longer, so that jobs that failed together do not all
    come back together.
    """
    repeats = repeats_without_progress(restarts)
    if repeats == 0 or (restarts[-1].cause in IMMEDIATE and not is_taken_early(restarts[-1])):
        return 0
    doublings = repeats - 1 if restarts[-1].cause in ALWAYS_DELAYED else repeats - 2
    if doublings < 0:
        return 0
    longest = settings.backoff_max_seconds
    if restarts[-1].cause is Cause.MISSING_OBJECT:
        longest = min(longest, MISSING_OBJECT_MAX_SECONDS)
    delay = min(settings.backoff_base_seconds << min(doublings, 16), longest)
    is_spread = restarts[-1].cause not in ALWAYS_DELAYED
    return delay + int(delay * MAX_SPREAD * spread * is_spread)
