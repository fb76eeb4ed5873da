"""Pods and nodes -> the facts that the operator's verdicts read, without names, UIDs and heartbeats.

One normaliser for what a real API server shows and for what the model of one shows, so that the
two can be compared. Invariant: equal facts mean that the operator could not tell the two objects
apart; moments are kept beside the facts, because no two runs have the same. The boot id is left
out: machines that share a kernel share it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]
Facts = dict[str, Any]
"""By name; a fact that does not hold is left out."""
Moments = dict[str, datetime]
"""By name of the fact: since when, by the object's own word."""

POD_CONDITIONS = {"PodScheduled": "scheduled", "DisruptionTarget": "disruption"}
SHUTDOWN = "shut"
SILENT = "stopped posting"


def time_of(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def pod_facts(pod: Json) -> tuple[Facts, Moments]:
    metadata, status = pod["metadata"], pod.get("status", {})
    facts: Facts = {"phase": status.get("phase", "Pending"), "reason": status.get("reason")}
    moments: dict[str, Any] = {}
    facts["shutdown"] = SHUTDOWN in (status.get("message") or "").lower() or None
    facts["node"] = pod.get("spec", {}).get("nodeName") or None
    for condition in status.get("conditions") or ():
        name = POD_CONDITIONS.get(condition["type"])
        if name is not None:
            facts[name] = f"{condition['status']} {condition.get('reason', '')}".strip()
            moments[name] = condition.get("lastTransitionTime")
    if metadata.get("deletionTimestamp"):
        facts["deletion"] = f"grace {metadata.get('deletionGracePeriodSeconds')}"
        moments["deletion"] = metadata["deletionTimestamp"]
    for container in status.get("containerStatuses") or ():
        facts["container"], moments["container"] = _state(container.get("state") or {})
    return _held(facts), _known(moments)


def _state(state: Json) -> tuple[str | None, str | None]:
    if (ended := state.get("terminated")) is not None:
        code, reason = ended.get("exitCode", 0), ended.get("reason", "")
        return f"terminated {code} {reason}".strip(), ended.get("finishedAt")
    if (running := state.get("running")) is not None:
        return "running", running.get("startedAt")
    if (waiting := state.get("waiting")) is not None:
        return f"waiting {waiting.get('reason', '')}".strip(), None
    return None, None


def node_facts(node: Json) -> tuple[Facts, Moments]:
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    facts: Facts = {"cordoned": spec.get("unschedulable") or None}
    moments: dict[str, Any] = {}
    for taint in spec.get("taints") or ():
        name = f"taint {taint['key']}:{taint['effect']}"
        facts[name], moments[name] = True, taint.get("timeAdded")
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            facts["ready"] = f"{condition['status']} {_why(condition.get('message') or '')}".strip()
            moments["ready"] = condition.get("lastTransitionTime")
    if metadata.get("deletionTimestamp"):
        facts["deletion"], moments["deletion"] = True, metadata["deletionTimestamp"]
    return _held(facts), _known(moments)


def _why(message: str) -> str:
    """The kind of a Ready condition's message, as far as anybody draws a conclusion from it."""
    kinds = {"node is shutting down": "shutting down", SILENT: "silent"}
    return next((kind for text, kind in kinds.items() if text in message), "")


def _held(facts: Facts) -> Facts:
    return {name: value for name, value in facts.items() if value is not None}


def _known(moments: Mapping[str, Any]) -> Moments:
    return {name: found for name, text in moments.items() if (found := time_of(text)) is not None}
