"""What the operator sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from spot_operator.model.spec import InvalidSpec, JobSpec
from spot_operator.model.status import JobStatus, Overheads
from spot_operator.names import CapacityType
from spot_operator.policy import Interruptions


class Unknown(Enum):
    """The type of `UNKNOWN`: the API server could not tell. It forbids destructive action."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class PodCondition:
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerTermination:
    exit_code: int
    reason: str = ""
    message: str = ""
    """The termination message, raw: an outcome, or whatever the program wrote."""
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerView:
    """State of the trainer container; all three None before the kubelet reported it."""

    waiting_reason: str | None = None
    waiting_message: str = ""
    running_since: datetime | None = None
    terminated: ContainerTermination | None = None


@dataclass(frozen=True, kw_only=True)
class PodView:
    name: str
    uid: str
    incarnation: int
    rank: int
    created: datetime
    phase: str
    """Pending | Running | Succeeded | Failed | Unknown"""
    node_name: str | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_seconds: int | None = None
    status_reason: str = ""
    status_message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    trainer: ContainerView = ContainerView()
    trainer_container: str = "trainer"
    """The name of the trainer's container, as it was when the pod was created."""
    init_waiting_reason: str | None = None
    init_waiting_message: str = ""
    started_any_container: bool = False
    capacity_type: CapacityType = CapacityType.SPOT
    """As its label says."""
    is_heard: bool = True
    """The watch tells of it; of one whose label or controller was taken away, nothing does."""
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    """By name, of the containers that have ended."""

    def condition(self, type_: str) -> PodCondition | None:
        return next((c for c in self.conditions if c.type == type_), None)


@dataclass(frozen=True, kw_only=True)
class Taint:
    key: str
    value: str = ""
    effect: str = ""
    time_added: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class NodeCondition:
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class NodeView:
    name: str
    uid: str
    boot_id: str = ""
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    deletion_timestamp: datetime | None = None
    taints: tuple[Taint, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()
    price_annotation: str = ""
    """What `spottraining.io/price-per-node-hour` says; it may be no price."""
    claim_name: str = ""
    """The Karpenter NodeClaim that this node was made for."""
    event_reasons: frozenset[str] = frozenset()
    """Why it goes, by recent Events on it (by UID or name) and its NodeClaim; read only after a signal."""


@dataclass(frozen=True, kw_only=True)
class GoneNode:
    """How a node looked last whose object is gone."""

    view: NodeView
    gone_time: datetime
    signal_time: datetime | None
    """When it was first heard to show a stop signal."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The newest accepted progress report of the job, merged by lineage."""

    pod_uid: str
    received: datetime
    incarnation: int | None = None
    """None: a client that does not speak our extension (plain Kubeflow protocol)."""
    launch: int | None = None
    """Incarnation of the pod that told `step`, by its identity, whatever it speaks."""
    percentage: int | None = None
    estimated_remaining_seconds: int | None = None
    step: int | None = None
    total_steps: int | None = None
    durable_step: int | None = None
    durable_time: datetime | None = None
    checkpoint_name: str | None = None
    steps_per_second: float | None = None
    checkpoint_bytes: int | None = None
    save_seconds: float | None = None
    stall_seconds: float | None = None
    restore_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class PodRefusal:
    """The API server refused to create a pod of the current gang (quota, policy, webhook)."""

    pod_name: str
    message: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that is known of one job at one moment."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: datetime
    spec: JobSpec | InvalidSpec
    status: JobStatus
    pods: tuple[PodView, ...] | Unknown
    """Live list of the job's pods (label job-uid and our controller reference)."""
    departed: tuple[PodView, ...] = ()
    """Last state that the watch showed of the job's pods whose object is gone by now."""
    nodes: Mapping[str, NodeView | Unknown | None] = field(default_factory=dict)
    """Every node named by a pod, a pod record or a restart younger than ten minutes.

    None is known to be absent (live read); a node of another UID than recorded is a new one."""
    gone_nodes: Mapping[str, GoneNode] = field(default_factory=dict)
    """By UID: nodes of the job's pods that have gone within a quarter of an hour."""
    report: Report | None = None
    reports_since: datetime | None = None
    """Since when this process hears reports; before that, silence means nothing."""
    refusal: PodRefusal | None = None
    known_overheads: Overheads = field(default_factory=Overheads)
    """What other jobs in the same pools have seen."""
    known_interruptions: Mapping[str, Interruptions] = field(default_factory=dict)
    """By zone: what other jobs in the same spot pool have seen."""
    created_uids: Mapping[str, str] = field(default_factory=dict)
    """UIDs by name of the gang's pods that this process has created; they may be gone again."""
    knows_creations: bool = True
    """Whether this process knows of every pod of the gang if it was ever created. After a restart, or
    when an answer was lost, a pod that is absent may have existed."""
    deletion_requested: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    status_ca: str = ""
    """PEM of the CA that signs the status server, for the pods' annotation."""
    status_url: str = ""
    """Full URL that the job's pods report to; empty: no status server."""
