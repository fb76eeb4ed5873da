"""Is the deadline in danger? Said with the numbers, before it is missed.

Judged by the fastest way that is left: what runs goes on where it is, and what does not run is launched on
on-demand at once. So whatever goes wrong (on-demand that does not come, a program that got slower, work
that has to be done again) is told as soon as the time that it cost cannot be made up for.
"""

from datetime import timedelta

from spot_operator.decide.auto import at_risk_seconds, launch_seconds, working_gang
from spot_operator.decide.capacity import latest_spot_time, reserve_seconds
from spot_operator.decide.draft import Draft
from spot_operator.decide.progress import Work, remaining_work
from spot_operator.model import FallbackPolicy
from spot_operator.names import CapacityType, ConditionType, Reason
from spot_trainer.contract import format_time

HELP = "a later deadline, more or faster nodes, or fewer steps would help"


def assess_deadline(draft: Draft) -> Draft:
    """Say in time that the deadline is in danger."""
    deadline = draft.spec.deadline
    if deadline is None:
        return draft
    left = (deadline.finish_by - draft.now).total_seconds()
    if left <= 0:
        return draft.note(
            ConditionType.DEADLINE_AT_RISK,
            True,
            Reason.DEADLINE_EXCEEDED,
            f"the deadline {deadline.finish_by.isoformat()} is over",
        )
    draft = draft.look_at(deadline.finish_by)
    work = remaining_work(draft.status, draft.spec)
    remaining = work.seconds
    if remaining is None:
        return _note_unknown(draft)
    needed, overhead = _fastest(draft, remaining)
    if needed + overhead > left:
        return draft.note(
            ConditionType.DEADLINE_AT_RISK,
            True,
            Reason.DEADLINE_NEAR,
            f"{work.basis}: {needed:.0f} s of work left, {overhead:.0f} s to start, "
            f"{left:.0f} s to the deadline; {HELP}",
        )
    return _note_feasible(draft.look_at(draft.now + timedelta(seconds=left - needed - overhead)), work)


def _fastest(draft: Draft, remaining: float) -> tuple[float, float]:
    """Seconds of work and seconds until it can go on, by the fastest way."""
    status = draft.status
    gang = working_gang(status) or status.predecessor
    working = gang is not None and gang.stop is None and gang.pods[0].working_time is not None
    if working:
        return max(0.0, remaining - at_risk_seconds(status)), 0.0
    launch = launch_seconds(status, draft.settings, draft.observation.known_overheads)
    is_starting = gang is not None and gang.stop is None and gang.pods[0].node_name is not None
    if is_starting and gang is not None:
        launch = max(0.0, launch - (draft.now - gang.created_time).total_seconds())
    return remaining, launch


def _note_unknown(draft: Draft) -> Draft:
    is_auto = draft.spec.fallback.policy is FallbackPolicy.AUTO
    return draft.note(
        ConditionType.DEADLINE_AT_RISK,
        None if is_auto else False,
        Reason.WORK_UNKNOWN if is_auto else Reason.DEADLINE_FEASIBLE,
        "work left: unknown; deadline.expectedDurationSeconds, or reports of progress, would tell",
    )


def _note_feasible(draft: Draft, work: Work) -> Draft:
    status, gang = draft.status, draft.status.gang
    text = f"{work.basis}: work left {work.seconds:.0f} s"
    if draft.spec.fallback.policy is FallbackPolicy.AUTO:
        decides = status.capacity.next_decision_time if status.capacity is not None else None
        if decides is not None:
            text += f", capacity is decided again at {format_time(decides)} at the latest"
    else:
        on_demand = gang is not None and gang.capacity_type is CapacityType.ON_DEMAND
        reserve = 0 if on_demand else reserve_seconds(draft.spec, draft.settings)
        leaves = latest_spot_time(draft.spec, status, draft.settings)
        if leaves is not None:
            text += f", reserve {reserve} s, spot is left at {format_time(leaves)} at the latest"
    return draft.note(ConditionType.DEADLINE_AT_RISK, False, Reason.DEADLINE_FEASIBLE, text)
