"""`suspend`, `resume` and `checkpoint`: one patch each, and how to see that it came to pass.

Invariant: the plugin writes spec.suspend and one annotation, nothing else; what happens then is the
operator's business, and `--wait` only looks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from spot_operator.names import ANNOTATION_CHECKPOINT_REQUESTED_AT, ConditionType
from spot_plugin.errors import Exit, PluginError
from spot_plugin.job import Job
from spot_plugin.kubectl import Kubectl
from spot_plugin.words import clean, duration

POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Handed in, so that waiting can be tested without any."""

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for."""

    said: str
    is_done: Callable[[Job], bool]
    done: Callable[[Job], str]


def suspend(kubectl: Kubectl, name: str) -> Wish:
    job = _unfinished(kubectl, name, "suspended")
    if not job.get("spec.suspend"):
        kubectl.patch(name, {"spec": {"suspend": True}})
    return Wish(
        said=f"{name} is to be suspended: it saves a last checkpoint, then its pod ends",
        is_done=lambda job: (
            job.is_true(ConditionType.SUSPENDED)
            and not job.get("status.gang")
            and not job.get("status.predecessor")
        ),
        done=lambda job: f"{name} is suspended; its last checkpoint holds step {_safe(job)}",
    )


def resume(kubectl: Kubectl, name: str) -> Wish:
    job = _unfinished(kubectl, name, "resumed")
    if job.get("spec.suspend"):
        kubectl.patch(name, {"spec": {"suspend": False}})
    return Wish(
        said=f"{name} is to go on from its last checkpoint, step {_safe(job)}",
        is_done=lambda job: (
            not job.is_true(ConditionType.SUSPENDED) and job.is_true(ConditionType.PODS_READY)
        ),
        done=lambda job: f"{name} runs on {', '.join(job.nodes)}",
    )


def checkpoint(kubectl: Kubectl, name: str, *, request: str) -> Wish:
    """`request` names the wish: the same name twice is one wish."""
    job = _unfinished(kubectl, name, "asked for a checkpoint")
    if not job.nodes:
        raise PluginError(
            f"{name} is not running, so nothing could save ({_line(job) or job.phase})",
            do=f"`kubectl spottraining explain {name}` says why; its last checkpoint holds step {_safe(job)}",
            code=Exit.CLUSTER,
        )
    if not job.get("status.claims"):
        raise PluginError(
            f"{name} has not reported yet, or its program does not speak to the operator: it cannot be asked",
            do="wait for its first report (status.claims), or use spot_trainer in the training script",
            code=Exit.CLUSTER,
        )
    step, before = job.get("status.progress.step", 0), _safe(job)
    kubectl.patch(name, {"metadata": {"annotations": {ANNOTATION_CHECKPOINT_REQUESTED_AT: request}}})

    def is_done(now: Job) -> bool:
        safe = now.get("status.progress.durableStep")
        return safe is not None and safe >= step and safe != before

    return Wish(
        said=f"{name} is asked to save at its next report; it is at step {step}, safe up to {before}",
        is_done=is_done,
        done=lambda job: f"{name} has saved; it is safe up to step {_safe(job)}",
    )


def wait_for(wish: Wish, kubectl: Kubectl, name: str, *, timeout_seconds: float, clock: Clock) -> Job:
    """The job as it was when the wish had come true."""
    until = clock.monotonic() + timeout_seconds
    while True:
        job = Job(kubectl.job(name))
        if wish.is_done(job):
            return job
        if job.is_finished:
            word = "Complete" if job.is_true(ConditionType.COMPLETE) else "Failed"
            raise PluginError(f"{name} ended meanwhile ({word}): {_line(job)}", code=Exit.CLUSTER)
        if clock.monotonic() >= until:
            raise PluginError(
                f"{name}: not yet after {duration(timeout_seconds)} ({job.phase}: {_line(job)})",
                do=f"the wish stands; `kubectl spottraining explain {name}` says what it waits for",
                code=Exit.TIMED_OUT,
            )
        clock.sleep(POLL_SECONDS)


def _unfinished(kubectl: Kubectl, name: str, what: str) -> Job:
    job = Job(kubectl.job(name))
    if job.is_finished:
        word = "complete" if job.is_true(ConditionType.COMPLETE) else "failed"
        raise PluginError(f"{name} is {word}: it cannot be {what}", code=Exit.CLUSTER)
    return job


def _line(job: Job) -> str:
    return clean(job.get("status.message", ""))


def _safe(job: Job) -> str | int:
    found = job.get("status.progress.durableStep")
    return "none" if found is None else int(found)
