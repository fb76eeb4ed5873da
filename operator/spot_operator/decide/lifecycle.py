"""Stop what must stop, launch what is due: the job's life, step by step."""

from dataclasses import replace
from datetime import datetime, timedelta

from spot_operator.decide import avoid, handover, restarts
from spot_operator.decide.capacity import Choice, choose_capacity
from spot_operator.decide.conditions import is_asking_for_spot
from spot_operator.decide.draft import Draft
from spot_operator.decide.endings import fail, wait_to_settle
from spot_operator.decide.fates import Fate
from spot_operator.decide.gang import has_stop_signal
from spot_operator.decide.pods import build_pod
from spot_operator.decide.progress import location_name
from spot_operator.decide.stuck import is_stuck
from spot_operator.model import (
    CapacityStatus,
    CreatePod,
    DeadlineAction,
    DeletePod,
    Gang,
    Progress,
    Stop,
)
from spot_operator.names import ConditionType, Reason, StopReason

REFUSAL_RETRY = timedelta(seconds=10)


# --- stop -----------------------------------------------------------------------------------


def stop(draft: Draft) -> Draft:
    """Record why the gang has to end, if it has to, and delete its pods gracefully.

    A gang that may hand over becomes the predecessor, so that its successor is launched at once.
    """
    asks_for_spot = is_asking_for_spot(draft.status)
    draft = _stop_predecessor(draft)
    gang = draft.status.gang
    if gang is None:
        return draft
    if gang.stop is None:
        intent = _stop_intent(draft, gang, is_elsewhere=asks_for_spot)
        if intent is None:
            return draft
        gang = replace(gang, stop=intent)
        reason = Reason.STOP_SIGNAL if intent.reason is StopReason.NODE_SIGNAL else Reason.STOPPING
        draft = draft.with_gang(gang).say(
            "Normal", reason, f"stopping incarnation {gang.incarnation}: {intent.message}"
        )
    assert gang.stop is not None
    if all(fate.fate is Fate.NOT_CREATED for fate in draft.fates(gang)):
        draft = draft.look_at(draft.now)  # nothing has to end, and no event will say so
    draft = _delete_pods(draft, gang)
    if handover.is_possible(draft, gang):
        return handover.begin(draft, gang)
    return draft.note(ConditionType.PODS_READY, False, Reason.STOPPING, gang.stop.message)


def _stop_predecessor(draft: Draft) -> Draft:
    """It ends already, or goes on while its successor asks for spot; then what stops others stops it."""
    predecessor = draft.status.predecessor
    if predecessor is None:
        return draft
    if predecessor.stop is None:
        intent = _stop_intent(draft, predecessor)
        if intent is None:
            return draft
        predecessor = replace(predecessor, stop=intent)
        draft = draft.with_status(predecessor=predecessor).say(
            "Normal",
            Reason.STOP_SIGNAL if intent.reason is StopReason.NODE_SIGNAL else Reason.STOPPING,
            f"stopping incarnation {predecessor.incarnation}: {intent.message}",
        )
    return _delete_pods(draft, predecessor)


def _delete_pods(draft: Draft, gang: Gang) -> Draft:
    why = gang.stop.message if gang.stop is not None else "its successor is prepared"
    for fate in draft.fates(gang):
        if (
            fate.fate in (Fate.ALIVE, Fate.DEAD_NODE)
            and fate.pod is not None
            and fate.pod.deletion_timestamp is None
        ):
            draft = draft.act(DeletePod(name=fate.pod.name, uid=fate.pod.uid, why=why))
    return draft


def is_deadline_over(draft: Draft) -> bool:
    deadline = draft.spec.deadline
    return deadline is not None and draft.now >= deadline.finish_by


def _stop_intent(draft: Draft, gang: Gang, *, is_elsewhere: bool = False) -> Stop | None:
    """Why the gang has to end; `is_elsewhere`: it is meant to be on other capacity than was chosen."""

    def make(reason: StopReason, message: str) -> Stop:
        return Stop(reason=reason, time=draft.now, message=message)

    if draft.spec.suspend:
        return make(StopReason.SUSPENDED, "spec.suspend is true")
    deadline = draft.spec.deadline
    if deadline is not None and is_deadline_over(draft) and deadline.action is not DeadlineAction.CONTINUE:
        return make(StopReason.DEADLINE_EXCEEDED, f"the deadline is over and its action is {deadline.action}")
    signalled = has_stop_signal(gang)
    if signalled is not None and signalled.notice is not None:
        return make(StopReason.NODE_SIGNAL, f"{signalled.notice.signal} on {signalled.node_name}")
    capacity = draft.status.capacity
    if capacity is not None and capacity.type is not gang.capacity_type and not is_elsewhere:
        return make(StopReason.CAPACITY_CHANGE, f"moving to {capacity.type}: {capacity.message}")
    stuck = is_stuck(draft, gang)
    return None if stuck is None else make(StopReason.NEVER_STARTED, stuck)


# --- launch ---------------------------------------------------------------------------------


def choose(draft: Draft) -> Draft:
    """Bring status.capacity up to date with what the policy says now."""
    choice = choose_capacity(
        draft.spec, draft.status, draft.now, draft.settings, draft.observation.known_overheads
    )
    current = draft.status.capacity
    if current is not None and (current.type, current.reason) == (choice.type, choice.reason):
        capacity = replace(current, next_decision_time=choice.next_decision_time)
    else:
        capacity = CapacityStatus(
            type=choice.type,
            since=draft.now,
            reason=choice.reason,
            message=choice.message,
            next_decision_time=choice.next_decision_time,
        )
    if choice.wants_checkpoint:
        capacity = _with_wish(draft, capacity)
    if current is not None and current.type is not choice.type:
        draft = draft.say("Normal", choice.reason, _move_message(choice))
    return draft.with_status(capacity=capacity).look_at(choice.next_decision_time)


def _with_wish(draft: Draft, capacity: CapacityStatus) -> CapacityStatus:
    """A new wish only when the last one was answered by a checkpoint."""
    wished, saved = capacity.checkpoint_wish_time, draft.status.progress.durable_time
    is_open = wished is not None and (saved is None or saved < wished)
    return capacity if is_open else replace(capacity, checkpoint_wish_time=draft.now)


def _move_message(choice: Choice) -> str:
    return f"moving to {choice.type}: {choice.message}"


def launch(draft: Draft) -> Draft:
    """Intend the next incarnation if there is none and nothing holds it back."""
    if draft.status.gang is not None:
        return draft
    predecessor = draft.status.predecessor
    deadline = draft.spec.deadline
    if deadline is not None and is_deadline_over(draft) and deadline.action is DeadlineAction.FAIL:
        return fail(draft, Reason.DEADLINE_EXCEEDED, "the deadline is over and deadline.action is Fail")
    if draft.spec.suspend or (
        deadline is not None and is_deadline_over(draft) and deadline.action is DeadlineAction.SUSPEND
    ):
        return _suspended(draft) if predecessor is None else _ending(draft, predecessor)
    exceeded = restarts.exceeded_limit(draft.status, draft.spec)
    if exceeded is not None:
        settles = restarts.settle_time(draft.status.recent_restarts[-1], draft.settings)
        if settles is None or settles <= draft.now:
            return fail(draft, *exceeded)
        return wait_to_settle(draft, settles)
    due = draft.status.next_launch_time
    if due is not None and due > draft.now:
        return draft.note(
            ConditionType.PODS_READY,
            False,
            Reason.BACKOFF,
            f"incarnation {draft.status.incarnation + 1} starts at {due.replace(microsecond=0).isoformat()}",
        ).look_at(due)
    draft = avoid.forget_old(_start_over_elsewhere(draft))
    assert draft.status.capacity is not None
    capacity_type = draft.status.capacity.type
    gang = handover.next_gang(draft, capacity_type, predecessor)
    incarnation = gang.incarnation
    draft = draft.with_status(
        incarnation=incarnation,
        gang=gang,
        claims=draft.status.claims
        and draft.status.template_fingerprint in ("", draft.spec.template_fingerprint),
        template_fingerprint=draft.spec.template_fingerprint,
        next_launch_time=None,
        start_time=draft.status.start_time or draft.now,
    )
    meanwhile = "" if predecessor is None else f" while incarnation {predecessor.incarnation} saves"
    return draft.say(
        "Normal", Reason.LAUNCHING, f"launching incarnation {incarnation} on {capacity_type}{meanwhile}"
    )


def _ending(draft: Draft, predecessor: Gang) -> Draft:
    message = f"incarnation {predecessor.incarnation} is ending"
    return draft.note(ConditionType.PODS_READY, False, Reason.STOPPING, message)


def _start_over_elsewhere(draft: Draft) -> Draft:
    """Progress that lies in another store is no progress of this one."""
    known, place = draft.status.checkpoint, location_name(draft.spec.checkpoint.location)
    if known is None or known.location in ("", place):
        return draft
    draft = draft.with_status(checkpoint=None, progress=Progress(reported_time=draft.now))
    return draft.say(
        "Normal",
        Reason.STORAGE_CHANGED,
        f"checkpoints go to {place} instead of {known.location}; progress counts from what is found there",
    )


def _suspended(draft: Draft) -> Draft:
    by_user = draft.spec.suspend
    reason = Reason.SUSPENDED if by_user else Reason.DEADLINE_EXCEEDED
    message = (
        "spec.suspend is true; set it to false to go on"
        if by_user
        else "the deadline is over and deadline.action is Suspend; move the deadline to go on"
    )
    draft = draft.with_status(next_launch_time=None)
    draft = draft.note(ConditionType.SUSPENDED, True, reason, message)
    return draft.note(ConditionType.PODS_READY, False, reason, message)


def _has_ended_since(draft: Draft, time: datetime) -> bool:
    """A pod that has ended makes room in a quota."""
    newest = max((restart.time for restart in draft.status.recent_restarts), default=None)
    return newest is not None and newest >= time


def create_missing(draft: Draft) -> Draft:
    """Ask for every pod of the intended gang that does not exist yet."""
    gang = draft.status.gang
    if gang is None or gang.stop is not None:
        return draft
    refusal = draft.observation.refusal
    for fate in draft.fates():
        if fate.fate is not Fate.NOT_CREATED:
            continue
        if refusal is not None and refusal.pod_name == fate.record.name:
            retry = refusal.time + REFUSAL_RETRY
            draft = draft.note(ConditionType.PODS_READY, False, Reason.POD_CREATION_REFUSED, refusal.message)
            if draft.now < retry and not _has_ended_since(draft, refusal.time):
                draft = draft.look_at(retry)
                continue
        manifest = build_pod(
            draft.observation,
            draft.spec,
            gang=gang,
            rank=fate.record.rank,
            preferences=avoid.preferences(draft.status),
            settings=draft.settings,
        )
        draft = draft.act(CreatePod(name=fate.record.name, manifest=manifest))
    return draft
