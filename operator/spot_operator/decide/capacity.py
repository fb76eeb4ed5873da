"""Spot or on-demand: by the policy (`Auto`), or by `Rules`, in order; the first that fires wins.

There is no way back from on-demand while `returnToSpot` is Never, so a rule that fired
once stays decided (status.capacity remembers it).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide import auto
from spot_operator.decide.fates import was_never_bound
from spot_operator.decide.progress import remaining_work, remaining_work_seconds
from spot_operator.model import (
    FallbackPolicy,
    JobSpec,
    JobStatus,
    Overheads,
    PolicySettings,
    Restart,
    ReturnToSpot,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Reason
from spot_operator.policy import Action, explain

STICKY_REASONS: Final = frozenset(
    {
        Reason.ADOPTED,
        Reason.AFTER_INTERRUPTIONS,
        Reason.DEADLINE_NEAR,
        Reason.DEADLINE_INFEASIBLE,
        Reason.SPOT_NOT_CHEAPER,
        Reason.AFTER_PENDING,
    }
)
NOTHING_KNOWN: Final = Overheads()

LOSSES: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST})
"""Capacity taken away. A chosen disruption (drain, consolidation) is not counted."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    type: CapacityType
    reason: Reason
    message: str
    next_decision_time: datetime | None = None
    """The next time at which the answer could change by itself."""
    wants_checkpoint: bool = False
    """Too much would be lost now: have it saved, and go on."""


def choose_capacity(
    spec: JobSpec,
    status: JobStatus,
    now: datetime,
    settings: PolicySettings,
    known: Overheads = NOTHING_KNOWN,
) -> Choice:
    """`known`: what other jobs have seen of the same pools."""
    match spec.fallback.policy:
        case FallbackPolicy.AUTO:
            return _by_policy(spec, status, now, settings, known)
        case FallbackPolicy.ON_DEMAND_ONLY:
            return Choice(
                type=CapacityType.ON_DEMAND,
                reason=Reason.ON_DEMAND_ONLY,
                message="fallback.policy is OnDemandOnly",
            )
        case FallbackPolicy.SPOT_ONLY:
            return Choice(
                type=CapacityType.SPOT, reason=Reason.SPOT_ONLY, message="fallback.policy is SpotOnly"
            )
        case FallbackPolicy.RULES:
            return _by_rules(spec, status, now, settings)


def _by_policy(
    spec: JobSpec, status: JobStatus, now: datetime, settings: PolicySettings, known: Overheads
) -> Choice:
    current = status.capacity
    stays = spec.fallback.return_to_spot is ReturnToSpot.NEVER
    is_there = current is not None and current.type is CapacityType.ON_DEMAND
    if stays and is_there and current is not None and current.reason in STICKY_REASONS:
        return Choice(type=current.type, reason=current.reason, message=current.message)
    choice = auto.decide_capacity(spec, status, now, settings, known)
    if choice is None:
        return Choice(
            type=CapacityType.SPOT,
            reason=Reason.WORK_UNKNOWN,
            message="how much work is left is not known; deadline.expectedDurationSeconds, or reports of "
            "progress, would tell",
        )
    wait = choice.next_decision_seconds
    return Choice(
        type=auto.type_of(choice),
        reason=auto.REASONS[choice.why],
        message=explain(choice),
        next_decision_time=None if wait is None else (now + timedelta(seconds=wait)).replace(microsecond=0),
        wants_checkpoint=choice.checkpoint_first and choice.action is not Action.ON_DEMAND,
    )


def _by_rules(spec: JobSpec, status: JobStatus, now: datetime, settings: PolicySettings) -> Choice:
    current = status.capacity
    if current is not None and current.type is CapacityType.ON_DEMAND and current.reason in STICKY_REASONS:
        return Choice(type=current.type, reason=current.reason, message=current.message)
    fired = (
        _after_interruptions(spec, status, now)
        or _deadline_near(spec, status, now, settings)
        or _after_pending(spec, status, now)
    )
    if fired is not None:
        return fired
    return Choice(
        type=CapacityType.SPOT,
        reason=Reason.SPOT_FIRST,
        message="no fallback rule has fired",
        next_decision_time=_next_decision_time(spec, status, settings),
    )


def interruptions_in_window(restarts: tuple[Restart, ...], window_seconds: int, now: datetime) -> int:
    since = now - timedelta(seconds=window_seconds)
    return sum(
        1
        for restart in restarts
        if restart.cause in LOSSES
        and restart.ran
        and restart.capacity_type is CapacityType.SPOT
        and restart.time > since
    )


def interruptions_under_way(status: JobStatus) -> int:
    """Losses of spot capacity that have begun and have no verdict yet.

    A successor is launched before its predecessor's verdict; it should not go where the verdict forbids.
    """
    return sum(
        any(record.notice is not None and record.notice.confirmed_reclaim for record in gang.pods)
        for gang in (status.predecessor, status.gang)
        if gang is not None and gang.capacity_type is CapacityType.SPOT
    )


def _after_interruptions(spec: JobSpec, status: JobStatus, now: datetime) -> Choice | None:
    limit = spec.fallback.interruptions_count
    if limit is None:
        return None
    window = spec.fallback.interruptions_window_seconds
    count = interruptions_in_window(status.recent_restarts, window, now) + interruptions_under_way(status)
    if count < limit:
        return None
    return Choice(
        type=CapacityType.ON_DEMAND,
        reason=Reason.AFTER_INTERRUPTIONS,
        message=f"{count} interruptions within {window} s reached the limit of {limit}",
    )


def latest_spot_time(spec: JobSpec, status: JobStatus, settings: PolicySettings) -> datetime | None:
    """Deadline less the remaining work and the reserve: from here on only on-demand will do."""
    if spec.deadline is None:
        return None
    remaining = remaining_work_seconds(status, spec) or 0.0
    lead = remaining + reserve_seconds(spec, settings)
    try:
        return (spec.deadline.finish_by - timedelta(seconds=lead)).replace(microsecond=0)
    except OverflowError:
        return spec.deadline.finish_by.min.replace(tzinfo=spec.deadline.finish_by.tzinfo)


def reserve_seconds(spec: JobSpec, settings: PolicySettings) -> int:
    if spec.fallback.before_deadline_seconds is not None:
        return spec.fallback.before_deadline_seconds
    return settings.on_demand_reserve_seconds


def _deadline_near(
    spec: JobSpec, status: JobStatus, now: datetime, settings: PolicySettings
) -> Choice | None:
    latest = latest_spot_time(spec, status, settings)
    if latest is None or now < latest:
        return None
    left_over = remaining_work(status, spec)
    work = "an unknown amount of" if left_over.seconds is None else f"{left_over.seconds:.0f} s of"
    assert spec.deadline is not None
    left = (spec.deadline.finish_by - now).total_seconds()
    return Choice(
        type=CapacityType.ON_DEMAND,
        reason=Reason.DEADLINE_NEAR,
        message=f"{left:.0f} s to the deadline, {work} work left ({left_over.basis}), "
        f"{reserve_seconds(spec, settings)} s kept in reserve",
    )


def pending_since(status: JobStatus) -> datetime | None:
    """Since when a pod of the gang has been waiting for a node.

    A pod that could not be created, or waits for its volume, says nothing about capacity.
    """
    gang = status.gang
    if gang is None or gang.stop is not None or all(record.uid is None for record in gang.pods):
        return None
    if all(not was_never_bound(record, None) for record in gang.pods):
        return None
    for condition in status.conditions:
        if condition.type is ConditionType.CAPACITY_AVAILABLE and condition.status is False:
            return max(gang.created_time, condition.last_transition_time)
    return None


def _after_pending(spec: JobSpec, status: JobStatus, now: datetime) -> Choice | None:
    limit = spec.fallback.after_pending_seconds
    since = pending_since(status)
    if limit is None or since is None or status.gang is None:
        return None
    if status.gang.capacity_type is not CapacityType.SPOT or now < since + timedelta(seconds=limit):
        return None
    return Choice(
        type=CapacityType.ON_DEMAND,
        reason=Reason.AFTER_PENDING,
        message=f"no spot capacity for {limit} s",
    )


def _next_decision_time(spec: JobSpec, status: JobStatus, settings: PolicySettings) -> datetime | None:
    times = [latest_spot_time(spec, status, settings)]
    since = pending_since(status)
    if since is not None and spec.fallback.after_pending_seconds is not None:
        times.append(since + timedelta(seconds=spec.fallback.after_pending_seconds))
    return min((time for time in times if time is not None), default=None)
