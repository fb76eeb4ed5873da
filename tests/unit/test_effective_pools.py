"""Presets name the nodes of a pool; what the user gives adds to them or stands in for them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from spot_operator.api.effective import parse_spec
from spot_operator.model import JobSpec, Pool


def pools(**capacity: Any) -> tuple[Pool, Pool, int]:
    spec = {
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
        "checkpoint": {"s3": {"bucket": "checkpoints"}},
        "capacity": capacity,
    }
    parsed = parse_spec(spec, namespace="a", name="b", created=datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(parsed, JobSpec), parsed
    return parsed.spot, parsed.on_demand, parsed.spot_notice_seconds


def term(*expressions: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    described = []
    for key, operator, *values in expressions:
        expression: dict[str, Any] = {"key": key, "operator": operator}
        described.append(expression | ({"values": values} if values else {}))
    return ({"matchExpressions": described},)


def no_schedule(key: str, value: str) -> dict[str, str]:
    return {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}


KARPENTER = "karpenter.sh/capacity-type"
EKS = "eks.amazonaws.com/capacityType"
GKE = "cloud.google.com/gke-"
AKS = "kubernetes.azure.com/"


@pytest.mark.parametrize(
    ("preset", "spot", "on_demand", "notice"),
    [
        (
            "Karpenter",
            Pool(node_affinity_terms=term((KARPENTER, "In", "spot"))),
            Pool(node_affinity_terms=term((KARPENTER, "In", "on-demand", "reserved"))),
            100,
        ),
        (
            "EKS",
            Pool(node_affinity_terms=term((EKS, "In", "SPOT"))),
            Pool(node_affinity_terms=term((EKS, "In", "ON_DEMAND"))),
            100,
        ),
        (
            "GKE",
            Pool(
                node_affinity_terms=term((GKE + "spot", "In", "true")),
                tolerations=(no_schedule(GKE + "spot", "true"),),
            ),
            Pool(
                node_affinity_terms=term(
                    (GKE + "spot", "DoesNotExist"),
                    (GKE + "preemptible", "DoesNotExist"),
                    (GKE + "provisioning", "NotIn", "spot", "preemptible"),
                    (KARPENTER, "NotIn", "spot"),
                )
            ),
            13,
        ),
        (
            "AKS",
            Pool(
                node_affinity_terms=term((AKS + "scalesetpriority", "In", "spot")),
                tolerations=(no_schedule(AKS + "scalesetpriority", "spot"),),
            ),
            Pool(
                node_affinity_terms=term(
                    (AKS + "scalesetpriority", "NotIn", "spot"),
                    (AKS + "priority", "NotIn", "spot"),
                    (KARPENTER, "NotIn", "spot"),
                )
            ),
            10,
        ),
    ],
    ids=["Karpenter", "EKS", "GKE", "AKS"],
)
def test_preset(preset: str, spot: Pool, on_demand: Pool, notice: int) -> None:
    assert pools(preset=preset) == (spot, on_demand, notice)


def test_labels_are_taken_as_given() -> None:
    spot, on_demand, notice = pools(
        preset="Labels",
        spot={"nodeSelector": {"pool": "spot"}},
        onDemand={"nodeAffinityTerms": list(term(("pool", "NotIn", "spot")))},
    )
    assert spot == Pool(node_selector={"pool": "spot"})
    assert on_demand == Pool(node_affinity_terms=term(("pool", "NotIn", "spot")))
    assert notice == 25


def test_labels_and_tolerations_add_to_the_preset() -> None:
    own = {"key": "gpu", "operator": "Exists"}
    spot, _, _ = pools(preset="AKS", spot={"nodeSelector": {"gpu": "h100"}, "tolerations": [own]})
    assert spot == Pool(
        node_selector={"gpu": "h100"},
        node_affinity_terms=term((AKS + "scalesetpriority", "In", "spot")),
        tolerations=(no_schedule(AKS + "scalesetpriority", "spot"), own),
    )


def test_terms_stand_in_for_the_presets() -> None:
    own = term(("lifecycle", "In", "Ec2Spot"))
    spot, on_demand, _ = pools(preset="EKS", spot={"nodeAffinityTerms": list(own)})
    assert spot == Pool(node_affinity_terms=own)
    assert on_demand == Pool(node_affinity_terms=term((EKS, "In", "ON_DEMAND")))


def test_given_notice_replaces_the_presets() -> None:
    assert pools(preset="GKE", spot={"noticeSeconds": 110})[2] == 110
