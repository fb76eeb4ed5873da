"""Conditions, the phase word and the printed line: all derived, none decides anything.

A condition changes its transition time only when its status changes, and keeps its message
while status, reason and what its numbers rest on (the words before a colon) stay, so that
numbers in messages never cause a write.
"""

from dataclasses import replace
from datetime import datetime

from spot_operator.model import Condition, JobStatus
from spot_operator.names import ConditionType, Phase, Reason

MAX_MESSAGE_LENGTH = 1024


def find(conditions: tuple[Condition, ...], type_: ConditionType) -> Condition | None:
    return next((condition for condition in conditions if condition.type is type_), None)


def is_true(status: JobStatus, type_: ConditionType) -> bool:
    condition = find(status.conditions, type_)
    return condition is not None and condition.status is True


def is_finished(status: JobStatus) -> bool:
    return is_true(status, ConditionType.COMPLETE) or is_true(status, ConditionType.FAILED)


def with_condition(
    status: JobStatus,
    type_: ConditionType,
    value: bool | None,
    reason: Reason | str,
    message: str,
    *,
    now: datetime,
    generation: int,
    keep_message: bool = False,
) -> JobStatus:
    old = find(status.conditions, type_)
    unchanged = old is not None and old.status is value
    if (
        old is not None
        and unchanged
        and keep_message
        and old.reason == reason
        and _basis(old.message) == _basis(message)
    ):
        message = old.message
    new = Condition(
        type=type_,
        status=value,
        reason=str(reason),
        message=message[:MAX_MESSAGE_LENGTH],
        last_transition_time=old.last_transition_time
        if old is not None and unchanged
        else now.replace(microsecond=0),
        observed_generation=generation,
    )
    if old is None:
        return replace(status, conditions=(*status.conditions, new))
    return replace(
        status,
        conditions=tuple(new if condition.type is type_ else condition for condition in status.conditions),
    )


def is_asking_for_spot(status: JobStatus) -> bool:
    """The predecessor goes on while its successor asks for spot."""
    return status.predecessor is not None and status.predecessor.stop is None and status.gang is not None


def _basis(message: str) -> str:
    words, colon, _ = message.partition(": ")
    return words if colon else ""


def derive_phase(status: JobStatus) -> Phase:
    """One word for people, from the conditions and the gang."""
    if is_true(status, ConditionType.COMPLETE):
        return Phase.COMPLETE
    if is_true(status, ConditionType.FAILED):
        return Phase.FAILED
    if status.gang is None:
        if is_true(status, ConditionType.SUSPENDED):
            return Phase.SUSPENDED
        return Phase.WAITING if status.next_launch_time is not None else Phase.PENDING
    if is_asking_for_spot(status):
        return Phase.RUNNING
    if status.gang.stop is not None or _overdue(status) is not None:
        return Phase.STOPPING
    if is_true(status, ConditionType.PODS_READY):
        return Phase.RUNNING
    if any(record.node_name is not None for record in status.gang.pods):
        return Phase.STARTING
    return Phase.PENDING


def _overdue(status: JobStatus) -> Condition | None:
    """What says that a pod does not end."""
    ready = find(status.conditions, ConditionType.PODS_READY)
    return ready if ready is not None and ready.reason == Reason.TERMINATION_OVERDUE else None


def derive_message(status: JobStatus) -> str:
    """The one line that `kubectl get` prints."""
    if is_asking_for_spot(status):
        return (
            f"{_message_of_gang(replace(status, gang=status.predecessor, predecessor=None))}; asks for spot"
        )
    line, predecessor = _message_of_gang(status), status.predecessor
    if predecessor is None or predecessor.stop is None or status.gang is None:
        return line
    return f"incarnation {predecessor.incarnation} is saving ({predecessor.stop.message}); next: {line}"


def _message_of_gang(status: JobStatus) -> str:
    phase = derive_phase(status)
    for type_ in (ConditionType.FAILED, ConditionType.COMPLETE):
        condition = find(status.conditions, type_)
        if condition is not None and condition.status:
            return condition.message
    if phase in (Phase.SUSPENDED, Phase.PENDING, Phase.WAITING, Phase.STARTING):
        blocking = (
            find(status.conditions, ConditionType.SUSPENDED)
            if phase is Phase.SUSPENDED
            else find(status.conditions, ConditionType.PODS_READY)
        )
        if blocking is not None and blocking.message:
            return blocking.message
    gang = status.gang
    if gang is None:
        return ""
    if (overdue := _overdue(status)) is not None:
        return overdue.message
    if gang.stop is not None:
        return f"stopping: {gang.stop.message}"
    nodes = ", ".join(record.node_name for record in gang.pods if record.node_name) or "no node yet"
    line = f"on {nodes} ({gang.capacity_type})"
    progress = status.progress
    if progress.step is not None:
        total = f"/{progress.total_steps}" if progress.total_steps is not None else ""
        line += f", step {progress.step}{total}"
    if progress.durable_step is not None:
        line += f", safe up to {progress.durable_step}"
    if is_true(status, ConditionType.PROGRESS_STALE) and progress.reported_time is not None:
        line += f", no report since {progress.reported_time:%H:%M:%S}Z"
    return line
