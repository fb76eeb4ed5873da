"""Counters of what happened to jobs, from the difference of two statuses.

Called once per successful status write, so that what status counts once is counted once.
"""

from typing import Final

from spot_operator import metrics
from spot_operator.model import JobStatus
from spot_operator.names import Cause

TAKEN_AWAY: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST, Cause.SCHEDULER_PREEMPTION})


def tally(old: JobStatus, new: JobStatus) -> None:
    """Count the restarts and launches that `new` has and `old` has not."""
    known = {(restart.incarnation, restart.pod_uid) for restart in old.recent_restarts}
    for restart in new.recent_restarts:
        if (restart.incarnation, restart.pod_uid) in known:
            continue
        metrics.RESTARTS.labels(restart.cause, restart.capacity_type).inc()
        if restart.cause in TAKEN_AWAY:
            metrics.INTERRUPTIONS.labels(restart.cause).inc()
    if new.incarnation > old.incarnation and new.gang is not None:
        metrics.LAUNCHES.labels(new.gang.capacity_type).inc()
