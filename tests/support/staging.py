"""One job on one node of its own, and everything that can happen to them, written to a real API server.

The test plays kubelet, node controllers and cloud. Invariant: it writes Node, Pod and Event objects
and the job's spec, never anything of the job's status.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from operator_scene import AUDIENCE, Operator, Scene, report, wait_for

from localcluster.api import ApiClient, ApiError

Json = dict[str, Any]
NODE_CLAIM_CRD = {
    "metadata": {"name": "nodeclaims.karpenter.sh"},
    "spec": {
        "group": "karpenter.sh",
        "scope": "Cluster",
        "names": {"kind": "NodeClaim", "plural": "nodeclaims", "singular": "nodeclaim"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
JOBS = "/apis/spottraining.io/v1alpha1/namespaces"


def stamp(offset_seconds: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=offset_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Stage:
    """A job named `name`, its node `name-node`, and the pod that runs there."""

    def __init__(self, api: ApiClient, namespace: str, name: str, *, on_demand: bool = False) -> None:
        self.api, self.namespace, self.name = api, namespace, name
        self.node, self.on_demand = f"{name}-node", on_demand
        self.pods: list[Json] = []
        """Pods of the incarnations so far, as they were when they ran."""
        self.node_uid = ""
        self._ready_message = ""

    # ------------------------------------------------------------------ paths and reads

    def _job_path(self) -> str:
        return f"{JOBS}/{self.namespace}/spottrainingjobs/{self.name}"

    def _pod_path(self, name: str = "") -> str:
        base = f"/api/v1/namespaces/{self.namespace}/pods"
        return f"{base}/{name}" if name else base

    def _node_path(self) -> str:
        return f"/api/v1/nodes/{self.node}"

    def status(self) -> Json:
        return dict(self.api.get(self._job_path()).get("status") or {})

    def condition(self, type_: str) -> Json:
        return next((c for c in self.status().get("conditions", []) if c["type"] == type_), {})

    def find_pod(self, incarnation: int) -> Json | None:
        selector = f"spottraining.io/job-name%3D{self.name},spottraining.io/incarnation%3D{incarnation}"
        items = self.api.get(f"{self._pod_path()}?labelSelector={selector}")["items"]
        return items[0] if items else None

    @property
    def pod(self) -> str:
        return str(self.pods[-1]["metadata"]["name"])

    def pod_now(self) -> Json | None:
        try:
            found = self.api.get(self._pod_path(self.pod))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found if found["metadata"]["uid"] == self.pods[-1]["metadata"]["uid"] else None

    # ------------------------------------------------------------------ the beginning

    def begin(self, **spec: Any) -> Stage:
        """Node, job, and the first pod running on the node."""
        self.add_node()
        job = {
            "apiVersion": "spottraining.io/v1alpha1",
            "kind": "SpotTrainingJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "template": {
                    "spec": {
                        "terminationGracePeriodSeconds": 30,
                        "containers": [{"name": "trainer", "image": "trainer", "command": ["train"]}],
                    }
                },
                "checkpoint": {"s3": {"bucket": "checkpoints"}},
                "capacity": {
                    "preset": "Labels",
                    "spot": {"nodeSelector": {"pool": self.name}},
                    "onDemand": {"nodeSelector": {"pool": self.name}},
                },
                "fallback": {"policy": "OnDemandOnly" if self.on_demand else "SpotOnly"},
            }
            | spec,
        }
        self.api.create(f"{JOBS}/{self.namespace}/spottrainingjobs", job)
        return self.run_next()

    def run_next(self) -> Stage:
        """The pod of the next incarnation is bound to the node and runs."""
        incarnation = len(self.pods) + 1
        pod = wait_for(f"pod {incarnation} of {self.name}", lambda: self.find_pod(incarnation))
        name = pod["metadata"]["name"]
        # The scheduler binds what fits; here it must be on this very node, whatever taints are there.
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": self.node},
        }
        try:
            self.api.create(f"{self._pod_path(name)}/binding", body)
        except ApiError as error:
            if error.status != 409:
                raise
        self.pods.append(pod)
        self.write_pod("Running", {"running": {"startedAt": stamp()}})
        wait_for("running phase", lambda: self.status().get("phase") == "Running")
        return self

    def add_node(self) -> None:
        labels = {"pool": self.name, "topology.kubernetes.io/zone": "zone-a"}
        # Nobody beats for it: without this, the node lifecycle controller would give it up.
        metadata = {"name": self.node, "labels": labels}
        created = self.api.create("/api/v1/nodes", {"metadata": metadata})
        self.node_uid = created["metadata"]["uid"]
        self.beat()

    def beat(self) -> None:
        """The kubelet reports that it lives."""
        self.node_condition("Ready", "True")

    # ------------------------------------------------------------------ what happens to the node

    def boot(self, boot_id: str) -> None:
        self.api.patch(f"{self._node_path()}/status", {"status": {"nodeInfo": {"bootID": boot_id}}})

    def wait_status(self, what: str, is_so: Callable[[Json], Any]) -> None:
        wait_for(what, lambda: is_so(self.status()))

    def node_condition(self, type_: str, status: str, message: str = "") -> None:
        conditions = {type_: (status, message)}
        if type_ != "Ready":
            conditions["Ready"] = ("True", "")
        body = [
            {
                "type": name,
                "status": value,
                "reason": "Staged",
                "message": text,
                "lastHeartbeatTime": stamp(),
                "lastTransitionTime": stamp(),
            }
            for name, (value, text) in conditions.items()
        ]
        self.api.patch(f"{self._node_path()}/status", {"status": {"conditions": body}})

    def taint(self, key: str, effect: str = "NoSchedule") -> None:
        found = self.api.get(self._node_path())["spec"].get("taints", [])
        # The node lifecycle controller of the cluster may have been faster: each may stand there once.
        taints = [taint for taint in found if (taint["key"], taint["effect"]) != (key, effect)]
        new = {"key": key, "effect": effect, "timeAdded": stamp()}
        self.api.patch(self._node_path(), {"spec": {"taints": [*taints, new]}})

    def untaint(self) -> None:
        self.api.patch(self._node_path(), {"spec": {"taints": None}})

    def give_claim(self, *, is_disrupted: bool) -> None:
        """The node was made for a NodeClaim of Karpenter's, which says whether it chose to disrupt it."""
        with contextlib.suppress(ApiError):  # another test was first
            self.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", NODE_CLAIM_CRD)
        status = "True" if is_disrupted else "False"
        reason = {"type": "DisruptionReason", "status": status, "reason": "Underutilized"}
        claim = {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": {"name": f"{self.node}-claim"},
            "status": {"conditions": [reason]},
        }
        path = "/apis/karpenter.sh/v1/nodeclaims"
        wait_for("the kind NodeClaim", lambda: self._is_served(path))
        created = self.api.create(path, claim)
        owner = {key: claim[key] for key in ("apiVersion", "kind")}
        owner |= {key: created["metadata"][key] for key in ("name", "uid")}
        self.api.patch(self._node_path(), {"metadata": {"ownerReferences": [owner]}})

    def _is_served(self, path: str) -> bool:
        with contextlib.suppress(ApiError):
            return bool(self.api.get(path))
        return False

    def node_event(self, reason: str) -> None:
        """An Event on the node, as Karpenter, node-termination-handler and others write it."""
        body = {
            "metadata": {"generateName": f"{self.node}.", "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": self.node, "uid": self.node_uid},
            "reason": reason,
            "type": "Warning",
            "message": reason,
            "firstTimestamp": stamp(),
            "lastTimestamp": stamp(),
            "source": {"component": "staged"},
        }
        self.api.create("/api/v1/namespaces/default/events", body)

    def remove_node(self) -> None:
        try:
            self.api.delete(self._node_path())
        except ApiError as error:
            if error.status != 404:
                raise

    # ------------------------------------------------------------------ what happens to the pod

    def write_pod(self, phase: str, state: Json | None = None, **status: Any) -> None:
        body: Json = {"phase": phase, **status}
        if state is not None:
            body["containerStatuses"] = [
                {
                    "name": "trainer",
                    "image": "trainer",
                    "imageID": "",
                    "ready": phase == "Running",
                    "restartCount": 0,
                    "state": state,
                }
            ]
        self.api.patch(f"{self._pod_path(self.pod)}/status", {"status": body})

    def disrupt(self, reason: str, *, type_: str = "DisruptionTarget", status: str = "True") -> None:
        condition = {"type": type_, "status": status, "reason": reason, "lastTransitionTime": stamp()}
        self.write_pod("Running", conditions=[condition])

    def end(
        self,
        code: int,
        outcome: str = "",
        *,
        reason: str = "",
        finished: float = 0.0,
        status_reason: str = "",
        remove: bool = True,
        **status: Any,
    ) -> None:
        """The container ends, and the pod goes if it was to go: what a kubelet reports."""
        message = ""
        if outcome:
            incarnation = len(self.pods)
            message = json.dumps(
                {
                    "version": 1,
                    "outcome": outcome,
                    "reason": "Staged",
                    "incarnation": incarnation,
                    "step": 100 * incarnation,
                    "checkpoint": {"name": f"c{incarnation}", "step": 100 * incarnation},
                    "message": "",
                }
            )
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "finishedAt": stamp(finished),
            "message": message,
        }
        if status_reason:
            status["reason"] = status_reason
        self.write_pod("Succeeded" if code == 0 else "Failed", {"terminated": state}, **status)
        if remove and (found := self.pod_now()) is not None and "deletionTimestamp" in found["metadata"]:
            self.vanish()

    def vanish(self) -> None:
        """The pod object goes at once."""
        try:
            self.api.delete(self._pod_path(self.pod), {"gracePeriodSeconds": 0})
        except ApiError as error:
            if error.status != 404:
                raise

    def delete_pod(self) -> None:
        """Somebody deletes the pod, gracefully."""
        self.api.delete(self._pod_path(self.pod))

    def evict(self) -> None:
        """The Eviction API, which writes DisruptionTarget itself."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": self.pod, "namespace": self.namespace},
        }
        try:
            self.api.create(f"{self._pod_path(self.pod)}/eviction", body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def patch_job(self, spec: Json) -> None:
        self.api.patch(self._job_path(), {"spec": spec})

    # ------------------------------------------------------------------ what the operator makes of it

    def is_stopping(self) -> bool:
        found = self.pod_now()
        return found is None or "deletionTimestamp" in found["metadata"]

    def wait_stopping(self, seconds: float = 5.0) -> None:
        wait_for(f"graceful stop of {self.pod}", self.is_stopping, seconds)

    def restarts(self) -> list[Json]:
        return list(self.status().get("recentRestarts") or [])

    def verdict(self, seconds: float = 10.0) -> Json:
        """The one verdict on the pod that ran last."""
        uid = self.pods[-1]["metadata"]["uid"]
        found = wait_for(
            f"verdict on {self.pod}",
            lambda: [each for each in self.restarts() if each["podUID"] == uid],
            seconds,
        )
        assert len(found) == 1, found
        return dict(found[0])

    def expect(self, cause: str, row: str, *, charged: bool = False, seconds: float = 10.0) -> Json:
        """The verdict, and the next incarnation's pod unless the job is over."""
        verdict = self.verdict(seconds)
        seen = (verdict["cause"], verdict["row"], verdict["charged"])
        assert seen == (cause, row, charged), verdict["evidence"]
        return verdict

    def expect_next_pod(self, seconds: float = 10.0) -> Json:
        number = len(self.pods) + 1
        return dict(wait_for(f"pod {number} of {self.name}", lambda: self.find_pod(number), seconds))


class Stages:
    """Makes stages in one namespace, under one operator of its own."""

    def __init__(self, api: ApiClient, scene: Scene, operator: Operator) -> None:
        self._api, self._scene, self.operator = api, scene, operator
        self._made: list[Stage] = []

    def __call__(self, *, on_demand: bool = False, claims: bool = False, **spec: Any) -> Stage:
        """A job that runs; `claims`: its trainer has reported, and so speaks the claim protocol."""
        name = f"job-{len(self._made) + 1}"
        stage = Stage(self._api, self._scene.namespace, name, on_demand=on_demand)
        self._made.append(stage)
        stage.begin(**spec)
        if claims:
            self.claim(stage)
        return stage

    def claim(self, stage: Stage) -> None:
        step = 100 * len(stage.pods) - 20
        self.report(stage, {"step": step + 10, "totalSteps": 1000, "durableStep": step})
        wait_for("claims", lambda: stage.status().get("claims"))

    def report(self, stage: Stage, said: Json, *, incarnation: int | None = None) -> Json:
        """What the operator answers to a report of the pod of the incarnation, by default the last."""
        number = incarnation or len(stage.pods)
        pod = stage.pods[number - 1]["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
        body = {"spec": {"audiences": [AUDIENCE], "boundObjectRef": bound}}
        path = f"/api/v1/namespaces/{stage.namespace}/serviceaccounts/default/token"
        token = stage.api.create(path, body)["status"]["token"]
        said = {"incarnation": number, "checkpointName": f"c{said.get('durableStep')}", **said}

        def post() -> str:
            code, text = report(self.operator, self._scene, token, said, stage.name)
            return text if code == 200 else ""

        return dict(json.loads(wait_for("accepted report", post))["directives"])

    def close(self) -> None:
        self.operator.kill()
        for stage in self._made:
            stage.remove_node()


def hold(seconds: float, what: Callable[[], bool], complaint: str) -> None:
    """It stays true all this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert what(), complaint
        time.sleep(0.2)
