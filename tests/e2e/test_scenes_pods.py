"""Ways in which a pod goes while its machine stays (eviction, preemption, memory), and a blocked drain."""

from pathlib import Path

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

from demo.jobs import DemoError
from demo.manifests import SPOT_TOLERATION, TRAINER_IMAGE, Manifest, trainer_container
from demo.summary import interval_steps
from localcluster.api import ApiError

pytestmark = pytest.mark.e2e

PRIORITY_CLASS = "more-important"
LEAK = """
import pathlib, runpy, sys, threading, time
def leak():
    while not pathlib.Path("/tmp/leak").exists():
        time.sleep(0.1)
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))
threading.Thread(target=leak, daemon=True).start()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a training script, and takes all the memory there is once it is told to."""


def _evict(place: Place) -> int:
    """Ask the eviction API to evict the job's pod; returns the HTTP status."""
    pod = place.jobs.pods(place.name)[-1]["metadata"]["name"]
    namespace = place.jobs.namespace
    body = {"metadata": {"name": pod, "namespace": namespace}}
    try:
        place.lab.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)
    except ApiError as error:
        return error.status
    return 201


def eviction(place: Place) -> Result:
    place.add_nodes(1)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.scene("eviction", stage.node())
    stage.note("evicts the pod through the eviction API")
    answer = _evict(place)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, answer=answer)


def blocked_drain(place: Place) -> Result:
    """A disruption budget refuses every eviction, and Karpenter reclaims the node all the same."""
    place.add_nodes(1, 2)
    plan, stage, api = place.plan(), place.stage, place.lab.cluster.api

    def let_karpenter_try(job: Manifest) -> None:
        job["spec"]["template"]["metadata"] = {"annotations": {"karpenter.sh/do-not-disrupt": "false"}}

    place.apply(plan, let_karpenter_try)
    budget = {
        "metadata": {"name": "none-may-go"},
        "spec": {
            # One more than there ever are, with the successor that is prepared.
            "minAvailable": 3,
            "selector": {"matchLabels": {"spottraining.io/job-name": plan.name}},
        },
    }
    budgets = f"/apis/policy/v1/namespaces/{place.jobs.namespace}/poddisruptionbudgets"
    api.create(budgets, budget)
    stage.wait_for_step(15)
    place.lab.cluster.wait_for(
        lambda: api.get(f"{budgets}/none-may-go").get("status", {}).get("currentHealthy") == 1,
        what="the budget to know the pod",
    )
    answer = _evict(place)
    scene = stage.reclaim(notice_seconds=60)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, answer=answer)


def preemption(place: Place) -> Result:
    """A pod of a higher priority wants the whole machine."""
    place.add_nodes(1, 2)
    plan, stage, api = place.plan(), place.stage, place.lab.cluster.api
    # Made first: admission refuses a pod of a class that its cache has not seen yet.
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    api.create(classes, {"metadata": {"name": PRIORITY_CLASS}, "value": 1000})
    place.apply(plan)
    stage.wait_for_step(15)
    scene = stage.scene("preemption", stage.node())
    processors = api.get(f"/api/v1/nodes/{scene.node}")["status"]["allocatable"]["cpu"]
    stage.note(f"a pod of a higher priority asks for all {processors} processors of {scene.node}")
    pods = f"/api/v1/namespaces/{place.jobs.namespace}/pods"
    api.create(pods, _greedy_pod(scene.node, processors))
    place.lab.cluster.wait_for(
        lambda: api.get(f"{pods}/greedy")["status"]["phase"] == "Running", what="the pod that preempts"
    )
    stage.finish(FINISH_SECONDS)
    api.delete(f"{pods}/greedy")
    api.delete(f"{classes}/{PRIORITY_CLASS}")
    return place.result(plan, scene=scene)


def _greedy_pod(node: str, processors: str) -> Manifest:
    return {
        "metadata": {"name": "greedy"},
        "spec": {
            "priorityClassName": PRIORITY_CLASS,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [SPOT_TOLERATION],
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "greedy",
                    "image": TRAINER_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                    "resources": {"requests": {"cpu": processors}},
                }
            ],
        },
    }


def out_of_memory(place: Place) -> Result:
    place.add_nodes(1)
    plan, stage = place.plan(), place.stage

    def leak_when_told(job: Manifest) -> None:
        container = trainer_container(job)
        interpreter, *arguments = container["command"]
        container["command"] = [interpreter, "-c", LEAK, *arguments]

    place.apply(plan, leak_when_told)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.scene("out of memory", stage.node())
    stage.note("the program takes more memory than its limit")
    (pid, *_) = place.lab.container_pids(place.jobs.pods(plan.name)[-1])
    if not (temporary := Path(f"/proc/{pid}/root/tmp")).is_dir():
        raise DemoError(f"process {pid} has no /tmp")
    (temporary / "leak").touch()
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


SCENES: dict[str, SceneFunction] = {
    "blocked-drain": blocked_drain,
    "preemption": preemption,
    "out-of-memory": out_of_memory,
    "eviction": eviction,
}


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_the_run_ends_as_if_it_had_never_been_interrupted(bench: Bench, name: str) -> None:
    result = bench.result(name)
    assert result.training.last_step == TOTAL_STEPS
    assert len(result.training.lives) == 2
    assert problems(result, bench.reference) == []


def test_an_eviction_costs_no_step_and_counts_for_nothing(bench: Bench) -> None:
    result = bench.result("eviction")
    assert result.notes["answer"] == 201
    assert lost_steps(result.training, result.notes["scene"]) == 0
    (found,) = result.restarts
    assert (found["cause"], found["charged"]) == ("VoluntaryEviction", False)
    assert found["evidence"] == "DisruptionTarget EvictionByEvictionAPI"
    assert result.status["restarts"]["interruptions"] == 0


def test_a_drain_that_a_budget_blocks_still_costs_no_step(bench: Bench) -> None:
    """Nobody evicts the pod; the operator's own delete makes use of the notice."""
    result = bench.result("blocked-drain")
    scene = result.notes["scene"]
    assert result.notes["answer"] == 429
    assert "evicted" not in scene.details
    assert lost_steps(result.training, scene) == 0
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
    assert "drained" in scene.details, "the machine was not empty before the notice was over"


def test_a_preemption_by_the_scheduler_costs_no_step_and_is_nobodys_fault(bench: Bench) -> None:
    result = bench.result("preemption")
    assert lost_steps(result.training, result.notes["scene"]) == 0
    (found,) = result.restarts
    assert (found["cause"], found["charged"]) == ("SchedulerPreemption", False)
    assert found["evidence"] == "DisruptionTarget PreemptionByScheduler"


def test_running_out_of_memory_has_a_budget_of_its_own(bench: Bench) -> None:
    result = bench.result("out-of-memory")
    (found,) = result.restarts
    assert (found["cause"], found["charged"], found["exitCode"]) == ("OutOfMemory", False, 137)
    counts = result.status["restarts"]
    assert (counts["outOfMemory"], counts["failures"], counts["interruptions"]) == (1, 0, 0)
    lost = lost_steps(result.training, result.notes["scene"])
    assert 0 <= lost <= interval_steps(INTERVAL_SECONDS, STEP_SECONDS)
