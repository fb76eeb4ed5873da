"""The way back from on-demand to spot, made before the other is broken.

Whether spot is there, only a pod that asks for it can tell; so the next incarnation is created on spot
while the one on on-demand goes on (a predecessor that is not stopped). When its container runs, and the
policy still wants it, the predecessor is stopped and hands over as for any other change; if the policy
has changed its mind meanwhile, the new one is withdrawn. Invariants: the run is never without a pod
because of this; after an end on spot nothing is asked for a while, so nothing flaps.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from math import inf
from typing import Final

from spot_operator.decide import auto, handover
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate
from spot_operator.model import (
    CapacityStatus,
    FallbackPolicy,
    Gang,
    ReturnToSpot,
    Stop,
)
from spot_operator.names import CapacityType, Reason, StopReason
from spot_operator.policy import Action, Running, Why, choose, explain
from spot_operator.policy import Choice as PolicyChoice

MAX_PAID_WAIT_SECONDS: Final = 600.0
"""How long a spot node may be paid for beside the one on on-demand until it has proved itself; what would
take longer is not asked for. Well below `pods.BESIDE_SECONDS`, after which the trainer on it would claim."""


def resume_predecessor(draft: Draft) -> Draft:
    """The incarnation that asked for spot has ended: the one that it was to follow goes on alone."""
    predecessor = draft.status.predecessor
    if draft.status.gang is not None or predecessor is None or predecessor.stop is not None:
        return draft
    return draft.with_status(gang=predecessor, predecessor=None, next_launch_time=None)


def return_to_spot(draft: Draft) -> Draft:
    """Ask for spot beside on-demand, take it when it runs, or let it be."""
    fallback = draft.spec.fallback
    if fallback.policy is not FallbackPolicy.AUTO or fallback.return_to_spot is not ReturnToSpot.AUTO:
        return draft
    status = draft.status
    if status.predecessor is None:
        return draft if status.gang is None else _ask_for_spot(draft, status.gang)
    if status.predecessor.stop is None and status.gang is not None and status.gang.stop is None:
        return _follow(draft, status.predecessor, status.gang)
    return draft


def _would_choose(
    draft: Draft, spot_age_seconds: float, *, margin_seconds: float = 0.0
) -> PolicyChoice | None:
    """What the policy says on on-demand if spot is there, and `margin_seconds` of the time left are not."""
    found = auto.situation(
        draft.spec, draft.status, draft.now, draft.settings, draft.observation.known_overheads
    )
    if found is None or found.running is not Running.ON_DEMAND:
        return None
    # Who hands over saves first: what is at risk now is not lost by it, and the answer does not follow the
    # rhythm of the checkpoints.
    saved = replace(
        found,
        work_left=found.work_left - found.at_risk,
        at_risk=0.0,
        time_left=found.time_left - margin_seconds,
    )
    return choose(replace(saved, spot_available=True, spot_age=spot_age_seconds))


def _ask_for_spot(draft: Draft, gang: Gang) -> Draft:
    if gang.capacity_type is not CapacityType.ON_DEMAND or gang.pods[0].working_time is None:
        return draft
    if gang.stop is not None or not handover.may_have_a_second(draft):
        return draft
    if any(fate.fate is not Fate.ALIVE for fate in draft.fates(gang)):
        return draft
    # Between two reports the time left falls and the work left does not. Without a margin for it, spot would
    # be asked for after each report and let go before the next.
    choice = _would_choose(draft, inf, margin_seconds=2 * auto.REACTION_SECONDS)
    if choice is None or choice.action is not Action.SPOT:
        return draft
    if not _is_proved_in_time(_would_choose(draft, 0.0), 0.0):
        return draft
    due = _pause_end(draft)
    if due > draft.now:
        return draft.look_at(due)
    candidate = handover.next_gang(draft, CapacityType.SPOT, gang, is_beside=True)
    incarnation = candidate.incarnation
    draft = draft.with_status(incarnation=incarnation, predecessor=gang, gang=candidate)
    return draft.say(
        "Normal",
        Reason.LAUNCHING,
        f"asking for spot with incarnation {incarnation} while incarnation {gang.incarnation} goes on",
    )


def _is_proved_in_time(choice: PolicyChoice | None, age_seconds: float) -> bool:
    """Whether spot of this age will be old enough before too much was paid for two nodes."""
    if choice is None or choice.why is not Why.SPOT_TOO_YOUNG or choice.next_decision_seconds is None:
        return True
    return age_seconds + choice.next_decision_seconds <= MAX_PAID_WAIT_SECONDS


def _pause_end(draft: Draft) -> datetime:
    ends = [r.time for r in draft.status.recent_restarts if r.capacity_type is CapacityType.SPOT]
    pause = timedelta(seconds=draft.settings.return_pause_seconds)
    return max(ends, default=draft.now - pause) + pause


def _follow(draft: Draft, predecessor: Gang, candidate: Gang) -> Draft:
    record = candidate.pods[0]
    is_bound = record.scheduled_time is not None and record.node_name is not None
    age = (draft.now - record.scheduled_time).total_seconds() if is_bound and record.scheduled_time else inf
    choice = _would_choose(draft, age)
    if choice is None:
        return draft
    if choice.next_decision_seconds is not None:
        draft = draft.look_at(draft.now + timedelta(seconds=choice.next_decision_seconds))
    if choice.why is Why.SPOT_TOO_YOUNG and _is_proved_in_time(choice, age):
        return draft
    if choice.action is not Action.SPOT:
        stop = Stop(
            reason=StopReason.CAPACITY_CHANGE,
            time=draft.now,
            message=f"spot is not asked for any more: {explain(choice)}",
        )
        return draft.with_gang(replace(candidate, stop=stop)).say("Normal", Reason.STOPPING, stop.message)
    if record.started_time is None:
        return draft
    message = f"moving to spot: {explain(choice)}"
    stop = Stop(reason=StopReason.CAPACITY_CHANGE, time=draft.now, message=message)
    capacity = CapacityStatus(
        type=CapacityType.SPOT, since=draft.now, reason=Reason.SPOT_FIRST, message=explain(choice)
    )
    draft = draft.with_status(predecessor=replace(predecessor, stop=stop), capacity=capacity)
    return draft.say("Normal", Reason.SPOT_FIRST, message)
