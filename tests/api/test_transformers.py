"""Unmodified Hugging Face `transformers` reports to the operator, with no line of ours in its script."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_scene import DISRUPTED, REPOSITORY, Operator, Scene, now, wait_for

pytestmark = pytest.mark.api

SCRIPT = REPOSITORY / "tests/support/transformers_train.py"
STEPS = 60


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has transformers; `make prepare` makes it too."""
    found = REPOSITORY / ".venv-transformers/bin/python"
    if not found.exists():
        subprocess.run([REPOSITORY / "hack/setup-transformers.sh"], check=True)
    return found


@pytest.fixture
def scene(api_server: Any, namespace: str) -> Iterator[Scene]:
    scene = Scene(api_server, namespace)
    scene.add_node()
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield scene
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")


@pytest.fixture
def operator(api_server: Any, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(
        str(api_server.kubeconfig),
        namespace,
        tmp_path / "operator.log",
        # What a user waits for is not what is tested here.
        SPOT_OPERATOR_PROGRESS_WRITE_SECONDS="1",
        SPOT_OPERATOR_REPORT_WAKE_SECONDS="0.5",
    ).start()
    yield operator
    operator.kill()
    text = (tmp_path / "operator.log").read_text()
    print(text)
    assert "unexpectedly" not in text


class Container:
    """The trainer's container as a process, with the environment that its pod's manifest gives it."""

    def __init__(self, python: Path, scene: Scene, pod: str, root: Path, log: Path) -> None:
        self.log = log
        found = scene.get("pod", pod)
        (container,) = found["spec"]["containers"]
        variables = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        ca, token = root / f"{pod}-ca.crt", root / f"{pod}-token"
        ca.write_text(found["metadata"]["annotations"]["spottraining.io/status-ca"])
        token.write_text(scene.token(pod))
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            # Failed reports are told at this level only.
            "TRANSFORMERS_VERBOSITY": "debug",
            "KUBEFLOW_TRAINER_SERVER_URL": variables["KUBEFLOW_TRAINER_SERVER_URL"],
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(ca),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(token),
        }
        command = [python, SCRIPT, "--output", root / "output", "--steps", str(STEPS)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=environ, stdout=file, stderr=file)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class History:
    """Every progress that the status has shown, in order."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._beaten = scene, float("-inf")
        self.shown: list[tuple[int | None, int | None]] = []

    def look(self) -> dict[str, Any]:
        if time.monotonic() - self._beaten > 5:
            self._scene.beat()
            self._beaten = time.monotonic()
        status = self._scene.status()
        progress = status.get("progress", {})
        entry = (progress.get("step"), progress.get("percentage"))
        if not self.shown or self.shown[-1] != entry:
            self.shown.append(entry)
        return status

    def wait_for_step(self, step: int, seconds: float) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            status = self.look()
            return status if (status.get("progress", {}).get("step") or 0) >= step else None

        return dict(wait_for(f"step {step} in status", found, seconds))


def end_pod(scene: Scene, pod: str, *, remove: bool) -> None:
    """Exit code 0 and not a word: what a container leaves that knows nothing of outcomes."""
    ended = {"exitCode": 0, "reason": "Completed", "finishedAt": now()}
    scene.beat()
    scene.set_pod_status(pod, "Succeeded", {"terminated": ended})
    if remove:
        words = ("delete", "pod", pod, "-n", scene.namespace, "--grace-period=0", "--force")
        scene.kubectl(*words, "--ignore-not-found")


def deadline_message(status: dict[str, Any]) -> str:
    return next(c["message"] for c in status["conditions"] if c["type"] == "DeadlineAtRisk")


def test_progress_arrives_a_stop_does_not_complete_and_a_resume_does_not_go_back(
    operator: Operator, scene: Scene, python: Path, tmp_path: Path
) -> None:
    deadline = {"secondsAfterCreation": 7200, "expectedDurationSeconds": 600}
    scene.apply_job(
        deadline=deadline, checkpoint={"s3": {"bucket": "checkpoints"}, "interval": {"seconds": 60}}
    )
    history = History(scene)
    first = scene.pod_of(1)
    scene.run(first)
    container = Container(python, scene, first, tmp_path, tmp_path / "first.log")
    try:
        status = history.look()
        assert deadline_message(status).startswith("by the expected duration alone: ")
        status = history.wait_for_step(20, 90)
        progress = status["progress"]
        print(f"after the first container's reports: {progress}; {deadline_message(status)}")
        assert progress["totalSteps"] == STEPS
        assert progress["percentage"] == 100 * progress["step"] // STEPS
        assert 0.5 < progress["stepsPerSecond"] < 3
        assert "durableStep" not in progress
        assert not status.get("claims")
        assert deadline_message(status).startswith("by reported steps less one checkpoint interval: ")

        scene.set_taints(DISRUPTED)
        wait_for("graceful stop", lambda: scene.is_stopping(first), 5)
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(60) == 0
        stopped_at = int(re.search(r"ended at step (\d+)", container.text)[1])  # type: ignore[index]
        assert stopped_at < STEPS
        time.sleep(2)
        status = history.look()
        print(f"after it said 100 % at step {stopped_at}: {status['progress']}, {status['phase']}")
        assert status["progress"]["percentage"] < 100
        scene.set_taints()
        end_pod(scene, first, remove=True)
    finally:
        container.end()
        print(container.text[-3000:])
    assert "Failed to update status" not in container.text

    second = scene.pod_of(2)
    assert scene.condition("Complete") != "True"
    scene.run(second)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    container = Container(python, scene, second, tmp_path, tmp_path / "second.log")
    try:
        history.wait_for_step(stopped_at + 5, 90)
        while container.process.poll() is None:
            history.look()
            time.sleep(0.2)
        assert container.process.wait(60) == 0
    finally:
        container.end()
        print(container.text[-3000:])
    assert f"resuming {tmp_path}/output/checkpoint-{stopped_at}\n" in container.text
    assert f"ended at step {STEPS}" in container.text
    assert "Failed to update status" not in container.text
    end_pod(scene, second, remove=False)
    try:
        wait_for("Complete", lambda: history.look() and scene.condition("Complete") == "True", 30)
    finally:
        print(scene.kubectl("get", "stj,events", "-n", scene.namespace))
        print(scene.status()["recentRestarts"])
    print(f"shown: {history.shown}")
    steps = [step or 0 for step, _ in history.shown]
    percentages = [percentage or 0 for _, percentage in history.shown]
    assert steps == sorted(steps)
    assert percentages == sorted(percentages)
    assert scene.status()["recentRestarts"][0]["cause"] == "Interruption"
    codes = re.findall(r'spot_operator_status_reports_total\{code="(\d+)"\} (\S+)', operator.get("/metrics"))
    assert [code for code, _ in codes] == ["200"]
