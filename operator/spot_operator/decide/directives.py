"""What the operator answers to a progress report."""

from typing import Final

from spot_operator.decide.losses import mean_seconds_between_losses
from spot_operator.model import JobSpec, JobStatus, Observation
from spot_operator.names import ANNOTATION_CHECKPOINT_REQUESTED_AT
from spot_trainer.contract import Directives, IntervalPolicy, format_time

SUPERSEDED: Final = "Superseded"
"""To a pod that was given up and came back: a later incarnation runs."""


def directives(observation: Observation, incarnation: int) -> Directives:
    """Directives for the pods of an incarnation; idempotent, so they may be sent any number of times."""
    spec = observation.spec if isinstance(observation.spec, JobSpec) else None
    status = observation.status
    wishes = [observation.annotations.get(ANNOTATION_CHECKPOINT_REQUESTED_AT)]
    for gang in (status.gang, status.predecessor):
        # A predecessor that is not stopped works on while its successor asks for spot.
        for record in gang.pods if gang is not None and gang.stop is None else ():
            if record.hint is not None:
                wishes.append(f"hint-{format_time(record.hint.first_seen_time)}")
    capacity = status.capacity
    if capacity is not None and capacity.checkpoint_wish_time is not None:
        wishes.append(f"policy-{format_time(capacity.checkpoint_wish_time)}")
    asked = [wish for wish in wishes if wish]
    is_auto = spec is not None and spec.checkpoint.interval_policy is IntervalPolicy.AUTO
    return Directives(
        # An id that changes with each new wish, and stays while nothing new is wished.
        checkpoint_now="+".join(reversed(asked)) if asked else None,
        mean_seconds_between_losses=mean_seconds_between_losses(status) if is_auto else None,
        deadline=spec.deadline.finish_by if spec is not None and spec.deadline is not None else None,
        stop=_stop(status, incarnation),
        predecessor_dead=_dead_predecessor(status, incarnation),
    )


def _stop(status: JobStatus, incarnation: int) -> str | None:
    for gang in (status.gang, status.predecessor):
        if gang is not None and gang.incarnation == incarnation:
            return str(gang.stop.reason) if gang.stop is not None else None
    if status.gang is not None and incarnation < status.gang.incarnation:
        return SUPERSEDED
    return None


def _dead_predecessor(status: JobStatus, incarnation: int) -> int | None:
    """Its verdict is given, so no pod of it can lose anything any more."""
    gang = status.gang
    if gang is None or gang.incarnation != incarnation or status.predecessor is not None:
        return None
    return gang.hands_over_from
