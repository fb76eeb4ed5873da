"""Progress, step rate and the work that is left, from what trainers report.

Durable progress merges by lineage and never goes back. A percentage is shown, but proves
nothing: Hugging Face `transformers` says 0 % when it resumes and 100 % when it is stopped.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

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

N = TypeVar("N", int, float)

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
    launch, before = _launch(report), _launch(progress)
    if launch is not None and before is not None and launch < before:
        return replace(progress, durable_step=durable_step, durable_time=durable_time)
    told = progress.step or progress.percentage
    if told and launch != before and not report.step and not report.percentage:
        # A start that has not resumed yet, or cannot say so: what was reached stays what is known.
        return replace(
            progress,
            total_steps=report.total_steps if report.total_steps is not None else progress.total_steps,
            durable_step=durable_step,
            durable_time=durable_time,
            reported_time=report.received,
        )
    step = report.step if report.step is not None else progress.step
    has_moved = step is not None and (step != progress.step or launch != before)
    merged = replace(
        progress,
        percentage=_percentage(report, step),
        step=step,
        step_time=report.received if has_moved else progress.step_time,
        total_steps=report.total_steps if report.total_steps is not None else progress.total_steps,
        durable_step=durable_step,
        durable_time=durable_time,
        incarnation=report.incarnation,
        launch=launch,
        steps_per_second=_rate(progress, report),
        reported_time=report.received,
    )
    return replace(merged, estimated_completion_time=_estimated_completion(merged, report))


def _launch(said: Report | Progress) -> int | None:
    return said.launch if said.launch is not None else said.incarnation


def _percentage(report: Report, step: int | None) -> int | None:
    if step is not None and report.total_steps:
        return min(100, 100 * step // report.total_steps)
    return report.percentage


def _rate(progress: Progress, report: Report) -> float | None:
    if report.steps_per_second is not None:
        return round(report.steps_per_second, 3) or progress.steps_per_second
    previous = progress.steps_per_second
    # Not from the last report: one without a step, such as the last one of transformers, is no step of none.
    since = progress.step_time or progress.reported_time
    if report.step is None or progress.step is None or since is None or _launch(report) != _launch(progress):
        return previous
    seconds = (report.received - since).total_seconds()
    steps = report.step - progress.step
    if seconds < MIN_RATE_INTERVAL_SECONDS or steps <= 0:
        return previous
    rate = steps / seconds
    return round(rate if previous is None else RATE_WEIGHT * rate + (1 - RATE_WEIGHT) * previous, 3)


def _estimated_completion(progress: Progress, report: Report) -> datetime | None:
    if progress.steps_per_second and progress.total_steps is not None and progress.step is not None:
        seconds = (progress.total_steps - progress.step) / progress.steps_per_second
    elif report.estimated_remaining_seconds is not None and _estimates_well(report):
        seconds = float(report.estimated_remaining_seconds)
    else:
        return progress.estimated_completion_time
    try:
        return (report.received + timedelta(seconds=max(0.0, seconds))).replace(microsecond=0)
    except OverflowError:
        return None


def _estimates_well(report: Report) -> bool:
    """Transformers divides the time of one process by the steps of all: after a resume that is far too
    little. Its steps tell more; a client that has none is taken at its word."""
    return report.incarnation is not None or report.step is None


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
    if current is not None:
        return replace(current, name=name, step=step, time=time, location=location)
    return CheckpointStatus(name=name, step=step, time=time, location=location)


def with_measurements(checkpoint: CheckpointStatus | None, report: Report | None) -> CheckpointStatus | None:
    """With what the trainer says that saving and restoring take."""
    if checkpoint is None or report is None:
        return checkpoint
    return replace(
        checkpoint,
        size_bytes=_either(report.checkpoint_bytes, checkpoint.size_bytes),
        save_seconds=_either(report.save_seconds, checkpoint.save_seconds),
        stall_seconds=_either(report.stall_seconds, checkpoint.stall_seconds),
        restore_seconds=_either(report.restore_seconds, checkpoint.restore_seconds),
    )


def _either(new: N | None, old: N | None) -> N | None:
    return old if new is None else new


def location_name(location: S3Location | VolumeLocation) -> str:
    """The place of checkpoints in one word; equal for equal places."""
    if isinstance(location, VolumeLocation):
        return f"persistentVolumeClaim/{location.claim_name}/{location.sub_path}".rstrip("/")
    where = f"s3://{location.bucket}/{location.prefix}".rstrip("/")
    return f"{where} at {location.endpoint}" if location.endpoint else where


@dataclass(frozen=True)
class Work:
    """What is left, and what that is known from."""

    seconds: float | None
    basis: str


BY_DURABLE_STEPS: Final = "by durable steps"
BY_REPORTED_STEPS: Final = "by reported steps less one checkpoint interval"
BY_PERCENTAGE: Final = "by the reported percentage less one checkpoint interval"
BY_EXPECTED_DURATION: Final = "by the expected duration alone"
UNKNOWN_WORK: Final = "without reports and expectedDurationSeconds"


def remaining_work(status: JobStatus, spec: JobSpec) -> Work:
    """Training left, counted from what would survive an interruption.

    That is the durable step. A container that does not tell of its checkpoints is taken to have made one
    within the last interval; one that tells of none has none.
    """
    progress = status.progress
    tells = status.claims or progress.durable_step is not None
    durable, total, rate = progress.durable_step or 0, progress.total_steps, progress.steps_per_second
    interval = spec.checkpoint.interval_seconds
    if rate and total is not None:
        if tells:
            return Work(max(0.0, (total - durable) / rate), BY_DURABLE_STEPS)
        credited = max(0.0, (progress.step or 0) - interval * rate)
        return Work(max(0.0, (total - credited) / rate), BY_REPORTED_STEPS)
    expected = spec.deadline.expected_duration_seconds if spec.deadline is not None else None
    if expected is None:
        return Work(None, UNKNOWN_WORK)
    if total and progress.durable_step is not None:
        return Work(expected * max(0.0, 1 - durable / total), BY_DURABLE_STEPS)
    if progress.percentage and not tells:
        credited = max(0.0, progress.percentage / 100 * expected - interval)
        return Work(max(0.0, expected - credited), BY_PERCENTAGE)
    return Work(float(expected), BY_EXPECTED_DURATION)


def remaining_work_seconds(status: JobStatus, spec: JobSpec) -> float | None:
    """Seconds of training left; None: nothing is known."""
    return remaining_work(status, spec).seconds
