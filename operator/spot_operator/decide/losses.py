"""How often work of a job is lost: what the trainer's automatic interval rests on.

A restart counts if steps have to be repeated; one whose notice was long enough for a last
checkpoint costs nothing, and checkpoints made more often would not help it.
"""

from typing import Final

from spot_operator.decide.restarts import MAX_RECENT_RESTARTS
from spot_operator.model import JobStatus

PRIOR_SECONDS: Final = 2 * 3600
"""The mean assumed before anything was seen; it weighs as much as one loss."""


def mean_seconds_between_losses(status: JobStatus) -> int:
    """The expected time that the job runs between two losses of work, in seconds, at least 1.

    The mean of the posterior of a Poisson process' waiting time: one loss in `PRIOR_SECONDS` was
    assumed, `n` losses in `t` seconds on nodes were seen (Gamma-Poisson, any textbook).
    """
    restarts = status.recent_restarts
    num_losses = sum(1 for restart in restarts if restart.lost_steps)
    seconds = status.cost.spot_node_seconds + status.cost.on_demand_node_seconds
    if len(restarts) == MAX_RECENT_RESTARTS:  # older ones are forgotten, so their time must not count
        seconds = min(seconds, (restarts[-1].time - restarts[0].time).total_seconds())
    return max(1, round((PRIOR_SECONDS + seconds) / (1 + num_losses)))
