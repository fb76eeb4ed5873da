"""API objects -> the frozen views of `model`; pure, total, and cheap.

Invariant: an object of a shape that this version does not know becomes a view with fewer
facts, never an exception: one odd pod must not stop the look at its job.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from spot_operator.model import (
    MAX_GRACE_SECONDS,
    ContainerTermination,
    ContainerView,
    NodeCondition,
    NodeView,
    PodCondition,
    PodView,
    Taint,
)
from spot_operator.names import (
    ANNOTATION_PRICE_PER_NODE_HOUR,
    LABEL_CAPACITY_TYPE,
    LABEL_INCARNATION,
    LABEL_RANK,
    LABEL_TRAINER_CONTAINER,
    CapacityType,
)

Json = Mapping[str, Any]

ZONE_LABELS: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
DISRUPTED: Final = frozenset({"DisruptionTarget", "TerminationTarget"})
CLAIM_DISRUPTED: Final = "DisruptionReason"
TERMINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})
MAX_PRICE_CHARS: Final = 64
"""Of an annotation that is kept: longer than any price."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_EARLIEST: Final = datetime(1000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""What is written by hand may be at the end of the calendar, where no second can be added."""


def time_of(text: Any) -> datetime | None:
    """An RFC 3339 time of the API server; anything else is no time."""
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return min(max(parsed.astimezone(UTC), _EARLIEST), _LATEST) if parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def controller_of(obj: Json) -> Json | None:
    """The controlling owner reference, if there is one."""
    owners: Iterable[Json] = obj.get("metadata", {}).get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_terminal(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in TERMINAL_PHASES


def is_ending(pod: Json) -> bool:
    """Something has told it to end, or it has ended, or its trainer may have."""
    status = pod.get("status", {})
    containers: Iterable[Json] = status.get("containerStatuses") or ()
    conditions: Iterable[Json] = status.get("conditions") or ()
    return (
        pod["metadata"].get("deletionTimestamp") is not None
        or is_terminal(pod)
        or any("terminated" in (each.get("state") or {}) for each in containers)
        or any(c.get("type") in DISRUPTED and c.get("status") == "True" for c in conditions)
    )


def incarnation_of(pod: Json) -> int:
    """The incarnation that a pod belongs to; 0 if it does not say."""
    return _number(pod, LABEL_INCARNATION, part=-2)


def pod_view(pod: Json, trainer_container: str | None) -> PodView:
    """The view of a pod; `trainer_container` is the job's, for a pod that does not say its own.

    None means its first container. The job may by now name another, or have them in another order.
    """
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    names: list[str] = [container.get("name", "") for container in spec.get("containers") or [{}]]
    labelled = (metadata.get("labels") or {}).get(LABEL_TRAINER_CONTAINER)
    trainer: str = labelled if labelled in names else (trainer_container or names[0])
    statuses: list[Json] = status.get("containerStatuses") or []
    init_waiting = _waiting(status.get("initContainerStatuses") or [])
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        incarnation=incarnation_of(pod),
        rank=_number(pod, LABEL_RANK, part=-1),
        created=time_of(metadata.get("creationTimestamp")) or _EPOCH,
        capacity_type=_capacity_type(metadata.get("labels") or {}),
        phase=status.get("phase") or "Pending",
        node_name=spec.get("nodeName") or None,
        deletion_timestamp=time_of(metadata.get("deletionTimestamp")),
        deletion_grace_seconds=_grace(metadata.get("deletionGracePeriodSeconds")),
        status_reason=status.get("reason") or "",
        status_message=status.get("message") or "",
        conditions=tuple(_pod_condition(c) for c in status.get("conditions") or ()),
        trainer=_container_view(next((s for s in statuses if s.get("name") == trainer), {})),
        trainer_container=trainer,
        init_waiting_reason=init_waiting.get("reason"),
        init_waiting_message=init_waiting.get("message") or "",
        exit_codes=_exit_codes([*statuses, *(status.get("initContainerStatuses") or [])]),
        started_any_container=any(
            _has_started(s) for s in [*statuses, *(status.get("initContainerStatuses") or [])]
        ),
    )


def _capacity_type(labels: Json) -> CapacityType:
    is_on_demand = labels.get(LABEL_CAPACITY_TYPE) == CapacityType.ON_DEMAND
    return CapacityType.ON_DEMAND if is_on_demand else CapacityType.SPOT


def _grace(seconds: Any) -> int | None:
    """The API server takes any number; one that leaves the calendar is as good as the longest."""
    return min(seconds, MAX_GRACE_SECONDS) if isinstance(seconds, int) else None


def _number(pod: Json, label: str, *, part: int) -> int:
    """A number of the pod's name contract; labels can be edited by anyone, names cannot be."""
    metadata = pod.get("metadata", {})
    name = str(metadata.get("name", "")).split("-")
    from_label = str((metadata.get("labels") or {}).get(label, ""))
    for text in (name[part] if len(name) >= 4 else "", from_label):
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text)
    return 0


def _pod_condition(source: Json) -> PodCondition:
    return PodCondition(
        type=source.get("type") or "",
        status=source.get("status") or "Unknown",
        reason=source.get("reason") or "",
        message=source.get("message") or "",
        last_transition_time=time_of(source.get("lastTransitionTime")),
    )


def _waiting(statuses: list[Json]) -> Json:
    """The waiting state of the first init container that waits for more than its turn."""
    for status in statuses:
        waiting: Json | None = status.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") != "PodInitializing":
            return waiting
    return {}


def _exit_codes(statuses: list[Json]) -> dict[str, int]:
    ended = {str(s.get("name")): (s.get("state") or {}).get("terminated") for s in statuses}
    return {name: int(state.get("exitCode", 0)) for name, state in ended.items() if state}


def _has_started(status: Json) -> bool:
    states = (status.get("state") or {}, status.get("lastState") or {})
    return any("running" in state or "terminated" in state for state in states)


def _container_view(status: Json) -> ContainerView:
    state = status.get("state") or {}
    waiting, running, ended = state.get("waiting"), state.get("running"), state.get("terminated")
    return ContainerView(
        waiting_reason=(waiting.get("reason") or "") if waiting is not None else None,
        waiting_message=(waiting or {}).get("message") or "",
        running_since=time_of((running or {}).get("startedAt")),
        terminated=_termination(ended) if ended is not None else None,
    )


def _termination(source: Json) -> ContainerTermination:
    return ContainerTermination(
        exit_code=int(source.get("exitCode", 0)),
        reason=source.get("reason") or "",
        message=source.get("message") or "",
        finished_at=time_of(source.get("finishedAt")),
    )


def node_view(node: Json, event_reasons: frozenset[str] = frozenset()) -> NodeView:
    """The view of a node, without heartbeat times: equal views mean that nothing happened."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    labels = metadata.get("labels") or {}
    return NodeView(
        name=metadata["name"],
        uid=metadata["uid"],
        boot_id=(status.get("nodeInfo") or {}).get("bootID") or "",
        zone=next((labels[label] for label in ZONE_LABELS if label in labels), ""),
        labels=labels,
        price_annotation=_price_annotation(metadata),
        unschedulable=bool(spec.get("unschedulable")),
        deletion_timestamp=time_of(metadata.get("deletionTimestamp")),
        taints=tuple(_taint(t) for t in spec.get("taints") or ()),
        conditions=tuple(_node_condition(c) for c in status.get("conditions") or ()),
        claim_name=_claim_name(node),
        event_reasons=event_reasons,
    )


def _price_annotation(metadata: Json) -> str:
    """As it is written; what it is worth is not decided here."""
    return str((metadata.get("annotations") or {}).get(ANNOTATION_PRICE_PER_NODE_HOUR, ""))[:MAX_PRICE_CHARS]


def _claim_name(node: Json) -> str:
    owners: Iterable[Json] = node["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("name", "")) for owner in owners if owner.get("kind") == "NodeClaim"), "")


def is_claim_disrupted(claim: Json) -> bool:
    """Karpenter has chosen to disrupt the node (consolidation, drift, expiry); a reclaim does not say so."""
    conditions: Iterable[Json] = (claim.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == CLAIM_DISRUPTED and c.get("status") == "True" for c in conditions)


def _taint(source: Json) -> Taint:
    return Taint(
        key=source.get("key") or "",
        value=source.get("value") or "",
        effect=source.get("effect") or "",
        time_added=time_of(source.get("timeAdded")),
    )


def _node_condition(source: Json) -> NodeCondition:
    return NodeCondition(
        type=source.get("type") or "",
        status=source.get("status") or "Unknown",
        reason=source.get("reason") or "",
        message=source.get("message") or "",
        last_transition_time=time_of(source.get("lastTransitionTime")),
    )
