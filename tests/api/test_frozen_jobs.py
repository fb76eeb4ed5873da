"""Jobs that an earlier version of the operator has left running are taken over as they are.

tests/data/frozen holds what a version writes, recorded at an API server. A file there is never edited: it
is what is in clusters. When the format changes, the last test here fails and leaves the new recordings to be
added beside the old ones; the other tests then go through both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from frozen import freeze, thaw, written
from operator_scene import Operator, Scene, wait_for
from staging import Json, Stage, Stages, hold, stamp

pytestmark = pytest.mark.api

SPOT_ITN = "aws-node-termination-handler/spot-itn"
FROZEN = Path(__file__).parents[1] / "data/frozen"


def recordings(scene: str) -> list[Path]:
    """Oldest first."""
    return sorted(FROZEN.glob(f"{scene}-*.json"), key=lambda file: int(file.stem.rpartition("-")[2]))


each_running = pytest.mark.parametrize("file", recordings("running"), ids=lambda file: file.stem)
each_handing_over = pytest.mark.parametrize("file", recordings("handing-over"), ids=lambda file: file.stem)


# --- as the present version leaves them -----------------------------------------------------


def running(stages: Stages) -> Stage:
    """In its second incarnation, with progress, a verdict and a node to avoid."""
    stage = handing_over(stages)
    stage.end(75, "stopped")
    stage.untaint()
    stage.run_next()
    wait_for("verdict", lambda: "predecessor" not in stage.status())
    stages.claim(stage)
    wait_for("progress", lambda: stage.status()["progress"].get("durableStep") == 180)
    return stage


def handing_over(stages: Stages) -> Stage:
    """The first incarnation saves, and the second waits beside it for a node."""
    stage = stages(claims=True)
    # The scheduler, which does not know that the test has bound the pod, may just have said the contrary.
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp()}
    stage.write_pod("Running", conditions=[scheduled])
    wait_for("scheduled time", lambda: "scheduledTime" in stage.status()["gang"]["pods"][0])
    stage.taint(SPOT_ITN)
    second = stage.expect_next_pod()["metadata"]["uid"]
    stage.wait_stopping()
    wait_for("UID", lambda: stage.status()["gang"]["pods"][0].get("uid") == second)
    return stage


SCENES: dict[str, Callable[[Stages], Stage]] = {"running": running, "handing-over": handing_over}


# --- taken over -----------------------------------------------------------------------------


@dataclass
class Upgrade:
    """A job of an earlier version, and the operator of the present one."""

    stage: Stage
    operator: Operator
    stages: Stages
    before: Json
    """The status as the earlier version has left it."""

    def start(self) -> Stage:
        """Returns when the operator has looked at the job."""
        self.operator.start()
        wait_for("look", lambda: " 1.0" in self._jobs(self.before["phase"]))
        return self.stage

    def _jobs(self, phase: str) -> str:
        lines = self.operator.get("/metrics").splitlines()
        return next((line for line in lines if line.startswith(f'spot_operator_jobs{{phase="{phase}"}}')), "")


@pytest.fixture
def upgrade(api_server: Any, namespace: str, tmp_path: Path, file: Path) -> Iterator[Upgrade]:
    scene, log = Scene(api_server, namespace), tmp_path / "operator.log"
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    operator = Operator(str(api_server.kubeconfig), namespace, log)
    stage = thaw(api_server.api, namespace, json.loads(file.read_text()))
    yield Upgrade(stage, operator, Stages(api_server.api, scene, operator), stage.status())
    operator.kill()
    stage.remove_node()
    print(text := log.read_text())
    assert "unexpectedly" not in text


def history(status: Json) -> Json:
    """What an upgrade must not change by itself."""
    keys = (
        "incarnation",
        "restarts",
        "recentRestarts",
        "avoid",
        "claims",
        "checkpoint",
        "progress",
        "notices",
    )
    return {key: status.get(key) for key in keys}


@each_running
def test_a_running_pod_is_adopted(upgrade: Upgrade) -> None:
    stage = upgrade.start()
    hold(3, lambda: not stage.is_stopping(), "the upgrade stopped the pod")
    status = stage.status()
    assert (history(status), status["phase"]) == (history(upgrade.before), "Running")
    assert [each["uid"] for each in status["gang"]["pods"]] == [stage.pods[-1]["metadata"]["uid"]]
    assert [stage.find_pod(1), stage.find_pod(3)] == [None, None]


@each_running
def test_an_adopted_pod_is_listened_to(upgrade: Upgrade) -> None:
    """By the address, the authority and the audience that it was given long ago."""
    stage = upgrade.start()
    upgrade.stages.report(stage, {"step": 290, "totalSteps": 1000, "durableStep": 280})
    wait_for("progress", lambda: stage.status()["progress"].get("durableStep") == 280)
    assert stage.status()["checkpoint"]["name"] == "c280"


@each_running
def test_an_adopted_pod_is_followed_by_the_next_incarnation(upgrade: Upgrade) -> None:
    stage, before = upgrade.start(), upgrade.before
    stage.taint(SPOT_ITN)
    stage.wait_stopping()
    stage.expect_next_pod()
    stage.end(75, "stopped")
    stage.expect("Interruption", "5")
    after = stage.status()
    assert after["incarnation"] == before["incarnation"] + 1
    assert after["restarts"]["interruptions"] == before["restarts"]["interruptions"] + 1
    assert after["recentRestarts"][:-1] == before["recentRestarts"]


@each_handing_over
def test_a_hand_over_goes_on(upgrade: Upgrade) -> None:
    stage = upgrade.start()
    first, second = stage.pods
    hold(2, lambda: stage.find_pod(1) is not None, "the pod that saves was removed")
    assert history(stage.status()) == history(upgrade.before)
    stage.pods = [first]
    stage.end(75, "stopped")
    stage.expect("Interruption", "5")
    stage.untaint()
    stage.run_next()
    assert stage.pods[-1]["metadata"]["uid"] == second["metadata"]["uid"]
    assert (stage.status()["incarnation"], len(stage.restarts())) == (2, 1)


def test_the_newest_recordings_hold_what_is_written_today(stages: Stages, tmp_path: Path) -> None:
    today: set[str] = set()
    known: set[str] = set()
    for name, scene in SCENES.items():
        fresh = freeze(scene(stages), (scene.__doc__ or "").strip())
        (tmp_path / f"{name}.json").write_text(json.dumps(fresh, indent=1) + "\n")
        today |= written(fresh)
        known |= written(json.loads(recordings(name)[-1].read_text()))
    assert today == known, f"add what is in {tmp_path} to {FROZEN}, under new numbers"
