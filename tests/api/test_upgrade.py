"""A new operator finds jobs that one of an earlier version has left running, and takes them over.

`tests/data/upgrade` has, by version, a job and its pod as that version's operator wrote them: after one
reclaim, training again. A release adds a file and changes none: read the job, its pod and the node from a
cluster (`kubectl get -o json`) and put NAMESPACE, JOB_UID, POD_UID and NODE_UID where these stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_scene import Operator, Scene, wait_for
from staging import JOBS, hold

pytestmark = pytest.mark.api

VERSIONS = sorted((Path(__file__).parents[1] / "data" / "upgrade").glob("*.json"))
SPOT_ITN = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}
NODE = "digits-node"


class Left:
    """What the operator of an earlier version has left behind, put into a cluster as it was."""

    def __init__(self, api_server: Any, scene: Scene, text: str) -> None:
        self._api, self.scene = api_server.api, scene
        self._text = text.replace("NAMESPACE", scene.namespace)
        jobs, core = f"{JOBS}/{scene.namespace}/spottrainingjobs", f"/api/v1/namespaces/{scene.namespace}"
        scene.node = NODE
        self._put("NODE_UID", "/api/v1/nodes", "node")
        self._put("JOB_UID", jobs, "job")
        self.pod = self._put("POD_UID", f"{core}/pods", "pod")
        self._api.patch(
            f"{core}/pods/{self.pod['metadata']['name']}/status", {"status": self._of("podStatus")}
        )
        scene.beat()
        self._api.patch(f"{jobs}/digits/status", {"status": self._of("jobStatus")})
        self.status = self._of("jobStatus")

    def _of(self, part: str) -> dict[str, Any]:
        return dict(json.loads(self._text)[part])

    def _put(self, uid: str, path: str, part: str) -> dict[str, Any]:
        created = self._api.create(path, self._of(part))
        self._text = self._text.replace(uid, created["metadata"]["uid"])
        return dict(created)

    def is_untouched(self) -> bool:
        """Whether the pod is the one that was left, and runs."""
        found = self.scene.get("pod", self.pod["metadata"]["name"]).get("metadata", {})
        return bool(found.get("uid") == self.pod["metadata"]["uid"] and "deletionTimestamp" not in found)


@pytest.fixture(params=VERSIONS, ids=lambda path: str(path.stem))
def left(api_server: Any, namespace: str, request: pytest.FixtureRequest) -> Iterator[Left]:
    scene = Scene(api_server, namespace)
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield Left(api_server, scene, request.param.read_text())
    scene.kubectl("delete", "node", NODE, "--ignore-not-found")


def test_there_is_a_version_to_upgrade_from() -> None:
    assert VERSIONS


def test_a_pod_of_an_earlier_version_trains_on_and_is_followed_by_one_of_this_version(
    left: Left, operator: Operator
) -> None:
    scene = left.scene
    hold(3, left.is_untouched, "the pod of the earlier version was stopped")
    found = scene.status()
    for key in ("incarnation", "restarts", "recentRestarts", "claims", "checkpoint", "progress", "startTime"):
        assert found[key] == left.status[key], key
    assert found["gang"]["pods"] == left.status["gang"]["pods"]
    assert found["phase"] == "Running"

    pod = left.pod["metadata"]["name"]
    scene.set_taints(SPOT_ITN)
    wait_for("graceful stop", lambda: scene.is_stopping(pod), 5)
    scene.pod_of(3)
    scene.end(pod, 75, "stopped", remove=True)
    wait_for("verdict", lambda: len(scene.status()["recentRestarts"]) == 2)
    found = scene.status()
    assert [each["cause"] for each in found["recentRestarts"]] == ["Interruption", "Interruption"]
    assert (found["incarnation"], found["restarts"]["interruptions"]) == (3, 2)
