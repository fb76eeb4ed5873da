"""How the platforms mark spot and on-demand nodes.

Invariant: a spot term is a positive requirement, which provisioners need to create a node for
the pod; an on-demand term can never match a spot node of its platform. Where on-demand nodes
carry no label of their own the term says what they must not carry; `NotIn` and `DoesNotExist`
both match nodes without the label, and Karpenter accepts them for labels that it does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spot_operator.api.spec import Preset
from spot_operator.model import Pool

KARPENTER: Final = "karpenter.sh/capacity-type"
EKS: Final = "eks.amazonaws.com/capacityType"
GKE_SPOT: Final = "cloud.google.com/gke-spot"
GKE_PREEMPTIBLE: Final = "cloud.google.com/gke-preemptible"
GKE_PROVISIONING: Final = "cloud.google.com/gke-provisioning"
AKS_SCALE_SET: Final = "kubernetes.azure.com/scalesetpriority"
AKS_PRIORITY: Final = "kubernetes.azure.com/priority"


@dataclass(frozen=True, kw_only=True)
class PresetValues:
    spot: Pool
    on_demand: Pool
    notice_seconds: int
    """What a reclaim notice leaves for the last checkpoint, with a margin."""


def _one_term(*expressions: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return ({"matchExpressions": list(expressions)},)


def _in(key: str, *values: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


def _not_in(key: str, *values: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "NotIn", "values": list(values)}


def _absent(key: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "DoesNotExist"}


def _tolerates(key: str, value: str) -> tuple[Mapping[str, Any], ...]:
    return ({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"},)


PRESETS: Final[Mapping[Preset, PresetValues]] = {
    "Karpenter": PresetValues(
        spot=Pool(node_affinity_terms=_one_term(_in(KARPENTER, "spot"))),
        on_demand=Pool(node_affinity_terms=_one_term(_in(KARPENTER, "on-demand", "reserved"))),
        notice_seconds=100,
    ),
    "EKS": PresetValues(
        spot=Pool(node_affinity_terms=_one_term(_in(EKS, "SPOT"))),
        on_demand=Pool(node_affinity_terms=_one_term(_in(EKS, "ON_DEMAND"))),
        notice_seconds=100,
    ),
    # Node auto-provisioning and Autopilot taint spot nodes; plain node pools do not.
    "GKE": PresetValues(
        spot=Pool(
            node_affinity_terms=_one_term(_in(GKE_SPOT, "true")),
            tolerations=_tolerates(GKE_SPOT, "true"),
        ),
        on_demand=Pool(
            node_affinity_terms=_one_term(
                _absent(GKE_SPOT),
                _absent(GKE_PREEMPTIBLE),
                _not_in(GKE_PROVISIONING, "spot", "preemptible"),
                _not_in(KARPENTER, "spot"),
            )
        ),
        notice_seconds=13,
    ),
    "AKS": PresetValues(
        spot=Pool(
            node_affinity_terms=_one_term(_in(AKS_SCALE_SET, "spot")),
            tolerations=_tolerates(AKS_SCALE_SET, "spot"),
        ),
        on_demand=Pool(
            node_affinity_terms=_one_term(
                _not_in(AKS_SCALE_SET, "spot"), _not_in(AKS_PRIORITY, "spot"), _not_in(KARPENTER, "spot")
            )
        ),
        notice_seconds=10,
    ),
    "Labels": PresetValues(spot=Pool(), on_demand=Pool(), notice_seconds=25),
}
