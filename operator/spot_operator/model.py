"""The values that observe, decide and act hand to one another.

observe makes an `Observation`, decide turns it and a time into a `Decision`, reconcile
persists the decision's status and act executes its actions. Everything here is frozen;
what could not be read is `UNKNOWN`, which is not the same as absent (`None`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Final, Literal

from spot_operator.names import CapacityType, Cause, ConditionType, Phase, Reason, StopReason
from spot_operator.policy import Interruptions, Launches, Notices
from spot_operator.prices import PriceTable
from spot_trainer.contract import IntervalPolicy

Json = Mapping[str, Any]

MAX_GRACE_SECONDS: Final = 10**8
"""Three years: a grace period that is meant to have no end."""
NO_LAUNCHES: Final = Launches()
NO_NOTICES: Final = Notices()


class Unknown(Enum):
    """The type of `UNKNOWN`: the API server could not tell. It forbids destructive action."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


# --- what the user wants: effective values, defaults applied, references resolved -----------


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Nodes of one capacity type and how to get a pod onto them."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_affinity_terms: tuple[Json, ...] = ()
    """nodeSelectorTerms, ORed by Kubernetes; merged with the template's own required terms."""
    tolerations: tuple[Json, ...] = ()
    price_per_node_hour: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class S3Location:
    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    credentials_secret: str = ""


@dataclass(frozen=True, kw_only=True)
class VolumeLocation:
    claim_name: str
    sub_path: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    location: S3Location | VolumeLocation
    run_id: str
    if_exists: Literal["Resume", "Fail"] = "Resume"
    interval_policy: IntervalPolicy = IntervalPolicy.FIXED
    interval_seconds: int = 300
    """The interval; the longest one if the policy is Auto."""
    keep_last: int = 3


class FallbackPolicy(StrEnum):
    AUTO = "Auto"
    RULES = "Rules"
    SPOT_ONLY = "SpotOnly"
    ON_DEMAND_ONLY = "OnDemandOnly"


class ReturnToSpot(StrEnum):
    AUTO = "Auto"
    NEVER = "Never"


@dataclass(frozen=True, kw_only=True)
class FallbackSpec:
    """When to leave spot capacity. Rules: the first that fires wins, and there is no way back."""

    policy: FallbackPolicy = FallbackPolicy.RULES
    interruptions_count: int | None = None
    interruptions_window_seconds: int = 3600
    before_deadline_seconds: int | None = None
    after_pending_seconds: int | None = None
    return_to_spot: ReturnToSpot = ReturnToSpot.NEVER


class DeadlineAction(StrEnum):
    CONTINUE = "Continue"
    SUSPEND = "Suspend"
    FAIL = "Fail"


@dataclass(frozen=True, kw_only=True)
class DeadlineSpec:
    finish_by: datetime
    """Absolute: spec.deadline.finishBy, or creation time + secondsAfterCreation."""
    expected_duration_seconds: int | None = None
    action: DeadlineAction = DeadlineAction.CONTINUE


class RuleAction(StrEnum):
    """The words of the Job API's podFailurePolicy."""

    IGNORE = "Ignore"
    COUNT = "Count"
    FAIL_JOB = "FailJob"


@dataclass(frozen=True, kw_only=True)
class ConditionPattern:
    type: str
    status: str = "True"


@dataclass(frozen=True, kw_only=True)
class FailureRule:
    """Matches exit codes of one container, or any of some pod conditions; never both."""

    action: RuleAction
    container: str = ""
    """Empty: the trainer container."""
    exit_codes: frozenset[int] = frozenset()
    matches_others: bool = False
    """The exit code must not be among `exit_codes`."""
    conditions: tuple[ConditionPattern, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FailurePolicy:
    backoff_limit: int = 6
    window_seconds: int = 3600
    out_of_memory_limit: int = 2
    rules: tuple[FailureRule, ...] = ()
    """The first that matches decides."""


class PodRetention(StrEnum):
    ALL = "All"
    LAST_FAILED = "LastFailed"
    NONE = "None"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    suspend: bool
    trainer_container: str
    """Name of the container whose end is the pod's end."""
    template: Json
    """spec.template as the user wrote it: {metadata, spec}."""
    template_fingerprint: str
    """Hex digest of what makes two jobs the same training run (template, numNodes)."""
    grace_seconds: int
    """terminationGracePeriodSeconds of the pod."""
    spot_notice_seconds: int
    """What a notice on spot leaves (capacity.spot.noticeSeconds, else by preset)."""
    spot: Pool
    on_demand: Pool
    checkpoint: CheckpointSpec
    fallback: FallbackSpec = FallbackSpec()
    deadline: DeadlineSpec | None = None
    failure_policy: FailurePolicy = FailurePolicy()
    pod_retention: PodRetention = PodRetention.LAST_FAILED


@dataclass(frozen=True, kw_only=True)
class InvalidSpec:
    """A spec that must not be acted on: which field, what is wrong, what to do."""

    field: str
    why: str


# --- what the operator remembers: status ----------------------------------------------------


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
    """When the pod's node was last seen out of reach; by the verdict it may be Ready again."""


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


# --- what the operator sees -----------------------------------------------------------------


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
    known_overheads: Overheads = Overheads()
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


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What the platform team sets for every job (chart values)."""

    spot_unreachable_toleration_seconds: int = 60
    on_demand_unreachable_toleration_seconds: int = 300
    protect_from_voluntary_disruption: bool = True
    """Pods carry karpenter.sh/do-not-disrupt and safe-to-evict "false"."""
    plain_take_over_seconds: int = 120
    """How long a node object must be absent before a plain container's pod counts as dead."""
    hand_over: bool = True
    """The next pod is created while the last one still saves, where nothing forbids it."""
    complete_hold_seconds: int = 10
    settle_seconds: int = 90
    """How long after a failure the loss of its node still takes the blame; a job does not fail sooner."""
    backoff_base_seconds: int = 10
    backoff_max_seconds: int = 300
    launch_seconds: int = 180
    """How long a launch takes until useful work, as long as none was seen; a pod that waits longer for a spot
    node waits for capacity."""
    return_pause_seconds: int = 900
    """How long a job on on-demand leaves spot alone after an end there; as long as its node is avoided."""
    on_demand_reserve_seconds: int = 120
    """Default reserve before the deadline when the job names none: provision, pull, restore."""
    prices: PriceTable = field(default_factory=dict)
    """What nodes cost where neither the job nor the node says it: JSON, for each instance type an object
    with spot, onDemand or both."""
    interruption_prior_count: int = 1
    """How often spot nodes are taken away, before anything was seen: so many interruptions ..."""
    interruption_prior_node_hours: int = 2
    """... in so many node-hours. They weigh as much as if they had been seen."""


# --- what is to be done ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreatePod:
    """Create by deterministic name; AlreadyExists is ours only if the owner's UID is ours."""

    name: str
    manifest: Json


@dataclass(frozen=True, kw_only=True)
class DeletePod:
    """Delete gracefully with a UID precondition; not found is success."""

    name: str
    uid: str
    why: str


Action = CreatePod | DeletePod


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A Kubernetes Event on the job, emitted only after the status write succeeded."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    status: JobStatus
    actions: tuple[Action, ...] = ()
    events: tuple[JobEvent, ...] = ()
    next_look: timedelta | None = None
    """Look again after this long even if nothing is heard; None: only when woken."""
