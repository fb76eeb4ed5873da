"""Node time on each capacity type, and what it cost.

A node is paid for from the moment the pod was bound to it until the pod ended, or until the node
was gone, however long its pod is still waited for; one node a pod is assumed. Prices are the job's;
without them only the seconds are known.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from spot_operator.model import Cost, Gang, JobSpec
from spot_operator.names import CapacityType

SECONDS_PER_HOUR: Final = 3600
CENT_FRACTION: Final = Decimal("0.0001")


def account(cost: Cost, gang: Gang, spec: JobSpec, until: datetime) -> tuple[Cost, Gang]:
    """Cost and gang with the node time up to `until` added."""
    seconds = 0.0
    for record in gang.pods:
        if record.scheduled_time is not None:
            since = max(record.scheduled_time, gang.accounted_until or record.scheduled_time)
            paid_until = until if record.node_gone_time is None else min(until, record.node_gone_time)
            seconds += max(0.0, (paid_until - since).total_seconds())
    if seconds == 0.0:
        return cost, gang
    if gang.capacity_type is CapacityType.SPOT:
        cost = replace(cost, spot_node_seconds=round(cost.spot_node_seconds + seconds, 3))
    else:
        cost = replace(cost, on_demand_node_seconds=round(cost.on_demand_node_seconds + seconds, 3))
    return _priced(cost, spec), replace(gang, accounted_until=until)


def _priced(cost: Cost, spec: JobSpec) -> Cost:
    spot, on_demand = spec.spot.price_per_node_hour, spec.on_demand.price_per_node_hour
    spot_hours = Decimal(str(cost.spot_node_seconds)) / SECONDS_PER_HOUR
    on_demand_hours = Decimal(str(cost.on_demand_node_seconds)) / SECONDS_PER_HOUR
    known = (spot is not None or not spot_hours) and (on_demand is not None or not on_demand_hours)
    spent = spot_hours * (spot or 0) + on_demand_hours * (on_demand or 0) if known else None
    return replace(
        cost,
        spent=spent.quantize(CENT_FRACTION) if spent is not None else None,
        on_demand_only=((spot_hours + on_demand_hours) * on_demand).quantize(CENT_FRACTION)
        if on_demand is not None
        else None,
    )
