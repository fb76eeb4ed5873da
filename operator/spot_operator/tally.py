"""Counters of what happened to jobs, from the difference of two statuses.

Called once per successful status write, so that what status counts once is counted once.
"""

from decimal import Decimal
from typing import Final

from prometheus_client import Counter

from spot_operator import metrics
from spot_operator.decide.rates import seen
from spot_operator.model import Cost, JobStatus
from spot_operator.names import CapacityType, Cause
from spot_operator.policy import Interruptions

TAKEN_AWAY: Final = frozenset({Cause.INTERRUPTION, Cause.NODE_LOST, Cause.SCHEDULER_PREEMPTION})


def tally(old: JobStatus, new: JobStatus) -> None:
    """Count the restarts, launches, node time and money that `new` has and `old` has not."""
    known = {(restart.incarnation, restart.pod_uid) for restart in old.recent_restarts}
    for restart in new.recent_restarts:
        if (restart.incarnation, restart.pod_uid) in known:
            continue
        metrics.RESTARTS.labels(restart.cause, restart.capacity_type).inc()
        if restart.cause in TAKEN_AWAY:
            metrics.INTERRUPTIONS.labels(restart.cause).inc()
    if new.incarnation > old.incarnation and new.gang is not None:
        metrics.LAUNCHES.labels(new.gang.capacity_type).inc()
    _tally_cost(old.cost, new.cost)
    seen_before = seen(old.interruption_rate)
    for zone, now in seen(new.interruption_rate).items():
        before = seen_before.get(zone, Interruptions())
        _grow(metrics.SPOT_INTERRUPTIONS.labels(zone), before.count, now.count)
        _grow(metrics.SPOT_NODE_SECONDS.labels(zone), before.node_seconds, now.node_seconds)


def _tally_cost(old: Cost, new: Cost) -> None:
    spot, on_demand = (metrics.NODE_SECONDS.labels(each) for each in CapacityType)
    _grow(spot, old.spot_node_seconds, new.spot_node_seconds)
    _grow(on_demand, old.on_demand_node_seconds, new.on_demand_node_seconds)
    _grow(metrics.UNPRICED_NODE_SECONDS, _unpriced(old), _unpriced(new))
    # An earlier version did not accrue.
    _grow(metrics.COST_SPENT, old.spent if old.accrued is None else old.accrued, new.accrued)
    if new.on_demand_price is not None:
        # Of the new time alone: `on_demand_only` is all of it at today's price, and a counter that took its
        # rises and not its falls would grow with every change of the price.
        before = _node_seconds(old) if old.on_demand_price is not None else 0.0
        hours = max(0.0, _node_seconds(new) - before) / 3600
        metrics.COST_ON_DEMAND_ONLY.inc(hours * float(new.on_demand_price))


def _node_seconds(cost: Cost) -> float:
    return cost.spot_node_seconds + cost.on_demand_node_seconds


def _unpriced(cost: Cost) -> float:
    return cost.unpriced_spot_node_seconds + cost.unpriced_on_demand_node_seconds


def _grow(counter: Counter, old: float | Decimal | None, new: float | Decimal | None) -> None:
    """A counter never falls, whatever becomes of one job's number."""
    counter.inc(max(0.0, float(new or 0) - float(old or 0)))
