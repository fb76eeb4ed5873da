"""How long launches take until they do useful work, and how often a notice was enough: seen, and kept.

A launch counts from its intent to the first step that its trainer reports; of a container that never
reports, to the start of the program. Where spot was waited for, it counts from the node on: how long there
was none says nothing of the next launch. Invariant: every incarnation is measured at most once, and what
was measured is in status, so that another process goes on from there.
"""

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from spot_operator.model import Gang, JobStatus, LaunchPhases, Overheads, PodRecord, Report, Restart
from spot_operator.names import CapacityType, Cause
from spot_operator.policy import Launches

PLAIN_SECONDS = 60.0
"""A container that has run for so long without a report is one that makes none."""


def measure_launch(
    status: JobStatus,
    report: Report | None,
    now: datetime,
    *,
    patience_seconds: float,
    reports_since: datetime | None,
) -> JobStatus:
    """Status with the launch of the gang measured, if it is doing useful work and was not before.

    Where nobody could hear the first report (`reports_since` is when this process began to), how long the
    launch took is not known and not guessed.
    """
    gang = status.gang
    if gang is None:
        return status
    record = gang.pods[0]
    working = _working_time(record, report, now, claims=status.claims)
    if record.working_time is not None or working is None:
        return status
    pods = (replace(record, working_time=working), *gang.pods[1:])
    if report is not None and _was_unheard(record, reports_since):
        return replace(status, gang=replace(gang, pods=pods))
    began = launch_began(gang, record.scheduled_time, patience_seconds)
    seconds = max(0.0, (working - began).total_seconds())
    return replace(
        status,
        gang=replace(gang, pods=pods),
        overheads=_with_phases(
            _with_launch(status.overheads, gang, round(seconds, 1)), gang, record, began, working
        ),
    )


def launch_began(gang: Gang, bound: datetime | None, patience_seconds: float) -> datetime:
    """From when a launch counts, whose pod was bound to a node at `bound`.

    A pod that has waited for a spot node for longer than `patience_seconds` has waited for capacity, which
    is no part of a launch. Waiting for on-demand always is: a deadline depends on it.
    """
    began = gang.created_time
    is_wait = bound is not None and (bound - began).total_seconds() > patience_seconds
    return bound if is_wait and bound is not None and gang.capacity_type is CapacityType.SPOT else began


def _was_unheard(record: PodRecord, reports_since: datetime | None) -> bool:
    """The program had run for so long before there was an ear that its first report may well be lost."""
    if reports_since is None or record.started_time is None:
        return False
    return (reports_since - record.started_time).total_seconds() > PLAIN_SECONDS


def _working_time(
    record: PodRecord, report: Report | None, now: datetime, *, claims: bool
) -> datetime | None:
    if report is not None and report.pod_uid == record.uid:
        return report.received if report.step is not None or report.percentage is not None else None
    if claims or record.started_time is None:
        return None
    ends = (record.node_gone_time, record.exit_time, record.finished_time)
    until = min((now, *(end for end in ends if end is not None)))
    if (until - record.started_time).total_seconds() < PLAIN_SECONDS:
        return None
    return record.started_time if report is None else None


def _with_launch(overheads: Overheads, gang: Gang, seconds: float) -> Overheads:
    if gang.capacity_type is CapacityType.SPOT:
        return replace(overheads, spot=overheads.spot.and_one(seconds))
    return replace(overheads, on_demand=overheads.on_demand.and_one(seconds))


def _with_phases(
    overheads: Overheads, gang: Gang, record: PodRecord, began: datetime, working: datetime
) -> Overheads:
    if record.scheduled_time is None or record.started_time is None:
        return overheads
    times = (began, record.scheduled_time, record.started_time, working)
    # Clocks of several machines: none of the phases is negative.
    scheduling, starting, restoring = (
        round(max(0.0, (later - earlier).total_seconds()), 1) for earlier, later in pairwise(times)
    )

    def and_one(seen: LaunchPhases) -> LaunchPhases:
        return LaunchPhases(
            count=seen.count + 1,
            scheduling_seconds=round(seen.scheduling_seconds + scheduling, 1),
            starting_seconds=round(seen.starting_seconds + starting, 1),
            restoring_seconds=round(seen.restoring_seconds + restoring, 1),
        )

    if gang.capacity_type is CapacityType.SPOT:
        return replace(overheads, spot_phases=and_one(overheads.spot_phases))
    return replace(overheads, on_demand_phases=and_one(overheads.on_demand_phases))


def note_interruption(status: JobStatus, restart: Restart) -> JobStatus:
    """Status with what this loss of spot capacity says of notices: was the last checkpoint made in time?

    Not if the end of the program was never seen: what it did after its last report went with its node.
    """
    is_loss = restart.cause is Cause.INTERRUPTION and restart.capacity_type is CapacityType.SPOT
    if not is_loss or restart.lost_steps is None:
        return status
    landed = restart.lost_steps == 0 and restart.exit_code is not None
    return replace(status, notices=status.notices.and_one(landed=landed))


def merged(first: Launches, second: Launches) -> Launches:
    """What both have seen."""
    if not first.count or not second.count:
        return first if first.count else second
    return Launches(
        first.count + second.count,
        first.total_seconds + second.total_seconds,
        min(first.shortest_seconds, second.shortest_seconds),
        max(first.longest_seconds, second.longest_seconds),
    )
