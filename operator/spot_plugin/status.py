"""`status`: where each job is, in one line."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from spot_plugin.job import Job
from spot_plugin.words import clean, duration, table

HEADER: tuple[str, ...] = (
    "NAME", "PHASE", "CAPACITY", "PROGRESS", "STEP", "SAFE", "ETA", "DEADLINE", "SLACK",
    "INTERRUPTED", "FAILED", "COST", "PROJECTED",
)  # fmt: skip
RIGHT: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def as_table(jobs: Sequence[Job], now: datetime, *, with_namespace: bool = False) -> list[str]:
    if not jobs:
        return ["No jobs here."]
    header, rows, right = HEADER, [_row(job, now) for job in jobs], RIGHT
    if with_namespace:
        header = ("NAMESPACE", *header)
        rows = [(job.namespace, *row) for job, row in zip(jobs, rows, strict=True)]
        right = tuple(column + 1 for column in right)
    return table(header, rows, right=right)


def _row(job: Job, now: datetime) -> tuple[str, ...]:
    total = job.get("status.progress.totalSteps")
    step = job.get("status.progress.step")
    eta = None if job.is_finished or not job.nodes else job.remaining_seconds(now)
    left = None if job.deadline is None or job.is_finished else (job.deadline - now).total_seconds()
    percentage = job.get("status.progress.percentage")
    return (
        job.name,
        clean(job.phase),
        clean(job.get("status.capacity.type", "-")),
        "-" if percentage is None else f"{percentage}%",
        "-" if step is None else f"{step}" + ("" if total is None else f"/{total}"),
        str(job.get("status.progress.durableStep", "-")),
        duration(eta),
        duration(left),
        duration(job.slack_seconds(now)),
        str(job.get("status.restarts.interruptions", 0)),
        str(job.get("status.restarts.failures", 0)),
        str(job.get("status.cost.spent", "-")),
        str(job.get("status.cost.projected", "-")),
    )


def as_json(job: Job, now: datetime) -> dict[str, Any]:
    remaining, slack = job.remaining_seconds(now), job.slack_seconds(now)
    finish = None if remaining is None or job.is_finished else now + timedelta(seconds=remaining)
    return {
        "namespace": job.namespace,
        "name": job.name,
        "phase": job.phase,
        "capacity": job.get("status.capacity"),
        "progress": job.get("status.progress"),
        "remainingSeconds": None if remaining is None else round(remaining),
        "estimatedFinishTime": None if finish is None else finish.isoformat(timespec="seconds"),
        "deadline": None if job.deadline is None else job.deadline.isoformat(),
        "slackSeconds": None if slack is None else round(slack),
        "restarts": job.get("status.restarts", {}),
        "cost": job.get("status.cost"),
        "interruptionRate": job.get("status.interruptionRate"),
        "message": job.get("status.message", ""),
    }
