"""Does a new status deserve a write at once, soon, or not at all?

Idle jobs must cause no writes, and a chatty trainer no more than one per job and interval;
everything that a person or a later decision depends on is written at once.
"""

from dataclasses import replace
from enum import Enum, auto

from spot_operator.model import Cost, JobStatus, Progress


class Change(Enum):
    NONE = auto()
    """Nothing, or only node time that went by."""
    PROGRESS = auto()
    """Numbers that move by themselves: at most one write per interval."""
    SIGNIFICANT = auto()


def compare(old: JobStatus, new: JobStatus) -> Change:
    if _without_cost(old) == _without_cost(new):
        return Change.NONE
    if _without_progress(old) == _without_progress(new):
        return Change.PROGRESS
    return Change.SIGNIFICANT


def _without_cost(status: JobStatus) -> JobStatus:
    gang = replace(status.gang, accounted_until=None) if status.gang is not None else None
    return replace(status, cost=Cost(), gang=gang)


def _without_progress(status: JobStatus) -> JobStatus:
    capacity = replace(status.capacity, next_decision_time=None) if status.capacity is not None else None
    return replace(_without_cost(status), progress=Progress(), checkpoint=None, message="", capacity=capacity)
