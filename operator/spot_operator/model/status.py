"""What the operator remembers of a job: its status."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from spot_operator.names import CapacityType, Cause, ConditionType, Phase, Reason, StopReason
from spot_operator.policy import Launches, Notices

NO_LAUNCHES: Final = Launches()
NO_NOTICES: Final = Notices()


@dataclass(frozen=True, kw_only=True)
class Condition:
    type: ConditionType
    status: bool | None
    """None is the API's `Unknown`."""
    reason: str
    """A `Reason`, or the trainer's own word for why a restart cannot help."""
    message: str
    last_transition_time: datetime
    observed_generation: int


@dataclass(frozen=True, kw_only=True)
class Hint:
    """Something on a pod's node says that it may go: worth a checkpoint, not a stop."""

    signal: str
    """For example `cordon`."""
    first_seen_time: datetime


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A stop signal that was seen on a pod's node, kept so that a verdict survives the node."""

    signal: str
    """For example `taint karpenter.sh/disrupted`."""
    first_seen_time: datetime
    confirmed_reclaim: bool
    """The signal itself says that spot capacity is being taken away."""
    chosen_disruption: bool
    """Something says that the cluster chose this (consolidation, scale-down, upgrade)."""


@dataclass(frozen=True, kw_only=True)
class PodRecord:
    """What is known of one pod of the gang, so that a lost pod can still be judged."""

    name: str
    rank: int
    uid: str | None = None
    node_name: str | None = None
    node_uid: str | None = None
    boot_id: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    price_per_node_hour: Decimal | None = None
    """What its node costs: by the job, else the node's annotation, else the chart's table."""
    scheduled_time: datetime | None = None
    started_time: datetime | None = None
    node_gone_time: datetime | None = None
    """When the pod's node object (by UID) was first seen to be gone."""
    notice: Notice | None = None
    hint: Hint | None = None
    deletion_requested_time: datetime | None = None
    """When somebody asked for the pod's deletion; its last state does not tell that any more."""
    working_time: datetime | None = None
    """When its program was first known to do useful work: the end of the launch's overhead."""
    exit_time: datetime | None = None
    """When an exit 0 was first seen; without an outcome Complete is held back for 10 s."""
    finished_time: datetime | None = None
    """When that container ended, by its kubelet: the pod may be gone before the hold is over."""
    unreachable_time: datetime | None = None
    """When the pod's node was first seen to be out of reach, the last time that it was; it may be back."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The operator's own intent to end the gang, written before any pod is deleted."""

    reason: StopReason
    time: datetime
    message: str


@dataclass(frozen=True, kw_only=True)
class Gang:
    incarnation: int
    capacity_type: CapacityType
    created_time: datetime
    pods: tuple[PodRecord, ...]
    stop: Stop | None = None
    hands_over_from: int | None = None
    """The incarnation that was still ending when this one was launched; its claim waits for that end."""
    is_beside: bool = False
    """It was launched while that incarnation went on, and takes over only when that is told to stop."""
    accounted_until: datetime | None = None
    """Node time up to here is already in status.cost."""

    def __post_init__(self) -> None:
        if not self.pods:
            raise ValueError("an incarnation has at least one pod")


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One ended incarnation and the verdict on it. Counters derive from these facts."""

    time: datetime
    incarnation: int
    capacity_type: CapacityType
    cause: Cause
    evidence: str
    row: str
    """Row of the classification table that decided."""
    pod_uid: str
    charged: bool
    """Counts towards failurePolicy.backoffLimit."""
    durable_step: int | None = None
    """Durable step when the incarnation ended, for progress between failures."""
    lost_steps: int | None = None
    lost_seconds: float | None = None
    exit_code: int | None = None
    ran: bool = True
    """Its program had started."""
    node_name: str | None = None
    node_uid: str | None = None
    """Kept so that a verdict can be upgraded when the node turns out to be gone."""
    node_was_well: bool = False
    """The node said only later that it would go, so the failure was not its doing. Kept because the next
    process finds nothing of it when the node is gone."""
    zone: str | None = None
    finished_time: datetime | None = None
    """When its container ended, where that was heard late and its node said nothing even then; what it says
    since explains nothing."""


@dataclass(frozen=True, kw_only=True)
class RestartCounts:
    interruptions: int = 0
    failures: int = 0
    out_of_memory: int = 0
    infrastructure: int = 0
    requested: int = 0


class AvoidKind(StrEnum):
    NODE = "Node"
    ZONE = "Zone"


@dataclass(frozen=True, kw_only=True)
class Avoidance:
    """Where the next pods would rather not go; a preference, never a prohibition."""

    kind: AvoidKind
    value: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class CapacityStatus:
    type: CapacityType
    since: datetime
    reason: Reason
    message: str = ""
    next_decision_time: datetime | None = None
    checkpoint_wish_time: datetime | None = None
    """When the policy last asked for a checkpoint, since much would be lost without one."""


@dataclass(frozen=True, kw_only=True)
class LaunchPhases:
    """What the seconds of launches went into; sums over `count` of them."""

    count: int = 0
    scheduling_seconds: float = 0.0
    """Until the pod had a node."""
    starting_seconds: float = 0.0
    """From then until its container ran: volumes, image pull."""
    restoring_seconds: float = 0.0
    """From then until the first step that its trainer reported: imports, restore."""


@dataclass(frozen=True, kw_only=True)
class Overheads:
    """How long launches took, from the intent to useful work, and what in them did."""

    spot: Launches = NO_LAUNCHES
    on_demand: Launches = NO_LAUNCHES
    spot_phases: LaunchPhases = LaunchPhases()
    on_demand_phases: LaunchPhases = LaunchPhases()


@dataclass(frozen=True, kw_only=True)
class ZoneInterruptions:
    """How often spot nodes of this job were taken away in one zone."""

    zone: str
    """Empty: not known."""
    interruptions: int = 0
    node_seconds: float = 0.0
    """For which pods were on spot nodes there."""
    node_hours_per_interruption: float | None = None
    """Expected, by what all jobs of the pool have seen in the zone and the chart's prior."""

    def __post_init__(self) -> None:
        if self.interruptions < 0 or self.node_seconds < 0:
            raise ValueError("counts and times are not negative")


@dataclass(frozen=True, kw_only=True)
class InterruptionRate:
    """How often spot nodes of the pool are taken away."""

    node_hours_per_interruption: float | None = None
    """Expected, by what all jobs of the pool have seen and the chart's prior; unset: nothing was seen yet."""
    zones: tuple[ZoneInterruptions, ...] = ()
    """What this job itself has seen."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    percentage: int | None = None
    step: int | None = None
    step_time: datetime | None = None
    """When `step` was first told."""
    total_steps: int | None = None
    durable_step: int | None = None
    durable_time: datetime | None = None
    incarnation: int | None = None
    """Who reported `step`, if it speaks our extension."""
    launch: int | None = None
    """Who reported `step`, whatever it speaks; a rate is only measured between reports of one launch."""
    steps_per_second: float | None = None
    estimated_completion_time: datetime | None = None
    reported_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointStatus:
    name: str
    step: int
    time: datetime
    location: str = ""
    """Where it is kept, for people and to notice a change; empty: written by a version that did not say."""
    size_bytes: int | None = None
    """This and the following as our trainer measured them; the last save and the last restore."""
    save_seconds: float | None = None
    """From the beginning of the snapshot until it was durable."""
    stall_seconds: float | None = None
    """Training stood still for the snapshot."""
    restore_seconds: float | None = None
    """To find, read and verify the checkpoint that the last incarnation resumed."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    spot_node_seconds: float = 0.0
    on_demand_node_seconds: float = 0.0
    unpriced_spot_node_seconds: float = 0.0
    """Part of the above for which nothing told a price; while there is any, `spent` is not known."""
    unpriced_on_demand_node_seconds: float = 0.0
    accrued: Decimal | None = None
    """What the priced part has cost, to more digits than are shown, so that many small sums do not drift."""
    spent: Decimal | None = None
    """Each second at the price of the node that it was spent on."""
    on_demand_only: Decimal | None = None
    """The same node time at what on-demand costs now."""
    saved: Decimal | None = None
    """By not running all of it on on-demand."""
    projected: Decimal | None = None
    """What the run will have cost at its end, if it goes on as it is now and nothing is interrupted."""
    spot_price: Decimal | None = None
    """Of a node for an hour, as far as is known: by the job, its nodes, or the chart's table."""
    on_demand_price: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class LastFailure:
    pod: str
    container: str
    exit_code: int | None
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    conditions: tuple[Condition, ...] = ()
    start_time: datetime | None = None
    completion_time: datetime | None = None
    deadline: datetime | None = None
    incarnation: int = 0
    """The highest incarnation ever intended; rises on every launch, never falls."""
    claims: bool = False
    """A container of this job has shown that it speaks the store's claim protocol."""
    template_fingerprint: str = ""
    """Of the template that was launched last: another one has shown nothing yet."""
    capacity: CapacityStatus | None = None
    gang: Gang | None = None
    predecessor: Gang | None = None
    """The incarnation before, while it saves its last checkpoint and `gang` is already prepared.

    Not stopped yet: it goes on on on-demand while `gang` asks for spot."""
    next_launch_time: datetime | None = None
    """Back-off: no launch before this time."""
    restarts: RestartCounts = RestartCounts()
    recent_restarts: tuple[Restart, ...] = ()
    """Newest last, at most 50."""
    avoid: tuple[Avoidance, ...] = ()
    progress: Progress = Progress()
    checkpoint: CheckpointStatus | None = None
    cost: Cost = Cost()
    overheads: Overheads = Overheads()
    interruption_rate: InterruptionRate = InterruptionRate()
    notices: Notices = NO_NOTICES
    """On how many interruptions the last checkpoint was made in time."""
    last_failure: LastFailure | None = None
    message: str = ""
    """The one line that `kubectl get` prints."""
