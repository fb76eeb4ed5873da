"""Scripted answers of an API server, for one look through the real observer and reconciler."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

import aiohttp

from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.kube import Kube
from spot_operator.names import LABEL_JOB_UID
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID, NOW, POD_UID, make_status
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


KEY = ("team", "digits")
NEW: dict[str, Any] = {
    "metadata": JOB["metadata"] | {"creationTimestamp": "2026-11-23T11:59:59Z"},
    "spec": JOB["spec"],
}
"""As the watch tells of it when it has just been applied."""


class Cluster(Kube):
    """A job that runs on a node that has just been cordoned."""

    def __init__(self) -> None:
        session = cast(aiohttp.ClientSession, object())
        super().__init__(Credentials(server="http://x"), timeout_seconds=1, session=session)
        self.calls: list[str] = []
        self.refuses_writes = 0
        self.job: Json = JOB

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        self.calls.append(f"{method} {path.rpartition('/')[2]}")
        if method == "PUT" and self.refuses_writes:
            self.refuses_writes -= 1
            return 409, json.dumps({"reason": "Conflict", "message": "the object has been modified"}), {}
        return 200, json.dumps(self._answer(path, body)), {}

    def _answer(self, path: str, body: Json | None) -> Json:
        if body is not None:
            return {**body, "metadata": {"uid": POD_UID} | body.get("metadata", {})}
        if path.endswith("/pods"):
            owner = {"kind": "SpotTrainingJob", "name": "digits", "uid": JOB_UID, "controller": True}
            running = {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T11:58:25Z"}}}
            metadata = {"name": POD, "namespace": "team", "uid": POD_UID, "ownerReferences": [owner]}
            metadata["labels"] = {LABEL_JOB_UID: JOB_UID}
            spec = {"nodeName": "spot-a", "containers": [{"name": "trainer"}]}
            status = {"phase": "Running", "containerStatuses": [running]}
            return {"items": [{"metadata": metadata, "spec": spec, "status": status}]}
        if path.endswith(POD):
            return cast(Any, self._answer("/pods", None))["items"][0]
        if "/nodes/" in path:
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {"unschedulable": True}}
        return self.job


def make_core(cluster: Cluster, clock: Callable[[], datetime] = lambda: NOW) -> Core:
    return Core(
        cluster,
        Settings(namespace="system"),
        component="operator-0",
        status_ca=lambda: "",
        clock=clock,
        monotonic=lambda: 0.0,
    )


class Stubborn(Cluster):
    """Answers what it is asked with an error of the status code, for calls of the given beginning."""

    def __init__(self, refuses: str, status: int = 403) -> None:
        super().__init__()
        self._refuses, self._status = refuses, status
        self.told: list[str] = []

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if path.endswith("/events") and body is not None:
            self.told.append(body["reason"])
        if f"{method} {path.rpartition('/')[2]}".startswith(self._refuses):
            return self._status, json.dumps({"reason": "Forbidden", "message": "a policy says no"}), {}
        return await super()._send(method, path, query, body)


class Quiet(Cluster):
    """A job that runs as it should, as the operator's own look has left it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cordoned = False
        self.taints: list[Json] = []
        self.job = JOB

    def _answer(self, path: str, body: Json | None) -> Json:
        node = {
            "metadata": {"name": "spot-a", "uid": "node-uid-a", "resourceVersion": "1"},
            "spec": {"unschedulable": self.is_cordoned, "taints": self.taints},
        }
        if path.endswith("/nodes"):
            return {"items": [node]}
        if "/nodes/" in path:
            return node
        if path.endswith("/spottrainingjobs"):
            return {"items": [self.job]}
        if path.endswith("/status"):
            self.job = cast(dict[str, Any], super()._answer(path, body))
        if path.endswith(("/digits", "/status")):
            return self.job
        found = super()._answer(path, body)
        if path.endswith("/pods") and body is None:
            found["items"][0]["metadata"]["resourceVersion"] = "8"
        return found


async def settled(*, claims: bool = True) -> Quiet:
    """The cluster after an operator has looked at the job until nothing was left to be done."""
    cluster = Quiet()
    if not claims:
        cluster.job = {**JOB, "status": status_to_json(make_status(claims=False))}
    core = make_core(cluster)
    await core.list_all(is_first=True)
    for _ in range(3):
        await core.reconciler.reconcile(KEY)
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == []
    return cluster


async def begin(cluster: Quiet) -> Core:
    """Another operator process, which has listed what there is."""
    core = make_core(cluster)
    await core.list_all(is_first=True)
    cluster.calls.clear()
    return core


class Launched(Cluster):
    """A job that has just been applied; whatever is written has a new version."""

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.pods: list[dict[str, Any]] = []
        self.written: list[Json] = []
        self.events: list[Json] = []
        self.refuses_pods = False

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if self.refuses_pods and method == "POST" and path.endswith("/pods"):
            self.calls.append("POST pods")
            return 403, json.dumps({"reason": "Forbidden", "message": "exceeded quota"}), {}
        return await super()._send(method, path, query, body)

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/events") and body is not None:
            self.events.append(body)
        if path.endswith("/status"):
            assert body is not None
            version = str(int(self.job["metadata"]["resourceVersion"]) + 1)
            self.job = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
            self.written.append(self.job)
        if path.endswith(("/digits", "/status")):
            return self.job
        if path.endswith("/pods") and body is not None:
            self.pods = [{**body, "metadata": body["metadata"] | {"uid": POD_UID, "resourceVersion": "8"}}]
            return self.pods[0]
        if path.endswith("/pods"):
            return {"items": self.pods}
        if "/nodes/" in path:
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {}}
        return super()._answer(path, body)

    def bound(self) -> dict[str, Any]:
        pod = self.pods[0]
        self.pods = [
            {
                **pod,
                "metadata": pod["metadata"] | {"resourceVersion": "9"},
                "spec": pod["spec"] | {"nodeName": "spot-a"},
            }
        ]
        return self.pods[0]


async def launched() -> tuple[Launched, Core]:
    cluster = Launched()
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["PUT status", "POST pods"]
    cluster.calls.clear()
    return cluster, core


def with_version(item: Json, version: str) -> Json:
    return {**item, "metadata": item["metadata"] | {"resourceVersion": version}}
