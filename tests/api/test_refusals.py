"""Pods that the API server's own admission refuses: shown in its words, waited out, never a failure.

Real ResourceQuota and Pod Security admission; what a webhook refuses looks the same to the operator.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from operator_scene import Operator, Scene, wait_for

pytestmark = pytest.mark.api

ENFORCE = "pod-security.kubernetes.io/enforce"
RESTRICTED = {
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "trainer",
            "image": "trainer",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def quota(scene: Scene) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods", "namespace": scene.namespace},
        "spec": {"hard": {"pods": "0"}},
    }


def enforce(scene: Scene, level: str | None) -> None:
    patch = json.dumps({"metadata": {"labels": {ENFORCE: level}}})
    scene.kubectl("patch", "namespace", scene.namespace, "--type=merge", "-p", patch)


def refusal(scene: Scene) -> str:
    """What the job says of a pod that was refused."""
    found = [c for c in scene.status().get("conditions", []) if c["type"] == "PodsReady"]
    return str(found[0]["message"]) if found and found[0]["reason"] == "PodCreationRefused" else ""


def expect_patience(operator: Operator, scene: Scene) -> None:
    """The job waits: it asks now and then, and nothing counts against it."""
    before, began = operator.requests()[("create", "pods")], time.monotonic()
    time.sleep(11)
    asked = operator.requests()[("create", "pods")] - before
    assert 1 <= asked <= (time.monotonic() - began) / 5 + 1
    status = scene.status()
    assert (status["phase"], scene.condition("Failed")) == ("Pending", "")
    assert not any(status["restarts"].values())
    assert scene.names("pods") == []


def test_a_quota_that_is_used_up_is_waited_out(operator: Operator, scene: Scene) -> None:
    scene.kubectl("create", "-f", "-", body=quota(scene))
    wait_for("quota in force", lambda: not scene._may_create_pods())
    scene.apply_job()
    said = wait_for("refusal", lambda: refusal(scene))
    assert "exceeded quota: no-pods" in said
    expect_patience(operator, scene)
    scene.kubectl("delete", "resourcequota", "no-pods", "-n", scene.namespace)
    scene.run(scene.pod_of(1))
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")


def test_a_pod_that_pod_security_forbids_is_refused_until_the_namespace_allows_it(
    operator: Operator, scene: Scene
) -> None:
    enforce(scene, "restricted")
    scene.apply_job()
    said = wait_for("refusal", lambda: refusal(scene))
    assert 'violates PodSecurity "restricted' in said
    assert "runAsNonRoot" in said
    expect_patience(operator, scene)
    enforce(scene, None)
    scene.pod_of(1)


def test_what_the_operator_adds_to_a_pod_is_allowed_where_pods_are_restricted(
    operator: Operator, scene: Scene
) -> None:
    enforce(scene, "restricted")
    scene.apply_job(template={"spec": RESTRICTED})
    scene.run(scene.pod_of(1))
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    assert not refusal(scene)
