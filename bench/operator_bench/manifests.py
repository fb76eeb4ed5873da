"""What is applied: nodes, the operator's jobs, and the Job controller's with the very same pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

PODS_PER_NODE = 5
SIGNAL = {"key": "aws-node-termination-handler/spot-itn", "value": "true", "effect": "NoSchedule"}
"""NoSchedule: Kubernetes itself stops nothing because of it."""

_BY_THE_CLUSTER = (
    "nodeName",
    "serviceAccount",
    "serviceAccountName",
    "priority",
    "preemptionPolicy",
    "affinity",
)


def node(name: str) -> dict[str, Any]:
    size = {"cpu": "192", "memory": "2Ti", "pods": "110"}
    labels = {"pool": "spot", "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "zone-a"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": labels,
        },
        "status": {"capacity": size, "allocatable": size},
    }


def spot_job(name: str, namespace: str, *, suspend: bool = False) -> dict[str, Any]:
    container = {
        "name": "trainer",
        "image": "registry.example.com/train:1",
        "command": ["python", "train.py"],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    }
    return {
        "apiVersion": "spottraining.io/v1alpha1",
        "kind": "SpotTrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "suspend": suspend,
            "template": {"spec": {"containers": [container]}},
            "checkpoint": {"s3": {"bucket": "checkpoints"}},
            "capacity": {
                "preset": "Labels",
                "spot": {"nodeSelector": {"pool": "spot"}},
                "onDemand": {"nodeSelector": {"pool": "on-demand"}},
                # All machines here are spot, and some jobs are interrupted often.
                "fallback": {"policy": "SpotOnly"},
            },
        },
    }


def batch_job(name: str, namespace: str, pod_spec: Json) -> dict[str, Any]:
    """The built-in Job with a pod as the operator makes it."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "backoffLimit": 1_000_000,
            "template": {"spec": {k: v for k, v in pod_spec.items() if k not in _BY_THE_CLUSTER}},
        },
    }


def eviction(pod: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
