"""From what was recorded to the summary: comparisons, measurements, goals."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from demo import checkpoints, plan
from demo.equality import describe, loss_differences
from demo.jobs import condition, restarts
from demo.lab import Lab
from demo.manifests import JobPlan, checkpoint_uri
from demo.measures import Idle
from demo.recorder import PodTimes, Recorder
from demo.scenes import Scene
from demo.story import Story
from demo.summary import (
    MAX_MEMORY_MB,
    MAX_REPLACE_SECONDS,
    MAX_STOP_SECONDS,
    Equality,
    JobSummary,
    Measure,
    Summary,
    at_most,
    below,
    interruptions,
    interval_steps,
    loss_measures,
    total_cost,
)
from demo.training import Training

STOP_SIGNALS = ("node deletion requested", "tainted", "evicted")
"""The first of these steps of a reclaim tells the operator, or the kubelet, to stop the pod."""


def summarize(story: Story, idle: Idle, wall_seconds: float, prepare_seconds: float) -> Summary:
    """Everything that is known at the end."""
    main, reference = plan.main_job(story.options), plan.reference_job(story.options)
    found = [_job_summary(story, job) for job in (main, plan.deadline_job(story.options))]
    statuses = [story.jobs.get(job.name)["status"] for job in found]
    lost = [each for job in found for each in job.interruptions]
    measures = [
        *loss_measures(lost, interval_steps(plan.INTERVAL_SECONDS, plan.STEP_SECONDS)),
        below(
            "stop signal on the node to SIGTERM in the container",
            max(stop_seconds(story.scenes, story.recorder), default=None),
            MAX_STOP_SECONDS,
            "s",
        ),
        below(
            "old pod gone to replacement created",
            max(replace_seconds(list(story.recorder.pods.values()), main.name, story.scenes), default=None),
            MAX_REPLACE_SECONDS,
            "s",
        ),
        below("operator idle, resident memory", idle.memory_bytes / 1e6, MAX_MEMORY_MB, "MB"),
        at_most(
            f"operator idle for {idle.seconds:.0f} s, writes", idle.writes + idle.job_writes, 0, "writes"
        ),
        _wall_clock(wall_seconds, prepare_seconds),
    ]
    return Summary(
        jobs=found,
        cost=total_cost(statuses),
        equality=equality(story.lab, story.recorder, reference, main),
        measures=measures,
        versions=_versions(story.lab),
    )


def _wall_clock(wall_seconds: float, prepare_seconds: float) -> Measure:
    """Warm means that nothing had to be downloaded or compiled."""
    is_warm = prepare_seconds < 120
    limit = plan.WARM_GOAL_SECONDS if is_warm else plan.COLD_GOAL_SECONDS
    name = "wall clock, warm" if is_warm else "wall clock, cold"
    return below(name, wall_seconds, limit, "s")


def _job_summary(story: Story, job: JobPlan) -> JobSummary:
    found, training = story.jobs.get(job.name), story.recorder.training(job.name)
    status = found["status"]
    capacity = status["capacity"]
    return JobSummary(
        name=job.name,
        outcome=condition(found, "Complete").get("message", status.get("message", "")),
        steps=training.last_step,
        incarnations=status["incarnation"],
        capacity=f"{capacity['type']} ({capacity['reason']}: {capacity.get('message', '')})",
        interruptions=interruptions(restarts(found), training),
        cost=total_cost([status]),
    )


def stop_seconds(scenes: Sequence[Scene], recorder: Recorder) -> list[float]:
    """For each reclaim: from its first stop signal to the notice in the trainer, by the machine's clock."""
    found = []
    for scene in scenes:
        signals = [scene.details[name] for name in STOP_SIGNALS if name in scene.details]
        life = recorder.training(scene.job).lives.get(scene.incarnation)
        if signals and life is not None and life.notice_time is not None:
            found.append(life.notice_time - min(signals))
    return found


def replace_seconds(pods: Sequence[PodTimes], job: str, scenes: Sequence[Scene]) -> list[float]:
    """From the moment a pod was seen to be over to the moment its successor was seen.

    A successor that waited for the user (suspension) or that came before the old pod's object was
    gone (a dead node) says nothing about the operator's speed.
    """
    of_job = {pod.incarnation: pod for pod in pods if pod.job == job}
    waited = {scene.incarnation for scene in scenes if scene.kind == "suspend" and scene.job == job}
    return [
        round(after.created - pod.ended, 3)
        for incarnation, pod in of_job.items()
        if (after := of_job.get(incarnation + 1)) is not None
        and pod.ended is not None
        and pod.ended <= after.created
        and incarnation not in waited
    ]


# --------------------------------------------------------------------------- equality


def equality(lab: Lab, recorder: Recorder, reference: JobPlan, run: JobPlan) -> Equality:
    """Losses from the trainers' lines; samples and final checkpoints from the store itself."""
    problems: list[str] = []
    expected, found = recorder.training(reference.name), recorder.training(run.name)
    differences = loss_differences(expected.steps, found.steps)
    if differences:
        problems.append(f"losses differ:\n{describe(differences)}")
    answer = checkpoints.ask(
        lab, plan.NAMESPACE, "compare", checkpoint_uri(reference), checkpoint_uri(run), volume=run.volume
    )
    num_steps = run.epochs * plan.STEPS_PER_EPOCH
    if len(expected.kept_steps()) != num_steps:
        problems.append(f"the undisturbed run has {len(expected.kept_steps())} losses instead of {num_steps}")
    verdict = checkpoints.verdict_line(answer.text)
    if answer.code != 0:
        problems.append(f"final checkpoints differ:\n{answer.text}")
    wrong_samples = sample_differences(
        _history(lab, reference, volume=run.volume), _history(lab, run, volume=run.volume)
    )
    if wrong_samples:
        problems.append(f"other samples were used in steps {wrong_samples[:10]}")
    return Equality(
        num_losses=len(expected.steps),
        losses_equal=not differences and len(expected.kept_steps()) == num_steps,
        samples_equal=not wrong_samples,
        checkpoints=verdict,
        checkpoints_equal=answer.code == 0,
        problems=problems,
    )


def _history(lab: Lab, job: JobPlan, *, volume: bool) -> list[dict[str, Any]]:
    answer = checkpoints.ask(lab, plan.NAMESPACE, "history", checkpoint_uri(job), volume=volume)
    return [json.loads(line) for line in answer.text.splitlines() if line.startswith("{")]


def sample_differences(reference: Sequence[Mapping[str, Any]], run: Sequence[Mapping[str, Any]]) -> list[int]:
    """Steps whose samples are not those of the reference, in any execution; and steps without a record."""
    expected = {int(line["step"]): line.get("samples") for line in reference}
    wrong = {int(line["step"]) for line in run if line.get("samples") != expected.get(int(line["step"]))}
    recorded = {int(line["step"]) for line in run if line.get("samples")}
    return sorted(wrong | (expected.keys() - recorded))


def _versions(lab: Lab) -> dict[str, str]:
    """What was run: bit for bit equality is a statement about these versions."""
    server = lab.cluster.api.get("/version")["gitVersion"]
    answer = lab.operator_pod()["status"]["containerStatuses"][0].get("imageID", "")
    return {"kubernetes": str(server), "operatorImage": str(answer)}


def marks(scenes: Sequence[Scene], training: Training) -> list[tuple[int, str]]:
    """What is written on the plot beside the end of each incarnation."""
    known = {
        scene.incarnation: scene.kind.partition(" (")[0]
        for scene in scenes
        if scene.incarnation in training.lives
    }
    return sorted(known.items())
