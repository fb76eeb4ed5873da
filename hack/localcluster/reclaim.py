"""Taking a spot machine away, step by step as the cluster's API sees it from a provider.

Karpenter: events on the Node, deletion of the Node (held by a finalizer), a
taint, eviction of the pods that allow it; the machine dies when the notice is
over, or earlier once it is empty. Cordon and evict: what a node termination
handler or a managed node group does. In both, pods that resist keep running
until the power goes, exactly as in the cloud. GKE: the machine is told to shut
down, and its kubelet ends the pods; the Node stays, since a machine of that
name comes back. AKS: conditions on the Node, nobody drains, the Node goes with
the machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from localcluster.api import STRATEGIC_PATCH, ApiClient, ApiError
from localcluster.spec import ReclaimStyle

DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
DISRUPTED_TAINT = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
_POLL_SECONDS = 0.5


@dataclass
class Step:
    """Something that happened, and when."""

    name: str
    at: datetime
    seconds: float
    """Since the notice."""
    detail: str = ""


@dataclass
class ReclaimRecord:
    """What was done to a node, in order."""

    node: str
    style: str
    notice_seconds: float
    steps: list[Step] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic, repr=False)

    def note(self, name: str, detail: str = "") -> None:
        elapsed = time.monotonic() - self._began
        self.steps.append(Step(name, datetime.now(UTC), round(elapsed, 3), detail))

    def seconds(self, name: str) -> float:
        """When the step happened, in seconds since the notice."""
        return next(step.seconds for step in self.steps if step.name == name)

    def lines(self) -> list[str]:
        """For people."""
        return [f"{step.seconds:7.2f} s  {step.name}  {step.detail}".rstrip() for step in self.steps]


@dataclass(frozen=True)
class Machine:
    """The hands on the machine itself."""

    shut_down: Callable[[float], str]
    """Ask its system to shut down; returns, at the latest after so many seconds, how that went."""
    power_off: Callable[[], None]


def reclaim(
    api: ApiClient,
    node: str,
    *,
    style: ReclaimStyle,
    notice_seconds: float,
    machine: Machine,
    leave_when_empty: bool = True,
) -> ReclaimRecord:
    """Announce, drain, cut the power, remove the Node; returns when it is over."""
    record = ReclaimRecord(node, style.value, notice_seconds)
    deadline = time.monotonic() + notice_seconds
    if style is not ReclaimStyle.KARPENTER:
        _remove_finalizers(api, node)  # a node of another provisioner never had Karpenter's
    match style:
        case ReclaimStyle.KARPENTER:
            _announce_like_karpenter(api, node, record)
            _drain(api, node, record, deadline, skip_protected=True, leave_early=leave_when_empty)
        case ReclaimStyle.CORDON_EVICT:
            api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
            record.note("cordoned")
            _drain(api, node, record, deadline, skip_protected=False, leave_early=leave_when_empty)
        case ReclaimStyle.GKE:
            record.note("shutdown announced")
            record.note("shutdown", machine.shut_down(notice_seconds))
        case ReclaimStyle.AKS:
            _announce_like_aks(api, node, record)
            _wait_for_end(api, node, record, deadline, leave_early=leave_when_empty)
    machine.power_off()
    record.note("powered off")
    match style:
        case ReclaimStyle.KARPENTER:
            _remove_finalizers(api, node)
        case ReclaimStyle.GKE:
            return record
        case _:
            _ignoring_absence(lambda: api.delete(f"/api/v1/nodes/{node}"))
    record.note("node object removed")
    return record


def _announce_like_karpenter(api: ApiClient, node: str, record: ReclaimRecord) -> None:
    found = api.get(f"/api/v1/nodes/{node}")
    for reason, message in (
        ("SpotInterrupted", "Spot interruption warning was triggered"),
        ("TerminatingOnInterruption", "Interruption triggered termination for the Node"),
    ):
        api.create("/api/v1/namespaces/default/events", node_event(found, reason, message))
        record.note(f"event {reason}")
    api.delete(f"/api/v1/nodes/{node}")
    record.note("node deletion requested")
    taints = [*found["spec"].get("taints", []), DISRUPTED_TAINT]
    labels = {"node.kubernetes.io/exclude-from-external-load-balancers": "karpenter"}
    api.patch(
        f"/api/v1/nodes/{node}",
        {"spec": {"taints": taints}, "metadata": {"labels": labels}},
        STRATEGIC_PATCH,
    )
    record.note("tainted", "karpenter.sh/disrupted:NoSchedule")


def _announce_like_aks(api: ApiClient, node: str, record: ReclaimRecord) -> None:
    """What its node problem detector makes of a scheduled event of the kind Preempt."""
    now = datetime.now(UTC)
    end = (now + timedelta(seconds=record.notice_seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    message = f"Preempt Scheduled: {end}. DurationInSeconds: -1."
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    reasons = {"VMEventScheduled": "VMEventScheduled", "PreemptionScheduled": "SpotEvictionIncoming"}
    conditions = [
        {
            "type": type_,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
        }
        for type_, reason in reasons.items()
    ]
    api.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": conditions}}, STRATEGIC_PATCH)
    record.note("condition PreemptionScheduled", message)


def node_event(node: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """An Event about a Node: nodes have no namespace, so their events are in `default`."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = node["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{name}.", "namespace": "default"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Node",
            "name": name,
            "uid": node["metadata"]["uid"],
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": "karpenter"},
        "reportingComponent": "karpenter",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _drain(
    api: ApiClient,
    node: str,
    record: ReclaimRecord,
    deadline: float,
    *,
    skip_protected: bool,
    leave_early: bool,
) -> None:
    """Evict until the machine is empty or the notice is over; refusals (budgets) are tried again."""
    evicted: set[str] = set()
    while time.monotonic() < deadline:
        remaining = [pod for pod in _pods_on(api, node) if is_drained(pod)]
        if not remaining and leave_early:
            record.note("drained")
            return
        for pod in remaining:
            if pod["metadata"]["uid"] in evicted or "deletionTimestamp" in pod["metadata"]:
                continue
            if skip_protected and is_protected(pod):
                continue
            if _evict(api, pod):
                evicted.add(pod["metadata"]["uid"])
                record.note("evicted", f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    record.note("notice over")


def _wait_for_end(
    api: ApiClient, node: str, record: ReclaimRecord, deadline: float, *, leave_early: bool
) -> None:
    """Until the notice is over, or until others have ended every pod."""
    while time.monotonic() < deadline:
        if leave_early and not any(map(is_drained, _pods_on(api, node))):
            record.note("empty")
            return
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    record.note("notice over")


def is_drained(pod: dict[str, Any]) -> bool:
    """Whether a drain waits for this pod: not for finished ones, nor for those bound to the node."""
    owners = pod["metadata"].get("ownerReferences", [])
    bound = any(owner["kind"] in ("DaemonSet", "Node") for owner in owners)
    return not bound and pod["status"].get("phase") not in ("Succeeded", "Failed")


def is_protected(pod: dict[str, Any]) -> bool:
    """Karpenter never evicts these; they get nothing until the machine is gone."""
    return bool(pod["metadata"].get("annotations", {}).get(DO_NOT_DISRUPT) == "true")


def _pods_on(api: ApiClient, node: str) -> list[dict[str, Any]]:
    pods: list[dict[str, Any]] = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"]
    return pods


def _evict(api: ApiClient, pod: dict[str, Any]) -> bool:
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/eviction"
    try:
        api.create(path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
    except ApiError as error:
        if error.status in (404, 429, 500):  # gone; or refused by a disruption budget, for now
            return False
        raise
    return True


def _remove_finalizers(api: ApiClient, node: str) -> None:
    patch = {"metadata": {"finalizers": None}}
    _ignoring_absence(lambda: api.patch(f"/api/v1/nodes/{node}", patch))


def _ignoring_absence(action: Callable[[], Any]) -> None:
    try:
        action()
    except ApiError as error:
        if error.status != 404:
            raise
