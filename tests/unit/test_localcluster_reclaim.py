"""Which pods a drain evicts and waits for, as Karpenter decides it."""

from typing import Any

import pytest

from localcluster.reclaim import ReclaimRecord, is_drained, is_protected, node_event


def pod(phase: str = "Running", owner: str | None = None, **annotations: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"annotations": {k.replace("_", "/"): v for k, v in annotations.items()}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner}]
    return {"metadata": metadata, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("subject", "waits"),
    [
        (pod(), True),
        (pod(owner="SpotTrainingJob"), True),
        (pod(owner="DaemonSet"), False),
        (pod(owner="Node"), False),
        (pod(phase="Succeeded"), False),
        (pod(phase="Failed"), False),
        (pod(phase="Pending"), True),
    ],
)
def test_a_drain_waits_for_pods_that_could_go_elsewhere(subject: dict[str, Any], waits: bool) -> None:
    assert is_drained(subject) is waits


def test_only_the_exact_annotation_protects() -> None:
    assert is_protected({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}})
    assert not is_protected({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "false"}}})
    assert not is_protected({"metadata": {}})


def test_events_about_nodes_are_in_the_default_namespace() -> None:
    event = node_event({"metadata": {"name": "a", "uid": "u"}}, "SpotInterrupted", "text")
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u"}
    assert event["source"] == {"component": "karpenter"}


def test_a_record_tells_when_each_step_was() -> None:
    record = ReclaimRecord("a", "karpenter", 30)
    record.note("tainted", "key")
    assert 0 <= record.seconds("tainted") < 1
    assert record.lines()[0].endswith("s  tainted  key")
