"""SpotTrainingJobs as a user handles them: apply, look, patch, wait.

Invariant: a wait that fails says where the job stands (its printed line, its conditions,
its newest events), because by then the cluster is about to go.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from localcluster import Cluster, LocalClusterError
from localcluster.api import ApiError

Job = Mapping[str, Any]

POLL_SECONDS = 0.2
COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"


class DemoError(Exception):
    """Something did not turn out as promised; the message is for people."""


class Jobs:
    """The jobs of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace
        self._collection = f"/apis/spottraining.io/v1alpha1/namespaces/{namespace}/spottrainingjobs"

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """`kubectl apply`, with its strict validation."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self._cluster.kubectl("apply", "--namespace", self.namespace, "-f", "-", stdin=json.dumps(items))

    def get(self, name: str) -> Job:
        found: Job = self._cluster.api.get(f"{self._collection}/{name}")
        return found

    def patch(self, name: str, body: Mapping[str, Any]) -> None:
        """A merge patch."""
        self._cluster.api.patch(f"{self._collection}/{name}", body)

    def delete(self, name: str) -> None:
        self._cluster.api.delete(f"{self._collection}/{name}")

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The job's pods that exist, by incarnation."""
        selector = f"labelSelector=spottraining.io%2Fjob-name%3D{name}"
        found = self._cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods?{selector}")["items"]
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"]["spottraining.io/incarnation"]))

    def events(self, name: str) -> list[dict[str, Any]]:
        query = f"fieldSelector=involvedObject.kind%3DSpotTrainingJob%2CinvolvedObject.name%3D{name}"
        found: list[dict[str, Any]]
        found = self._cluster.api.get(f"/api/v1/namespaces/{self.namespace}/events?{query}")["items"]
        return found

    def wait(
        self, name: str, is_so: Callable[[Job], bool], *, what: str, timeout_seconds: float = 60.0
    ) -> Job:
        """The job, as soon as the predicate holds for it; a job that fails ends the wait."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            job = self.get(name)
            if is_so(job):
                return job
            if is_true(job, FAILED):
                raise DemoError(f"job {name} failed while waiting for: {what}\n{self.describe(name)}")
            if time.monotonic() > deadline:
                waited = f"waited {timeout_seconds:.0f} s in vain for: {what}"
                raise DemoError(f"job {name}: {waited}\n{self.describe(name)}")
            time.sleep(POLL_SECONDS)

    def wait_condition(
        self, name: str, type_: str, *, status: str = "True", reason: str = "", timeout_seconds: float = 60.0
    ) -> Job:
        def is_so(job: Job) -> bool:
            found = condition(job, type_)
            return bool(found) and found["status"] == status and reason in ("", found["reason"])

        what = f"condition {type_}={status}" + (f", reason {reason}" if reason else "")
        return self.wait(name, is_so, what=what, timeout_seconds=timeout_seconds)

    def describe(self, name: str) -> str:
        """Where the job stands, in a few lines."""
        try:
            job, events = self.get(name), self.events(name)
        except (ApiError, LocalClusterError, OSError) as error:
            return f"  (cannot be read: {error})"
        status = job.get("status", {})
        lines = [f"phase {status.get('phase')}: {status.get('message', '')}"]
        for found in status.get("conditions", []):
            lines.append(f"{found['type']}={found['status']} {found['reason']}: {found.get('message', '')}")
        lines += [f"event {event['reason']}: {event['message']}" for event in events[-8:]]
        for pod in self.pods(name)[-3:]:
            where = pod["spec"].get("nodeName", "no node")
            lines.append(f"pod {pod['metadata']['name']} on {where}: {pod['status'].get('phase')}")
        return "\n".join(f"  | {line}" for line in lines)


def condition(job: Job, type_: str) -> dict[str, Any]:
    """The condition of that type; empty if there is none."""
    found = job.get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == type_), {})


def is_true(job: Job, type_: str) -> bool:
    return condition(job, type_).get("status") == "True"


def is_done(job: Job) -> bool:
    return is_true(job, COMPLETE) or is_true(job, FAILED)


def current_node(job: Job) -> str:
    """The node of the running gang; empty if there is none."""
    pods = job.get("status", {}).get("gang", {}).get("pods", [])
    return str(pods[0].get("nodeName", "")) if pods else ""


def has_running_container(pod: Mapping[str, Any]) -> bool:
    """A pod's phase says Running for a moment longer than its containers run."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any("running" in status.get("state", {}) for status in statuses)


def restarts(job: Job) -> list[dict[str, Any]]:
    """The operator's verdicts, oldest first."""
    found: list[dict[str, Any]] = job.get("status", {}).get("recentRestarts", [])
    return found
