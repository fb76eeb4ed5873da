"""The newest progress of each job, merged from what its pods report.

Kept in memory only: after a restart of the operator the next report, at most seconds away,
brings it back, and what was durable stands in status. Invariants: durable progress never
goes backwards; who reports is what the token proved, never what the body says; a late
report of an earlier incarnation may still prove durable progress, and nothing else, and that
only until its successor has said what it builds on: what is published later is not of its lineage.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from spot_operator.model import Report
from spot_operator.pod_book import JobPod
from spot_trainer.contract import MAX_INTEGER, Metric, ProgressReport

V = TypeVar("V")


@dataclass(frozen=True)
class _Entry:
    launch: int
    """The newest incarnation that has reported, by the identity of its pod."""
    has_base: bool
    """It has named a durable step: what an earlier one publishes from then on is not of its lineage."""
    report: Report


def _metric_as_int(report: ProgressReport, name: Metric) -> int | None:
    text = report.metrics.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _metric_as_float(report: ProgressReport, name: Metric) -> float | None:
    text = report.metrics.get(name, "")
    try:
        value = float(text if text.isascii() else "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MAX_INTEGER else None


def read_report(body: ProgressReport, *, pod_uid: str, launch: int, now: datetime) -> Report:
    """A report as the operator believes it: identity and times from us, the rest from the pod."""
    step = body.step if body.step is not None else _metric_as_int(body, Metric.CURRENT_STEP)
    total = body.total_steps if body.total_steps is not None else _metric_as_int(body, Metric.TOTAL_STEPS)
    report = Report(
        pod_uid=pod_uid,
        received=now,
        launch=launch,
        # That the body has an incarnation says that the client speaks our extension; which one
        # it is, its pod says.
        incarnation=launch if body.incarnation is not None else None,
        percentage=body.progress_percentage,
        estimated_remaining_seconds=body.estimated_remaining_seconds,
        step=step,
        total_steps=total,
        durable_step=body.durable_step,
        # A pod's clock that runs ahead must not make a checkpoint from the future.
        durable_time=min(body.durable_time, now) if body.durable_time is not None else None,
        checkpoint_name=body.checkpoint_name,
    )
    if body.incarnation is None:
        return report
    return replace(
        report,
        # Where nothing moves the operator measures as well as the trainer.
        steps_per_second=_metric_as_float(body, Metric.STEPS_PER_SECOND) or None,
        checkpoint_bytes=_metric_as_int(body, Metric.CHECKPOINT_BYTES),
        save_seconds=_metric_as_float(body, Metric.CHECKPOINT_SECONDS),
        stall_seconds=_metric_as_float(body, Metric.CHECKPOINT_STALL_SECONDS),
        restore_seconds=_metric_as_float(body, Metric.RESTORE_SECONDS),
    )


def _newer(new: V | None, old: V | None) -> V | None:
    return old if new is None else new


def merge_reports(old: Report, old_launch: int, new: Report, new_launch: int) -> Report:
    """What is known after `new`, given what was known before it."""
    if new_launch < old_launch:
        merged = replace(old, received=max(old.received, new.received))
    elif new_launch > old_launch:
        merged = new
    else:
        merged = replace(
            new,
            incarnation=_newer(new.incarnation, old.incarnation),
            percentage=_newer(new.percentage, old.percentage),
            estimated_remaining_seconds=_newer(
                new.estimated_remaining_seconds, old.estimated_remaining_seconds
            ),
            step=_newer(new.step, old.step),
            total_steps=_newer(new.total_steps, old.total_steps),
            steps_per_second=_newer(new.steps_per_second, old.steps_per_second),
            checkpoint_bytes=_newer(new.checkpoint_bytes, old.checkpoint_bytes),
            save_seconds=_newer(new.save_seconds, old.save_seconds),
            stall_seconds=_newer(new.stall_seconds, old.stall_seconds),
            restore_seconds=_newer(new.restore_seconds, old.restore_seconds),
        )
    durable = max((old, new), key=lambda report: -1 if report.durable_step is None else report.durable_step)
    return replace(
        merged,
        durable_step=durable.durable_step,
        durable_time=durable.durable_time,
        checkpoint_name=durable.checkpoint_name,
    )


class ReportBook:
    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def get(self, job_uid: str) -> Report | None:
        entry = self._entries.get(job_uid)
        return entry.report if entry is not None else None

    def accept(self, pod: JobPod, pod_uid: str, body: ProgressReport, now: datetime) -> bool:
        """Take in a report; whether the job should look at once (durable progress, a new start)."""
        new = read_report(body, pod_uid=pod_uid, launch=pod.incarnation, now=now)
        entry = self._entries.get(pod.job_uid)
        names_base = new.durable_step is not None
        if entry is None:
            self._entries[pod.job_uid] = _Entry(pod.incarnation, names_base, new)
            return True
        if pod.incarnation < entry.launch and entry.has_base:
            return False
        merged = merge_reports(entry.report, entry.launch, new, pod.incarnation)
        if pod.incarnation > entry.launch:
            self._entries[pod.job_uid] = _Entry(pod.incarnation, names_base, merged)
        else:
            is_newest = pod.incarnation == entry.launch
            has_base = entry.has_base or (names_base and is_newest)
            self._entries[pod.job_uid] = _Entry(entry.launch, has_base, merged)
        return (
            merged.durable_step != entry.report.durable_step or merged.incarnation != entry.report.incarnation
        )

    def forget(self, job_uid: str) -> None:
        self._entries.pop(job_uid, None)
