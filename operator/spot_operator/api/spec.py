"""The whole shape of `spec`, from which the CRD is generated.

Invariant: a field or an enum value that stands here but is not acted on yet is refused by a rule
in `rules`, so that nothing is ever accepted and ignored. There are no schema defaults: what an
unset field means is said in its description and applied by `effective`, and nothing is written
back to spec, where GitOps tools would see drift.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from spot_operator.wire import camel

Json = Mapping[str, Any]

POD_TEMPLATE_MARK: Final = "x-pod-template"
"""Marks a field whose schema is that of a part of Kubernetes' own pod template."""

_TEN_YEARS: Final = 315_360_000
_NODE_SELECTOR_TERMS: Final = (
    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
)


def _from_pod_template(path: str) -> Any:
    return Field(default=None, json_schema_extra={POD_TEMPLATE_MARK: path})


Seconds = Annotated[StrictInt, Field(ge=1, le=_TEN_YEARS)]
# Failures are counted among the last 50 restarts that status remembers; a greater limit is never passed.
FailureLimit = Annotated[StrictInt, Field(ge=0, le=49)]
Price = Annotated[str, Field(max_length=19)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
NodeSelector = Annotated[dict[str, str], Field(max_length=64)]


class Shape(BaseModel):
    """Fields are named as in the API; what the schema does not know is ignored, as if pruned."""

    model_config = ConfigDict(
        alias_generator=camel,
        validate_by_alias=True,
        validate_by_name=False,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class EnvVar(Shape):
    name: str


class VolumeMount(Shape):
    name: str
    mount_path: str


class Container(Shape):
    name: str
    env: tuple[EnvVar, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()


class Volume(Shape):
    name: str


class PodSpec(Shape):
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str | None = None
    node_name: str | None = None
    termination_grace_period_seconds: StrictInt | None = None


class PodTemplate(Shape):
    """Only what the rules look at; the API server knows the rest from Kubernetes' own schema."""

    spec: PodSpec


class LocalObjectReference(Shape):
    name: ObjectName
    """Name of an object in the namespace of the job."""


class S3(Shape):
    bucket: Annotated[str, Field(max_length=63)]
    """Bucket that holds the checkpoints; it must exist."""
    prefix: Annotated[str, Field(max_length=512)] | None = None
    """Key prefix without slashes at its ends. Unset: the runID. Empty: the root of the bucket."""
    endpoint: Annotated[str, Field(max_length=1024)] | None = None
    """URL of an S3-compatible service. Unset: AWS."""
    region: Annotated[str, Field(max_length=64)] | None = None
    """Region of the bucket. Unset: what the container's own AWS configuration says."""
    credentials_secret_ref: LocalObjectReference | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, given to the container as
    environment. Unset: the pod's ServiceAccount gives access."""


class PersistentVolumeClaim(Shape):
    claim_name: ObjectName
    """Claim that holds the checkpoints, mounted at /checkpoints; ReadWriteMany where nodes
    of several pools must reach it."""
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    """Relative directory inside the volume."""


class Interval(Shape):
    policy: Literal["Auto", "Fixed"] | None = None
    """Fixed: every `seconds`. Auto: as often as pays, by what a save costs and how often work is
    lost. Unset: Fixed."""
    seconds: Seconds | None = None
    """Fixed: seconds between checkpoints. Unset: 300."""
    max_seconds: Seconds | None = None
    """Auto: the longest time between checkpoints. Unset: 600."""


class Checkpoint(Shape):
    run_id: Annotated[str, Field(max_length=253)] | None = None
    """Identity of the run, written to the store and checked. Immutable. Unset: <namespace>/<name>."""
    if_exists: Literal["Resume", "Fail"] | None = None
    """What to do when the store already holds this run. Unset: Resume."""
    s3: S3 | None = None
    """Checkpoints go to S3. Exactly one of s3 and persistentVolumeClaim."""
    persistent_volume_claim: PersistentVolumeClaim | None = None
    """Checkpoints go to a volume. Exactly one of s3 and persistentVolumeClaim."""
    interval: Interval | None = None
    """How often to checkpoint; a notice of interruption triggers one besides."""
    keep_last: Annotated[StrictInt, Field(le=1000)] | None = None
    """How many verified checkpoints to keep, at least 2. Unset: 3."""


class SpotPool(Shape):
    node_selector: NodeSelector | None = None
    """Labels that nodes must have besides what the preset requires."""
    node_affinity_terms: Annotated[tuple[Json, ...] | None, _from_pod_template(_NODE_SELECTOR_TERMS)] = None
    """Node selector terms (ORed) in place of the preset's."""
    tolerations: Annotated[tuple[Json, ...] | None, _from_pod_template("spec.tolerations")] = None
    """Tolerations besides the preset's."""
    notice_seconds: Annotated[StrictInt, Field(ge=1, le=3600)] | None = None
    """Seconds that a reclaim notice leaves. Unset: Karpenter and EKS 100, GKE 13, AKS 10, Labels 25."""
    price_per_node_hour: Price | None = None
    """Price of one node for one hour, as a decimal string. Unset: as the node's annotation
    spottraining.io/price-per-node-hour or the chart's table says."""


class OnDemandPool(Shape):
    node_selector: NodeSelector | None = None
    """Labels that nodes must have besides what the preset requires."""
    node_affinity_terms: Annotated[tuple[Json, ...] | None, _from_pod_template(_NODE_SELECTOR_TERMS)] = None
    """Node selector terms (ORed) in place of the preset's."""
    tolerations: Annotated[tuple[Json, ...] | None, _from_pod_template("spec.tolerations")] = None
    """Tolerations besides the preset's."""
    price_per_node_hour: Price | None = None
    """Price of one node for one hour, as a decimal string. Unset: as the node's annotation
    spottraining.io/price-per-node-hour or the chart's table says."""


Preset = Literal["Karpenter", "EKS", "GKE", "AKS", "Labels"]


class Capacity(Shape):
    preset: Preset
    """How spot and on-demand nodes are told apart. Labels: by the selectors given here alone."""
    spot: SpotPool | None = None
    """Spot nodes: additions to the preset."""
    on_demand: OnDemandPool | None = None
    """On-demand nodes: additions to the preset."""


class AfterInterruptions(Shape):
    count: Annotated[StrictInt, Field(ge=1, le=50)]
    """Interruptions within the window after which the job leaves spot."""
    window_seconds: Seconds | None = None
    """Length of the window. Unset: 3600."""


class Fallback(Shape):
    policy: Literal["Auto", "Rules", "SpotOnly", "OnDemandOnly"] | None = None
    """Auto: the cheapest way that keeps the deadline, from durable progress and measured launches.
    Rules: the first rule below that fires moves the job to on-demand. Unset: Auto if there is a deadline
    and no rule, else Rules."""
    after_interruptions: AfterInterruptions | None = None
    """Leave spot after this many interruptions."""
    before_deadline_seconds: Seconds | None = None
    """Leave spot when deadline less remaining work comes nearer than this."""
    after_pending_seconds: Seconds | None = None
    """Leave spot when a pod waited this long for a spot node."""
    return_to_spot: Literal["Auto", "Never"] | None = None
    """Auto: back from on-demand to spot when the time in hand pays for it. Unset: Auto with policy Auto,
    else Never."""


class Deadline(Shape):
    finish_by: AwareDatetime | None = None
    """Absolute time. Exactly one of finishBy and secondsAfterCreation; suspension does not move it."""
    seconds_after_creation: Seconds | None = None
    """Time counted from the creation of the job."""
    expected_duration_seconds: Seconds | None = None
    """How long the run takes uninterrupted; used until progress was measured."""
    action: Literal["Continue", "Suspend", "Fail"] | None = None
    """What to do when the deadline is missed. Unset: Continue."""


class OnExitCodes(Shape):
    container_name: Annotated[str, Field(max_length=63)] | None = None
    """Container whose exit code is meant. Unset: the trainer container."""
    operator: Literal["In", "NotIn"]
    """Whether the exit code must be among the values or not."""
    values: Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=255)], ...], Field(max_length=255)]
    """Exit codes."""


class OnPodCondition(Shape):
    type: Annotated[str, Field(max_length=316)]
    """Type of the pod condition."""
    status: Literal["True", "False", "Unknown"] | None = None
    """Status of the pod condition. Unset: True."""


class FailureRule(Shape):
    action: Literal["Ignore", "Count", "FailJob"]
    """Ignore: run again, at no charge. Count: a failure that is charged to backoffLimit. FailJob: the
    job has failed."""
    on_exit_codes: OnExitCodes | None = None
    """Matches exit codes with which the program ended by itself, not because it was told to stop.
    Exactly one of onExitCodes and onPodConditions."""
    on_pod_conditions: Annotated[tuple[OnPodCondition, ...], Field(max_length=20)] | None = None
    """Matches if the pod has any of these conditions."""


class FailurePolicy(Shape):
    backoff_limit: FailureLimit | None = None
    """Failures within the window after which the job fails. Unset: 6."""
    window_seconds: Seconds | None = None
    """Length of the window in which failures count. Unset: 3600."""
    out_of_memory_limit: FailureLimit | None = None
    """Times the program may run out of memory before the job fails. Unset: 2."""
    rules: Annotated[tuple[FailureRule, ...], Field(max_length=20)] | None = None
    """What certain ends of a pod mean; the first rule that matches decides. What none matches is judged by
    what is known of the pod and its node."""


class Spec(Shape):
    suspend: StrictBool | None = None
    """True stops the run after a checkpoint and holds it. Unset: false."""
    managed_by: Annotated[str, Field(max_length=63)] | None = None
    """Controller that runs the job; ours leaves the job alone when another is named.
    Immutable. Unset: spottraining.io/controller."""
    num_nodes: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    """Pods of the run, one per node. Unset: 1. More than 1 is not supported yet."""
    num_proc_per_node: (
        Annotated[StrictInt | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})] | None
    ) = None
    """Processes per node. Unset: 1. Anything else is not supported yet."""
    trainer_container: Annotated[str, Field(max_length=63)] | None = None
    """Container whose end is the pod's end. Unset: the first. Changes only while suspended."""
    template: Annotated[PodTemplate, Field(json_schema_extra={POD_TEMPLATE_MARK: ""})]
    """The pod to run, as in a Job. Changes only while suspended."""
    checkpoint: Checkpoint
    """Where checkpoints are kept, and how often they are made."""
    capacity: Capacity
    """How to reach spot and on-demand nodes."""
    fallback: Fallback | None = None
    """When to leave spot capacity for on-demand."""
    deadline: Deadline | None = None
    """When the run must be done."""
    failure_policy: FailurePolicy | None = None
    """How many failures of the program are borne; interruptions never count."""
    pod_retention: Literal["All", "LastFailed", "None"] | None = None
    """Which ended pods are kept for inspection. Unset: LastFailed."""
    ttl_seconds_after_finished: Annotated[StrictInt, Field(ge=0, le=_TEN_YEARS)] | None = None
    """Seconds after its end at which the job is deleted. Unset: never. Not supported yet."""
