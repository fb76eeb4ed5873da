"""One look through the real observer and reconciler, against scripted answers of an API server."""

import json
from collections.abc import Mapping
from typing import Any, cast

import aiohttp

from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.kube import Kube
from spot_operator.observe import Observer
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID, NOW, POD_UID, make_gang, make_pod, make_status
from spot_operator.wire import status_to_json

Json = Mapping[str, Any]
POD = "digits-0c5e1-1-0"
JOB: dict[str, Any] = {
    "metadata": {
        "name": "digits",
        "namespace": "team",
        "uid": JOB_UID,
        "generation": 1,
        "creationTimestamp": "2026-11-23T11:00:00Z",
        "resourceVersion": "7",
    },
    "spec": {
        "template": {"spec": {"containers": [{"name": "trainer", "image": "train"}]}},
        "checkpoint": {"s3": {"bucket": "runs"}},
        "capacity": {"preset": "Karpenter"},
    },
    "status": status_to_json(make_status()),
}


class Cluster(Kube):
    """A job that runs on a node that has just been cordoned."""

    def __init__(self) -> None:
        session = cast(aiohttp.ClientSession, object())
        super().__init__(Credentials(server="http://x"), timeout_seconds=1, session=session)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        return 200, json.dumps(self._answer(path, body)), {}

    def _answer(self, path: str, body: Json | None) -> Json:
        if body is not None:
            return body
        if path.endswith("/pods"):
            owner = {"kind": "SpotTrainingJob", "name": "digits", "uid": JOB_UID, "controller": True}
            running = {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T11:58:25Z"}}}
            metadata = {"name": POD, "namespace": "team", "uid": POD_UID, "ownerReferences": [owner]}
            spec = {"nodeName": "spot-a", "containers": [{"name": "trainer"}]}
            status = {"phase": "Running", "containerStatuses": [running]}
            return {"items": [{"metadata": metadata, "spec": spec, "status": status}]}
        if "/nodes/" in path:
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {"unschedulable": True}}
        return JOB


async def test_what_a_look_decides_is_in_the_answer_to_the_next_report() -> None:
    core = Core(
        Cluster(),
        Settings(namespace="system"),
        component="operator-0",
        status_ca=lambda: "",
        clock=lambda: NOW,
        monotonic=lambda: 0.0,
    )
    await core.reconciler.reconcile(("team", "digits"))
    answer = core.reconciler.answer(("team", "digits"), 1)
    assert answer is not None
    assert json.loads(answer)["directives"]["checkpointNow"].startswith("hint-")


def test_the_node_whose_uid_is_about_to_be_recorded_is_read_live() -> None:
    """A watch that lags may still show the machine before, under the same name."""
    known = make_status()
    assert Observer._nodes_to_judge_by(known, (make_pod(),)) == set()
    gang = make_gang()
    record = type(gang.pods[0])(name=POD, rank=0, uid=POD_UID)
    new = make_status(gang=type(gang)(**(vars(gang) | {"pods": (record,)})))
    assert Observer._nodes_to_judge_by(new, (make_pod(),)) == {"spot-a"}
