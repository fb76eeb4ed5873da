"""What a report brings back, what a superseded pod may still say, and how often status is written."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_scene import DISRUPTED, Operator, Scene, wait_for
from status_client import StatusClient

pytestmark = pytest.mark.api

S3 = {"s3": {"bucket": "checkpoints"}}


@pytest.fixture
def scene(api_server: Any, namespace: str) -> Iterator[Scene]:
    scene = Scene(api_server, namespace)
    scene.add_node()
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield scene
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")


@pytest.fixture
def operator(api_server: Any, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(str(api_server.kubeconfig), namespace, tmp_path / "operator.log").start()
    yield operator
    operator.kill()
    print(text := (tmp_path / "operator.log").read_text())
    assert "unexpectedly" not in text


class Trainer:
    """A pod's reports, and what came back."""

    def __init__(self, operator: Operator, scene: Scene, incarnation: int) -> None:
        self.pod, self._incarnation = scene.pod_of(incarnation), incarnation
        scene.run(self.pod)
        self._client, self._token = StatusClient(operator, scene), scene.token(self.pod)
        wait_for("answer", lambda: self._client.post(self._token)[0] == 200)

    def report(self, **body: Any) -> dict[str, Any]:
        code, text = self._client.post(self._token, {"incarnation": self._incarnation} | body)
        assert code == 200
        return dict(json.loads(text)["directives"])


def writes(operator: Operator) -> dict[str, int]:
    found = re.findall(
        r'spot_operator_status_writes_total\{carries="(\w+)"\} (\S+)', operator.get("/metrics")
    )
    return {carries: int(float(number)) for carries, number in found}


def test_wish_for_a_checkpoint_and_the_deadline_come_with_every_answer(
    operator: Operator, scene: Scene
) -> None:
    scene.apply_job(checkpoint=S3, deadline={"finishBy": "2036-12-01T06:00:00Z"})
    trainer = Trainer(operator, scene, 1)
    assert trainer.report(step=1) == {"deadline": "2036-12-01T06:00:00Z"}
    note = ("annotate", "stj", "digits", "-n", scene.namespace, "--overwrite")
    scene.kubectl(*note, "spottraining.io/checkpoint-requested-at=2026-11-25T12:00:00Z")
    told = wait_for("directive", lambda: trainer.report(step=2).get("checkpointNow"))
    time.sleep(1)
    assert trainer.report(step=3)["checkpointNow"] == told
    scene.kubectl(*note, "spottraining.io/checkpoint-requested-at=2026-11-25T13:00:00Z")
    wait_for("another directive", lambda: trainer.report(step=4).get("checkpointNow") != told)


def test_predecessor_reports_its_last_checkpoint_until_its_successor_has_named_its_base(
    operator: Operator, scene: Scene
) -> None:
    scene.apply_job(checkpoint=S3)
    first = Trainer(operator, scene, 1)
    first.report(step=40, totalSteps=100, durableStep=30, checkpointName="c30")
    wait_for("durable step", lambda: scene.status().get("progress", {}).get("durableStep") == 30)
    scene.set_taints(DISRUPTED)
    wait_for("graceful stop", lambda: scene.is_stopping(first.pod), 5)
    scene.set_taints()
    second = Trainer(operator, scene, 2)
    assert first.report(step=45)["stop"] == "NodeSignal"
    assert "predecessorDead" not in second.report()

    first.report(step=45, durableStep=45, checkpointName="c45")
    wait_for("last checkpoint", lambda: scene.status()["progress"].get("durableStep") == 45)
    second.report(step=45, durableStep=45, checkpointName="c45")
    wait_for("its step", lambda: scene.status()["progress"].get("launch") == 2)
    first.report(step=99, durableStep=99, checkpointName="c99", trainerStatus={"progressPercentage": 100})
    second.report(step=46, durableStep=46, checkpointName="c46")
    wait_for("next checkpoint", lambda: scene.status()["progress"].get("durableStep") == 46)
    status = scene.status()
    assert (status["progress"]["step"], status["checkpoint"]["name"]) == (46, "c46")

    scene.end(first.pod, 75, "stopped", remove=True)
    wait_for("word of its end", lambda: second.report(step=47).get("predecessorDead") == 1)


def test_measures_of_the_trainer_stand_in_status(operator: Operator, scene: Scene) -> None:
    scene.apply_job(checkpoint=S3)
    trainer = Trainer(operator, scene, 1)
    measures = {
        "steps_per_second": "2.5",
        "checkpoint_bytes": "1048576",
        "checkpoint_seconds": "1.25",
        "checkpoint_stall_seconds": "0.0421",
        "restore_seconds": "3.5",
        "loss": "nan",
    }
    metrics = [{"name": name, "value": value} for name, value in measures.items()]
    trainer.report(
        step=40, totalSteps=100, durableStep=30, checkpointName="c30", trainerStatus={"metrics": metrics}
    )
    wait_for("checkpoint", lambda: scene.status().get("checkpoint"))
    status = scene.status()
    found = {key: value for key, value in status["checkpoint"].items() if key not in ("time", "location")}
    assert found == {
        "name": "c30",
        "step": 30,
        "sizeBytes": 1048576,
        "saveSeconds": 1.25,
        "stallSeconds": 0.042,
        "restoreSeconds": 3.5,
    }
    assert status["progress"]["stepsPerSecond"] == 2.5


def test_reports_alone_write_status_every_ten_seconds_at_most(operator: Operator, scene: Scene) -> None:
    scene.apply_job(checkpoint=S3)
    trainer = Trainer(operator, scene, 1)
    trainer.report(step=1, totalSteps=1000, durableStep=0, checkpointName="c0")
    wait_for("checkpoint", lambda: scene.condition("CheckpointReady") == "True")
    before, began = writes(operator), time.monotonic()
    for step in range(2, 30):
        # Every second report has something durable to tell, which is looked at, but not written, at once.
        trainer.report(step=step, totalSteps=1000, durableStep=step - step % 2, checkpointName=f"c{step}")
        time.sleep(max(0.0, began + 1.05 * (step - 1) - time.monotonic()))
    seconds = time.monotonic() - began
    after = writes(operator)
    print(f"{before} -> {after} in {seconds:.0f} s")
    assert 2 <= after["progress"] - before.get("progress", 0) <= seconds / 10 + 1
    assert after["substance"] == before["substance"]
