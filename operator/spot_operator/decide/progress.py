"""Progress, step rate and the work that is left, from what trainers report.

Durable progress merges by lineage and never goes back. A percentage is shown, but proves
nothing.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from spot_operator.model import (
    CheckpointStatus,
    JobSpec,
    JobStatus,
    Progress,
    Report,
    S3Location,
    VolumeLocation,
)
from spot_trainer.contract import Outcome

RATE_WEIGHT: Final = 0.3
"""Weight of the newest interval in the moving average of the step rate."""

MIN_RATE_INTERVAL_SECONDS: Final = 1.0


def merge_report(progress: Progress, report: Report | None) -> Progress:
    """Progress after `report`; measured by the operator's own clock, not the pod's."""
    if report is None or not is_news(progress, report):
        return progress
    durable_step, durable_time = progress.durable_step, progress.durable_time
    if report.durable_step is not None and report.durable_step > (
        durable_step if durable_step is not None else -1
    ):
        durable_step, durable_time = report.durable_step, report.durable_time or report.received
    stale = (
        report.incarnation is not None
        and progress.incarnation is not None
        and report.incarnation < progress.incarnation
    )
    if stale:
        return replace(progress, durable_step=durable_step, durable_time=durable_time)
    step = report.step if report.step is not None else progress.step
    merged = replace(
        progress,
        percentage=_percentage(report, step),
        step=step,
        total_steps=report.total_steps if report.total_steps is not None else progress.total_steps,
        durable_step=durable_step,
        durable_time=durable_time,
        incarnation=report.incarnation,
        steps_per_second=_rate(progress, report),
        reported_time=report.received,
    )
    return replace(merged, estimated_completion_time=_estimated_completion(merged, report))


def _percentage(report: Report, step: int | None) -> int | None:
    if step is not None and report.total_steps:
        return min(100, 100 * step // report.total_steps)
    return report.percentage


def _rate(progress: Progress, report: Report) -> float | None:
    previous = progress.steps_per_second
    if (
        report.step is None
        or progress.step is None
        or progress.reported_time is None
        or report.incarnation != progress.incarnation
    ):
        return previous
    seconds = (report.received - progress.reported_time).total_seconds()
    steps = report.step - progress.step
    if seconds < MIN_RATE_INTERVAL_SECONDS or steps < 0:
        return previous
    rate = steps / seconds
    return round(rate if previous is None else RATE_WEIGHT * rate + (1 - RATE_WEIGHT) * previous, 3)


def _estimated_completion(progress: Progress, report: Report) -> datetime | None:
    if progress.steps_per_second and progress.total_steps is not None and progress.step is not None:
        seconds = (progress.total_steps - progress.step) / progress.steps_per_second
    elif report.estimated_remaining_seconds is not None:
        seconds = float(report.estimated_remaining_seconds)
    else:
        return progress.estimated_completion_time
    try:
        return (report.received + timedelta(seconds=max(0.0, seconds))).replace(microsecond=0)
    except OverflowError:
        return None


def merge_outcome(progress: Progress, outcome: Outcome | None, now: datetime) -> Progress:
    """The last word of a pod that ended: its final checkpoint."""
    if outcome is None or outcome.checkpoint is None or not outcome.checkpoint.name:
        return progress
    if progress.durable_step is not None and outcome.checkpoint.step <= progress.durable_step:
        return progress
    return replace(progress, durable_step=outcome.checkpoint.step, durable_time=now)


def is_news(progress: Progress, report: Report | None) -> bool:
    """Whether the report came after all that is known."""
    return report is not None and (progress.reported_time is None or report.received > progress.reported_time)


def newest_checkpoint(
    current: CheckpointStatus | None,
    *,
    name: str | None,
    step: int | None,
    time: datetime | None,
    location: str,
) -> CheckpointStatus | None:
    if not name or step is None or time is None or (current is not None and current.step >= step):
        return current
    return CheckpointStatus(name=name, step=step, time=time, location=location)


def location_name(location: S3Location | VolumeLocation) -> str:
    """The place of checkpoints in one word; equal for equal places."""
    if isinstance(location, VolumeLocation):
        return f"persistentVolumeClaim/{location.claim_name}/{location.sub_path}".rstrip("/")
    where = f"s3://{location.bucket}/{location.prefix}".rstrip("/")
    return f"{where} at {location.endpoint}" if location.endpoint else where


def remaining_work_seconds(status: JobStatus, spec: JobSpec) -> float | None:
    """Seconds of training left, counted from the durable step; None: nothing is known.

    Work that is not durable yet counts as left, since an interruption may take it away.
    """
    progress = status.progress
    durable = progress.durable_step or 0
    if progress.steps_per_second and progress.total_steps is not None:
        return max(0.0, (progress.total_steps - durable) / progress.steps_per_second)
    expected = spec.deadline.expected_duration_seconds if spec.deadline is not None else None
    if expected is None:
        return None
    if progress.total_steps:
        return expected * max(0.0, 1 - durable / progress.total_steps)
    return float(expected)
