"""Ways in which a machine goes that need a real one: its kubelet's own shutdown, a kubelet that is lost while
containers go on, a network that parts, and a name that comes back on another machine."""

import shlex
from pathlib import Path
from typing import Any

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
)

from demo.equality import loss_differences
from demo.manifests import Manifest, trainer_container
from demo.scenes import SILENT_SECONDS, Scene, is_silent
from demo.summary import interval_steps
from demo.training import Line, parse_line
from localcluster import ReclaimStyle

pytestmark = pytest.mark.e2e

GKE_LABELS = {"cloud.google.com/gke-spot": "true"}
AKS_LABELS = {"kubernetes.azure.com/scalesetpriority": "spot"}
GKE_NOTICE_SECONDS, AKS_NOTICE_SECONDS = 30, 13
UNSEEN_STEP_SECONDS = 3
"""So slow that the run is not over before its machine has been given up, however busy this one is."""


def _node(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = place.lab.cluster.api.get(f"/api/v1/nodes/{name}")
    return found


def gke_shutdown(place: Place) -> Result:
    """The kubelet ends the pod, the power goes, and the machine comes back as the same Node."""
    place.add_nodes(1, 2, graceful_shutdown=True, **GKE_LABELS)
    plan, stage, cluster = place.plan(), place.stage, place.lab.cluster
    place.apply(plan, lambda job: _use_preset(job, "GKE"))
    stage.wait_for_step(15)
    scene = stage.reclaim(ReclaimStyle.GKE, notice_seconds=GKE_NOTICE_SECONDS)
    before = _node(place, scene.node)
    cluster.add_node(place.node(scene.node, graceful_shutdown=True, **GKE_LABELS), keep_object=True)
    after = _node(place, scene.node)
    stage.finish(FINISH_SECONDS)
    query = f"fieldSelector=involvedObject.kind%3DNode%2CinvolvedObject.name%3D{scene.node}"
    events = cluster.api.get(f"/api/v1/namespaces/default/events?{query}")["items"]
    ready = next(c for c in before["status"]["conditions"] if c["type"] == "Ready")
    return place.result(
        plan,
        scene=scene,
        said=ready["message"],
        events=[event.get("message") for event in events],
        is_same_node=before["metadata"]["uid"] == after["metadata"]["uid"],
    )


def aks_preemption(place: Place) -> Result:
    """Conditions on the Node, 13 seconds, power off; nobody drains."""
    place.add_nodes(1, 2, **AKS_LABELS)
    plan, stage = place.plan(), place.stage
    place.apply(plan, lambda job: _use_preset(job, "AKS"))
    stage.wait_for_step(15)
    scene = stage.reclaim(ReclaimStyle.AKS, notice_seconds=AKS_NOTICE_SECONDS)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene)


def _use_preset(job: Manifest, name: str) -> None:
    job["spec"]["capacity"]["preset"] = name


def _begin_slowly(job: Manifest) -> None:
    """The first incarnation takes its time for each step, the next ones do not."""
    container = trainer_container(job)
    words = shlex.join(word for word in container["command"] if not word.startswith("--step-seconds"))
    pace = f'test "$SPOT_INCARNATION" = 1 && pace={UNSEEN_STEP_SECONDS} || pace={STEP_SECONDS}'
    container["command"] = ["sh", "-c", f'{pace}; exec {words} "--step-seconds=$pace"']


def kubelet_lost(place: Place) -> Result:
    """Kubelet and runtime are killed, the container trains on unseen; then the machine goes too."""
    place.add_nodes(1, 2)
    plan, stage, cluster = place.plan(), place.stage, place.lab.cluster
    place.apply(plan, _begin_slowly)
    stage.wait_for_step(2)
    scene = stage.scene("kubelet and runtime lost", stage.node())
    pids = place.lab.container_pids(place.jobs.pods(place.name)[-1])
    stage.note(f"kill -9 of kubelet and containerd on {scene.node}")
    for program in ("kubelet", "containerd"):
        cluster.stop_program(scene.node, program)
    seen = stage.training.last_step
    cluster.wait_for(lambda: is_silent(place.lab, scene.node), timeout_seconds=SILENT_SECONDS, what="silence")
    still_there = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    stage.note(f"cuts the power of {scene.node} and removes the Node")
    cluster.remove_node(scene.node)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, seen=seen, outlived=pids[:1] == still_there[:1] != [])


def partition(place: Place) -> Result:
    """The machine reaches S3 and nothing else, and trains on until its successor's claim fences it."""
    place.add_nodes(1, 2)
    plan, stage, cluster = place.plan(), place.stage, place.lab.cluster
    place.apply(plan, _begin_slowly)
    stage.wait_for_step(2)
    scene = stage.scene("partition", stage.node())
    log = _log_on_node(place, scene)
    stage.note(f"parts {scene.node} from everything but S3")
    cluster.cut_off(scene.node)
    stage.wait_for_step(1, after_incarnation=scene.incarnation)
    cluster.wait_for(lambda: _lines(log)[-1]["event"] == "outcome", what="the end of the old program")
    left = _lines(log)
    for line in left:
        stage.training.add(line)
    stage.note("mends the network")
    cluster.reconnect(scene.node)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, left=left)


def _log_on_node(place: Place, scene: Scene) -> Path:
    """Where the machine itself keeps the log of the job's pod: nobody else can read it now."""
    pods = place.lab.cluster.paths.node_data(scene.node) / "log" / "pods"
    pod = place.jobs.pods(place.name)[-1]["metadata"]
    (found,) = (pods / f"{place.jobs.namespace}_{pod['name']}_{pod['uid']}").glob("*/0.log")
    return found


def _lines(log: Path) -> list[Line]:
    """The trainer's lines in a log as the container runtime writes it: time, stream, tag, text."""
    texts = [text.split(" ", 3)[-1] for text in log.read_text().splitlines()]
    return [line for text in texts if (line := parse_line(text)) is not None]


def reused_name(place: Place) -> Result:
    """The power goes, and before anybody has missed it there is another Node of that name."""
    place.add_nodes(1)
    plan, stage, cluster = place.plan(), place.stage, place.lab.cluster
    place.apply(plan)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.scene("reused name", stage.node())
    before = _node(place, scene.node)
    stage.note(f"cuts the power of {scene.node} and starts another machine of that name")
    cluster.kill_node(scene.node)
    path = f"/api/v1/nodes/{scene.node}"
    cluster.api.patch(path, {"metadata": {"finalizers": None}})
    cluster.api.delete(path)
    fresh = {"name": scene.node, "labels": before["metadata"]["labels"]}
    taints = [taint.to_json() for taint in place.node(scene.node).all_taints()]
    # By us, because a kubelet takes seconds to register, in which the name is free.
    after = cluster.api.create("/api/v1/nodes", {"metadata": fresh, "spec": {"taints": taints}})
    cluster.add_node(place.node(scene.node), keep_object=True)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, uids=[node["metadata"]["uid"] for node in (before, after)])


def reboot(place: Place) -> Result:
    """The power goes and the machine comes back as the same Node before anybody has missed it."""
    place.add_nodes(1)
    plan, stage, cluster = place.plan(), place.stage, place.lab.cluster
    place.apply(plan)
    stage.wait_for_step(15)
    stage.wait_until_exposed(4)
    scene = stage.scene("reboot", stage.node())
    before = _node(place, scene.node)
    stage.note(f"cuts the power of {scene.node} and switches it on again")
    cluster.kill_node(scene.node)
    cluster.add_node(place.node(scene.node), keep_object=True)
    cluster.wait_for(
        lambda: _boot_id(_node(place, scene.node)) != _boot_id(before), what="a kubelet with another boot ID"
    )
    after = _node(place, scene.node)
    stage.finish(FINISH_SECONDS)
    return place.result(plan, scene=scene, uids=[node["metadata"]["uid"] for node in (before, after)])


def _boot_id(node: dict[str, Any]) -> str:
    return str(node["status"]["nodeInfo"]["bootID"])


SCENES: dict[str, SceneFunction] = {
    "partition": partition,
    "kubelet-lost": kubelet_lost,
    "gke-shutdown": gke_shutdown,
    "aks-preemption": aks_preemption,
    "reused-name": reused_name,
    "reboot": reboot,
}


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_the_run_ends_as_if_it_had_never_been_interrupted(bench: Bench, name: str) -> None:
    result = bench.result(name)
    assert result.training.last_step == TOTAL_STEPS
    assert len(result.training.lives) > 1
    expected = bench.reference.training.steps
    if name == "kubelet-lost":  # nobody has the log of what it did out of sight; the checkpoint is the proof
        expected = [done for done in expected if not _is_unseen(result, done.step)]
    assert loss_differences(expected, result.training.steps) == []
    assert result.checkpoints is not None
    assert result.checkpoints.code == 0, result.checkpoints.text
    assert result.status["restarts"].get("failures", 0) == 0
    assert not any(found["charged"] for found in result.restarts)


def _is_unseen(result: Result, step: int) -> bool:
    resumed = result.training.lives[result.notes["scene"].incarnation + 1].resumed_step
    assert resumed is not None
    return bool(result.notes["seen"] < step <= resumed)


def test_a_graceful_shutdown_of_the_kubelet_is_a_reclaim_that_costs_no_step(bench: Bench) -> None:
    result = bench.result("gke-shutdown")
    assert "node is shutting down" in result.notes["said"]
    assert "Shutdown manager detected shutdown event" in result.notes["events"]
    assert result.notes["is_same_node"]
    assert lost_steps(result.training, result.notes["scene"]) == 0
    assert [(r["cause"], r["evidence"]) for r in result.restarts] == [
        ("Interruption", "node shutting down"),
    ]


def test_conditions_of_an_azure_node_are_a_reclaim_that_costs_no_step(bench: Bench) -> None:
    result = bench.result("aks-preemption")
    assert lost_steps(result.training, result.notes["scene"]) == 0
    assert "evicted" not in result.notes["scene"].details
    (found,) = result.restarts
    assert found["cause"] == "Interruption"
    assert "a confirmed reclaim" in found["evidence"]


def test_what_was_trained_without_a_kubelet_counts(bench: Bench) -> None:
    """Its checkpoints went on when nobody could see it any more."""
    result = bench.result("kubelet-lost")
    scene = result.notes["scene"]
    assert result.notes["outlived"]
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
    resumed = result.training.lives[scene.incarnation + 1].resumed_step
    assert resumed is not None
    assert resumed > result.notes["seen"]


def test_a_pod_behind_a_partition_trains_on_and_is_fenced(bench: Bench) -> None:
    """It ends with 76 while nobody can reach it, publishes nothing after that, and did no step otherwise."""
    result = bench.result("partition")
    scene, left = result.notes["scene"], result.notes["left"]
    assert (left[-1]["event"], left[-1]["outcome"], left[-1]["exitCode"]) == ("outcome", "fenced", 76)
    last = result.training.lives[scene.incarnation].last_step
    assert last is not None
    assert last.time > result.training.lives[scene.incarnation + 1].began, "they were never both at it"
    assert result.restarts[0]["cause"] == "NodeLost"


def test_another_machine_of_the_same_name_is_not_taken_for_the_old_one(bench: Bench) -> None:
    result = bench.result("reused-name")
    before, after = result.notes["uids"]
    assert before != after
    assert result.restarts[0]["cause"] == "Interruption"
    lost = lost_steps(result.training, result.notes["scene"])
    assert 0 < lost <= interval_steps(INTERVAL_SECONDS, STEP_SECONDS)


def test_a_reboot_costs_at_most_one_interval_and_is_nobodys_fault(bench: Bench) -> None:
    """The new kubelet knows nothing of the pod, and the Node has another boot ID."""
    result = bench.result("reboot")
    before, after = result.notes["uids"]
    assert before == after
    assert [(found["cause"], found["charged"]) for found in result.restarts] == [("NodeLost", False)]
    lost = lost_steps(result.training, result.notes["scene"])
    assert 0 < lost <= interval_steps(INTERVAL_SECONDS, STEP_SECONDS)
