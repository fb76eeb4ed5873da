"""The operator process against a real API server.

It runs from source, as its own process, and is killed the way machines kill processes.
"""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from operator_scene import DISRUPTED, Operator, Scene, report, wait_for

pytestmark = pytest.mark.api


def test_job_runs_reports_and_completes(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    pod = scene.pod_of(1)
    scene.run(pod)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    body = {"step": 40, "totalSteps": 100, "durableStep": 30, "checkpointName": "c30", "incarnation": 1}
    code, answer = report(operator, scene, scene.token(pod), body)
    assert (code, json.loads(answer)) == (200, {"directives": {}})
    progress = wait_for("durable step", lambda: scene.status().get("progress", {}).get("durableStep") == 30)
    assert progress
    assert scene.status()["claims"] is True
    scene.end(pod, 0, "complete")
    wait_for("Complete", lambda: scene.condition("Complete") == "True")
    assert scene.status()["restarts"]["interruptions"] == 0


def test_stop_signal_stops_the_pod_at_once_and_its_end_brings_the_next(
    operator: Operator, scene: Scene
) -> None:
    scene.apply_job()
    first = scene.pod_of(1)
    scene.run(first)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    scene.set_taints(DISRUPTED)
    wait_for("graceful stop", lambda: scene.is_stopping(first), 5)
    assert scene.status()["gang"]["stop"]["reason"] == "NodeSignal"
    scene.set_taints()
    scene.end(first, 75, "stopped", remove=True)
    second = scene.pod_of(2)
    assert second != first
    restarts = wait_for("restart", lambda: scene.status().get("recentRestarts"))
    assert [restart["incarnation"] for restart in restarts] == [1]
    metrics = operator.get("/metrics")
    assert 'spot_operator_launches_total{capacity_type="spot"} 2.0' in metrics
    assert 'stop_signal_to_delete_seconds_bucket{le="1.0"} 1.0' in metrics
    assert 'pod_gone_to_replacement_seconds_bucket{le="1.0"} 1.0' in metrics


def test_operator_killed_during_relaunches_counts_each_once(operator: Operator, scene: Scene) -> None:
    """Killed at a random moment after each interruption; every seed must hold."""
    dice = random.Random(7)
    scene.apply_job()
    rounds = 4
    for incarnation in range(1, rounds + 1):
        pod = scene.pod_of(incarnation)
        scene.run(pod)
        wait_for("running phase", lambda: scene.status().get("phase") == "Running")
        scene.set_taints(DISRUPTED)
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 0.1))
            operator.kill()
            operator.start(wait=False)
        wait_for("graceful stop", lambda pod=pod: scene.is_stopping(pod), 30)
        scene.set_taints()
        scene.end(pod, 75, "stopped", remove=True)
        time.sleep(dice.uniform(0, 0.15))
        operator.kill()
        operator.start(wait=False)
    scene.pod_of(rounds + 1)
    wait_for("quiet", lambda: len(scene.status().get("recentRestarts", [])) == rounds)
    time.sleep(2)
    restarts = scene.status()["recentRestarts"]
    assert [restart["incarnation"] for restart in restarts] == list(range(1, rounds + 1))
    assert scene.status()["incarnation"] == rounds + 1
    assert len([pod for pod in scene.names("pods") if pod.endswith(f"-{rounds + 1}-0")]) == 1


def test_idle_job_causes_no_writes_and_little_memory(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    pod = scene.pod_of(1)
    scene.run(pod)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    time.sleep(3)

    def version() -> str:
        return str(scene.get("spottrainingjob", "digits")["metadata"]["resourceVersion"])

    def writes() -> dict[tuple[str, str], int]:
        writing = ("create", "update", "patch", "delete")
        return {k: n for k, n in operator.requests().items() if k[0] in writing and k[1] != "leases"}

    before = version(), writes()
    for _ in range(6):
        time.sleep(5)
        scene.beat()  # a heartbeat is no news
    assert (version(), writes()) == before
    print(f"RSS {operator.rss_mb():.0f} MB")
    assert operator.rss_mb() < 180


def test_report_is_refused_without_the_right_pod(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    scene.apply_job("other")
    pods = [
        wait_for(
            f"pod of {job}",
            lambda job=job: scene.kubectl(
                "get", "pods", "-n", scene.namespace, "-l", f"spottraining.io/job-name={job}", "-o", "name"
            ).split(),
        )[0].removeprefix("pod/")
        for job in ("digits", "other")
    ]
    for pod in pods:
        scene.run(pod)
    good, other = (scene.token(pod) for pod in pods)
    wait_for("answer", lambda: report(operator, scene, good, {})[0] == 200)
    assert report(operator, scene, "nonsense", {})[0] == 401
    assert report(operator, scene, scene.token(pods[0], "somebody.else"), {})[0] == 401
    assert report(operator, scene, other, {})[0] == 403
    assert report(operator, scene, good, b"{]")[0] == 400
    assert report(operator, scene, good, b" " * 70_000)[0] == 413
    assert report(operator, scene, other, {}, job="absent")[0] == 403


def test_job_of_another_controller_is_left_alone(operator: Operator, scene: Scene) -> None:
    scene.apply_job(managedBy="example.com/other")
    time.sleep(2)
    assert scene.status() == {}
    assert scene.names("pods") == []


def test_stand_by_takes_over_from_a_killed_leader(
    operator: Operator, scene: Scene, api_server: Any, tmp_path: Path
) -> None:
    second = Operator(str(api_server.kubeconfig), scene.namespace, tmp_path / "second.log")
    second.start(wait=False)
    try:
        wait_for("stand-by", lambda: "started True, leading False" in second.get("/readyz"))
        started = time.monotonic()
        operator.kill()
        wait_for("take-over", lambda: "leading True, watching True" in second.get("/readyz"), 10)
        print(f"took over after {time.monotonic() - started:.1f} s of a lease of 3 s")
        scene.apply_job()
        scene.pod_of(1)
        assert second.kill(signal.SIGTERM) == 0
        holder = scene.get("lease", "spot-training-operator")["spec"].get("holderIdentity", "")
        assert holder == ""
    finally:
        if second.process is not None and second.process.poll() is None:
            second.kill()


def test_operator_killed_between_intent_and_pod_makes_exactly_one_pod(
    operator: Operator, scene: Scene
) -> None:
    """Admission holds the second incarnation back, so the kill falls after the write of the intent.

    The next process cannot know that its pod never existed, so the third takes its place.
    """
    scene.apply_job()
    first = scene.pod_of(1)
    scene.run(first)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    with scene.refusing_pods("not now"):
        scene.end(first, 75, "stopped", remove=True)
        wait_for("intent", lambda: scene.status().get("gang", {}).get("incarnation") == 2)
        wait_for(
            "reason", lambda: "not now" in scene.kubectl("get", "stj", "-n", scene.namespace, "-o", "yaml")
        )
        operator.kill()
        assert not [pod for pod in scene.names("pods") if pod.endswith("-2-0")]
    operator.start()
    scene.pod_of(3)
    time.sleep(2)
    assert [pod.rsplit("-", 2)[1] for pod in scene.names("pods")] == ["3"]
    assert scene.status()["incarnation"] == 3
    assert [restart["incarnation"] for restart in scene.status()["recentRestarts"]] == [1]
