"""What the operator answers to a progress report."""

from spot_operator.model import JobSpec, Observation
from spot_operator.names import ANNOTATION_CHECKPOINT_REQUESTED_AT
from spot_trainer.contract import Directives


def directives(observation: Observation) -> Directives:
    """Directives for the pods of the job; idempotent, so they may be sent any number of times."""
    spec = observation.spec
    gang = observation.status.gang
    return Directives(
        checkpoint_now=observation.annotations.get(ANNOTATION_CHECKPOINT_REQUESTED_AT),
        deadline=spec.deadline.finish_by if isinstance(spec, JobSpec) and spec.deadline is not None else None,
        stop=str(gang.stop.reason) if gang is not None and gang.stop is not None else None,
    )
