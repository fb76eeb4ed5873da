"""Every way of losing capacity, with checkpoints in S3: what it costs, and that nothing else is lost."""

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

from demo.summary import interval_steps
from localcluster import ReclaimStyle

pytestmark = pytest.mark.e2e

INTERVAL_STEPS = interval_steps(INTERVAL_SECONDS, STEP_SECONDS)


def reclaim(place: Place) -> Result:
    return _reclaim(place, ReclaimStyle.KARPENTER)


def evict(place: Place) -> Result:
    return _reclaim(place, ReclaimStyle.CORDON_EVICT)


def _reclaim(place: Place, style: ReclaimStyle) -> Result:
    place.add_nodes(1, 2)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.reclaim(style, notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def hard_kill(place: Place) -> Result:
    place.add_nodes(1, 2)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.kill_node()
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def crash(place: Place) -> Result:
    place.add_nodes(1)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.crash()
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def suspend(place: Place) -> Result:
    place.add_nodes(1)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.suspend()
    stage.resume(scene)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def threshold(place: Place) -> Result:
    place.add_nodes(1, 2)
    plan = place.plan(fallback={"policy": "Rules", "afterInterruptions": {"count": 1, "windowSeconds": 600}})
    stage = place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.reclaim(notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def deadline(place: Place) -> Result:
    """The only spot machine goes; there is time to wait for another, but not for ever."""
    place.add_nodes(1)
    plan = place.plan(
        # On a busy machine a trainer takes 45 s until its first step, and 10 s from its last one to its end.
        fallback={"policy": "Rules", "beforeDeadlineSeconds": 90},
        deadline={"secondsAfterCreation": 180, "expectedDurationSeconds": 20},
    )
    stage = place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.reclaim(notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


SCENES: dict[str, SceneFunction] = {
    "deadline": deadline,
    "hard-kill": hard_kill,
    "reclaim": reclaim,
    "evict": evict,
    "threshold": threshold,
    "suspend": suspend,
    "crash": crash,
}


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_the_run_ends_as_if_it_had_never_been_interrupted(bench: Bench, name: str) -> None:
    """Losses of all steps, also of repeated ones, and every byte of the final checkpoint."""
    result = bench.result(name)
    assert result.training.last_step == TOTAL_STEPS
    assert len(result.training.lives) > 1
    assert problems(result, bench.reference) == []


@pytest.mark.parametrize("name", ["reclaim", "evict", "threshold", "deadline"])
def test_a_reclaim_with_notice_costs_no_step(bench: Bench, name: str) -> None:
    result = bench.result(name)
    assert lost_steps(result.training, result.notes["scene"]) == 0
    first = result.restarts[0]
    assert (first["cause"], first["charged"], first["capacityType"]) == ("Interruption", False, "spot")


def test_a_stop_signal_on_the_node_reaches_the_trainer_within_two_seconds(bench: Bench) -> None:
    """Generous on a busy machine: the demo measures it, this holds it to the order of magnitude."""
    result = bench.result("reclaim")
    scene = result.notes["scene"]
    notice = result.training.lives[scene.incarnation].notice_time
    assert notice is not None
    assert notice - scene.details["node deletion requested"] < 5.0


def test_a_hard_kill_costs_at_most_one_interval(bench: Bench) -> None:
    result = bench.result("hard-kill")
    assert 0 < lost_steps(result.training, result.notes["scene"]) <= INTERVAL_STEPS
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
    assert result.restarts[0]["evidence"] == "the node object is gone"


def test_a_crash_costs_at_most_one_interval_and_is_charged(bench: Bench) -> None:
    result = bench.result("crash")
    assert 0 < lost_steps(result.training, result.notes["scene"]) <= INTERVAL_STEPS
    assert [(found["cause"], found["charged"]) for found in result.restarts] == [("Failure", True)]
    assert result.restarts[0]["exitCode"] == 137
    assert result.status["restarts"]["interruptions"] == 0


def test_a_suspension_costs_no_step_and_is_nobodys_fault(bench: Bench) -> None:
    result = bench.result("suspend")
    assert lost_steps(result.training, result.notes["scene"]) == 0
    assert [(found["cause"], found["charged"]) for found in result.restarts] == [("Requested", False)]
    counts = result.status["restarts"]
    assert (counts["interruptions"], counts["failures"], counts["requested"]) == (0, 0, 1)


def test_after_the_threshold_the_run_goes_on_on_on_demand(bench: Bench) -> None:
    result = bench.result("threshold")
    capacity = result.status["capacity"]
    assert (capacity["type"], capacity["reason"]) == ("on-demand", "AfterInterruptions")
    assert result.training.lives[result.training.incarnation].capacity_type == "on-demand"
    assert float(result.status["cost"]["onDemandNodeSeconds"]) > 0


def test_before_the_deadline_the_run_moves_to_on_demand_and_is_done_in_time(bench: Bench) -> None:
    result = bench.result("deadline")
    capacity = result.status["capacity"]
    assert (capacity["type"], capacity["reason"]) == ("on-demand", "DeadlineNear")
    assert result.status["completionTime"] < result.status["deadline"]
