"""What the operator answers to a progress report."""

from spot_operator.decide.losses import mean_seconds_between_losses
from spot_operator.model import JobSpec, Observation
from spot_operator.names import ANNOTATION_CHECKPOINT_REQUESTED_AT
from spot_trainer.contract import Directives, IntervalPolicy, format_time


def directives(observation: Observation) -> Directives:
    """Directives for the pods of the job; idempotent, so they may be sent any number of times."""
    spec = observation.spec if isinstance(observation.spec, JobSpec) else None
    gang = observation.status.gang
    wishes = [observation.annotations.get(ANNOTATION_CHECKPOINT_REQUESTED_AT)]
    for record in gang.pods if gang is not None else ():
        if record.hint is not None:
            wishes.append(f"hint-{format_time(record.hint.first_seen_time)}")
    asked = [wish for wish in wishes if wish]
    is_auto = spec is not None and spec.checkpoint.interval_policy is IntervalPolicy.AUTO
    return Directives(
        # An id that changes with each new wish, and stays while nothing new is wished.
        checkpoint_now="+".join(reversed(asked)) if asked else None,
        mean_seconds_between_losses=mean_seconds_between_losses(observation.status) if is_auto else None,
        deadline=spec.deadline.finish_by if spec is not None and spec.deadline is not None else None,
        stop=str(gang.stop.reason) if gang is not None and gang.stop is not None else None,
    )
