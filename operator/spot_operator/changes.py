"""What a new status would tell that the stored one does not: whether it is worth a write.

Pure. Invariant: node time and what it costs alone never cause a write, so an idle job causes none;
progress alone, and what a node says of its price, are written at a bounded rate; everything else is
written at once.
"""

from dataclasses import replace
from enum import StrEnum

from spot_operator.model import Cost, Gang, InterruptionRate, JobStatus, Progress


class Change(StrEnum):
    """The weightiest thing that differs between two statuses."""

    NOTHING = "nothing"
    """Nothing, or only node time that went by."""
    PROGRESS = "progress"
    """Numbers that move by themselves, and sentences that tell them."""
    SUBSTANCE = "substance"


def _without_accounting(status: JobStatus) -> JobStatus:
    return replace(
        status,
        cost=Cost(),
        interruption_rate=InterruptionRate(),
        gang=_timeless(status.gang),
        predecessor=_timeless(status.predecessor),
    )


def _timeless(gang: Gang | None) -> Gang | None:
    return None if gang is None else replace(gang, accounted_until=None)


def _without_progress(status: JobStatus) -> JobStatus:
    # Sentences may carry step counts; a change of a condition's status or reason is more than that.
    conditions = tuple(replace(condition, message="") for condition in status.conditions)
    capacity = status.capacity
    if capacity is not None:
        capacity = replace(capacity, message="", next_decision_time=None)
    return replace(
        status,
        progress=Progress(),
        checkpoint=None,
        message="",
        conditions=conditions,
        capacity=capacity,
        gang=_priceless(status.gang),
        predecessor=_priceless(status.predecessor),
    )


def _priceless(gang: Gang | None) -> Gang | None:
    """A market may move every second; a price that is seconds old is off by fractions of a cent."""
    if gang is None:
        return None
    return replace(gang, pods=tuple(replace(record, price_per_node_hour=None) for record in gang.pods))


def compare(old: JobStatus, new: JobStatus) -> Change:
    old, new = _without_accounting(old), _without_accounting(new)
    if old == new:
        return Change.NOTHING
    if _without_progress(old) == _without_progress(new):
        return Change.PROGRESS
    return Change.SUBSTANCE
