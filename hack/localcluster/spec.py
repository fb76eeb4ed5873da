"""What a user asks for: nodes, and the knobs of the cluster. Pure data, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from localcluster.commands import LocalClusterError
from localcluster.paths import checked_name

SPOT_TAINT_KEY = "spottraining.io/spot"
CAPACITY_TYPE_LABEL = "karpenter.sh/capacity-type"


class CapacityType(StrEnum):
    SPOT = "spot"
    ON_DEMAND = "on-demand"


class ReclaimStyle(StrEnum):
    """Who takes the machine away, as seen at the API server."""

    KARPENTER = "karpenter"
    CORDON_EVICT = "cordon-evict"
    GKE = "gke"
    """The machine is told to shut down: its kubelet ends the pods. The Node object stays."""
    AKS = "aks"
    """Two conditions on the Node, and nobody drains."""


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str

    @classmethod
    def parse(cls, text: str) -> "Taint":
        """From kubectl's notation, KEY[=VALUE]:EFFECT."""
        pair, colon, effect = text.rpartition(":")
        key, _, value = pair.partition("=")
        if not colon or not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise LocalClusterError(f"{text!r} is no taint; expected KEY[=VALUE]:EFFECT")
        return cls(key, value, effect)

    def to_json(self) -> dict[str, str]:
        return {"key": self.key, "value": self.value, "effect": self.effect}


@dataclass(frozen=True)
class NodeSpec:
    """One machine. Spot machines carry the spot taint, as production pools do."""

    name: str
    capacity_type: CapacityType = CapacityType.SPOT
    zone: str = "zone-a"
    instance_type: str = "local.large"
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] | None = None
    """`None` means the default of the capacity type."""
    graceful_shutdown: bool = False
    """Its kubelet ends the pods when the machine is told to shut down, as on GKE."""

    def __post_init__(self) -> None:
        checked_name(self.name)

    @classmethod
    def parse(cls, text: str) -> "NodeSpec":
        """From the command line's NAME:CAPACITY_TYPE."""
        name, _, capacity = text.partition(":")
        try:
            return cls(name, CapacityType(capacity or "spot"))
        except ValueError:
            raise LocalClusterError(
                f"{text!r}: the capacity type is one of {', '.join(CapacityType)}"
            ) from None

    def all_labels(self) -> dict[str, str]:
        return {
            CAPACITY_TYPE_LABEL: self.capacity_type.value,
            "topology.kubernetes.io/zone": self.zone,
            "topology.kubernetes.io/region": "local",
            "node.kubernetes.io/instance-type": self.instance_type,
            **self.labels,
        }

    def all_taints(self) -> tuple[Taint, ...]:
        if self.taints is not None:
            return self.taints
        if self.capacity_type is CapacityType.SPOT:
            return (Taint(SPOT_TAINT_KEY, "true", "NoSchedule"),)
        return ()


DEFAULT_NODES = (
    NodeSpec("spot-a", CapacityType.SPOT),
    NodeSpec("spot-b", CapacityType.SPOT, zone="zone-b"),
    NodeSpec("ondemand-a", CapacityType.ON_DEMAND),
)


@dataclass(frozen=True)
class ClusterConfig:
    """Everything that can be chosen about a cluster."""

    name: str = "default"
    nodes: tuple[NodeSpec, ...] = DEFAULT_NODES
    """No nodes: the control plane alone, for tests of the API; ready in a few seconds."""
    images: tuple[str, ...] = ()
    """Well-known images to build and preload: `operator`, `trainer`, `python-base`, `torch-base`."""
    s3: bool = True
    """Run an S3 server beside the control plane."""
    node_monitor_grace_seconds: int = 16
    """Silence after which a node is Ready=Unknown (Kubernetes' default of 50 s is slow in tests)."""
    unreachable_toleration_seconds: int = 300
    """What admission gives pods without an own toleration (Kubernetes' default)."""
    flags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More flags of a component of the control plane, by its name; they win over ours."""
    cache_root: Path | None = None
    """`None` means `$SPOT_CACHE_DIR` or the user's cache directory."""

    def __post_init__(self) -> None:
        checked_name(self.name)
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise LocalClusterError(f"two nodes have the same name: {', '.join(names)}")
        if strange := set(self.flags) - set(COMPONENT_NAMES):
            raise LocalClusterError(f"no components: {sorted(strange)}; known: {COMPONENT_NAMES}")
        if unknown := set(self.images) - set(IMAGE_NAMES):
            raise LocalClusterError(f"unknown images {sorted(unknown)}; known: {IMAGE_NAMES}")

    @classmethod
    def control_plane_only(cls, name: str = "api") -> "ClusterConfig":
        """The light mode: API server and controllers, no nodes, no images, no S3."""
        return cls(name=name, nodes=(), s3=False)


IMAGE_NAMES = ("python-base", "torch-base", "operator", "trainer")
COMPONENT_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
