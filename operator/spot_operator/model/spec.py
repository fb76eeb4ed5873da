"""What the user wants, with defaults applied and references resolved, and what the platform team sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Literal

from spot_operator.prices import PriceTable
from spot_trainer.contract import IntervalPolicy

Json = Mapping[str, Any]

MAX_GRACE_SECONDS: Final = 10**8
"""Three years: a grace period that is meant to have no end."""


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
