"""Reclaim, hard kill and damage with checkpoints on a persistent volume."""

import pytest
from scene_bench import (
    FINISH_SECONDS,
    INTERVAL_SECONDS,
    STEP_SECONDS,
    TOTAL_STEPS,
    Bench,
    Place,
    Result,
    SceneFunction,
    lost_steps,
    problems,
)

from demo.manifests import CLAIM, Manifest
from demo.summary import interval_steps

pytestmark = pytest.mark.e2e

STEPS_OF_PLAIN = 40
PLAIN_PROGRAM = f"""
import pathlib, time
path = pathlib.Path("/checkpoints/step")
step = int(path.read_text()) if path.exists() else 0
print("from", step, flush=True)
while step < {STEPS_OF_PLAIN}:
    time.sleep(0.2)
    step += 1
    path.write_text(str(step))
print("done", flush=True)
"""


def volume_reclaim(place: Place) -> Result:
    place.add_nodes(1, 2)
    plan, stage = place.plan(volume=True), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.reclaim(notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def volume_hard_kill(place: Place) -> Result:
    place.add_nodes(1, 2)
    plan, stage = place.plan(volume=True), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.kill_node()
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def volume_damage(place: Place) -> Result:
    """One bit of the newest checkpoint flips on the disk while the job is suspended."""
    place.add_nodes(1)
    plan, stage = place.plan(volume=True), place.stage
    place.apply(plan)
    stage.recorder.wait(
        plan.name,
        lambda t: sum(len(life.checkpoints) for life in t.lives.values()) >= 2,
        what="2 checkpoints",
    )
    scene = stage.suspend()
    attempts = place.lab.cluster.paths.volumes / place.name / CLAIM / plan.name / "attempts"
    newest = max(path.parent for path in attempts.glob("*/MANIFEST.json"))
    data = newest / "data-00000.bin"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    stage.resume(scene)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, damaged=newest.name)


def volume_plain(place: Place) -> Result:
    """A program that knows nothing of us and keeps its own state on the volume."""
    place.add_nodes(1, 2)
    plan, stage = place.plan(volume=True), place.stage

    def without_library(job: Manifest) -> None:
        spec = job["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 3
        spec["containers"][0]["command"] = ["python3", "-c", PLAIN_PROGRAM]

    place.apply(plan, without_library)
    step = place.lab.cluster.paths.volumes / place.name / CLAIM / plan.name / "step"
    place.lab.cluster.wait_for(lambda: step.exists() and int(step.read_text() or 0) >= 8, what="step 8")
    scene = stage.reclaim(notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, step=int(step.read_text()))


SCENES: dict[str, SceneFunction] = {
    "volume-hard-kill": volume_hard_kill,
    "volume-reclaim": volume_reclaim,
    "volume-damage": volume_damage,
    "volume-plain": volume_plain,
}


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start(SCENES)


@pytest.mark.parametrize("name", ["volume-reclaim", "volume-hard-kill", "volume-damage"])
def test_the_run_ends_as_if_it_had_never_been_interrupted(bench: Bench, name: str) -> None:
    result = bench.result(name)
    assert result.training.last_step == TOTAL_STEPS
    assert problems(result, bench.reference) == []


def test_a_reclaim_with_notice_costs_no_step(bench: Bench) -> None:
    result = bench.result("volume-reclaim")
    assert lost_steps(result.training, result.notes["scene"]) == 0


def test_a_hard_kill_costs_at_most_one_interval(bench: Bench) -> None:
    result = bench.result("volume-hard-kill")
    lost = lost_steps(result.training, result.notes["scene"])
    assert 0 < lost <= interval_steps(INTERVAL_SECONDS, STEP_SECONDS)


def test_a_damaged_checkpoint_is_detected_and_the_previous_one_used(bench: Bench) -> None:
    result = bench.result("volume-damage")
    scene, damaged = result.notes["scene"], result.notes["damaged"]
    life = result.training.lives[scene.incarnation + 1]
    assert any(damaged in warning for warning in life.warnings)
    assert life.resumed_step is not None
    assert life.resumed_step < int(damaged.split("-")[0])


def test_a_plain_container_is_run_again_on_another_node_and_ends(bench: Bench) -> None:
    result = bench.result("volume-plain")
    assert result.notes["step"] == STEPS_OF_PLAIN
    assert len(result.pods) == 2
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
