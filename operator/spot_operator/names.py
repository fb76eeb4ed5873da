"""Every label, annotation, condition, reason and cause that the operator reads or writes, and a job's key.

Invariant: no bare string of these kinds stands anywhere else in the package, so that a
rename is one line and a typo is a type error.
"""

from enum import StrEnum
from typing import Final

GROUP: Final = "spottraining.io"
VERSION: Final = "v1alpha1"
PLURAL: Final = "spottrainingjobs"
KIND: Final = "SpotTrainingJob"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CONTROLLER_NAME: Final = f"{GROUP}/controller"

LABEL_JOB_NAME: Final = f"{GROUP}/job-name"
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_RANK: Final = f"{GROUP}/rank"
LABEL_CAPACITY_TYPE: Final = f"{GROUP}/capacity-type"
LABEL_TRAINER_CONTAINER: Final = f"{GROUP}/trainer-container"
LABEL_LEADER: Final = f"{GROUP}/leader"

LABEL_HOSTNAME: Final = "kubernetes.io/hostname"
LABEL_ZONE: Final = "topology.kubernetes.io/zone"
LABEL_INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
LABEL_KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"

ANNOTATION_CONTRACT_VERSION: Final = f"{GROUP}/contract-version"
ANNOTATION_STATUS_CA: Final = f"{GROUP}/status-ca"
ANNOTATION_CHECKPOINT_REQUESTED_AT: Final = f"{GROUP}/checkpoint-requested-at"
ANNOTATION_PRICE_PER_NODE_HOUR: Final = f"{GROUP}/price-per-node-hour"
ANNOTATION_KARPENTER_DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
ANNOTATION_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
ANNOTATION_SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"

JobKey = tuple[str, str]
"""Namespace and name of a job."""

STATUS_TOKEN_AUDIENCE: Final = f"{GROUP}/status"
STATUS_PORT: Final = 8443

TAINT_OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
TAINT_CLOUD_SHUTDOWN: Final = "node.cloudprovider.kubernetes.io/shutdown"
TAINT_UNREACHABLE: Final = "node.kubernetes.io/unreachable"
TAINT_NOT_READY: Final = "node.kubernetes.io/not-ready"
TAINT_AUTOSCALER_DELETION: Final = "ToBeDeletedByClusterAutoscaler"


class CapacityType(StrEnum):
    """Where a gang runs; the value of the capacity-type label and of SPOT_CAPACITY_TYPE."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"


class ConditionType(StrEnum):
    """Conditions of a job, with the Job API's own words where it has one."""

    ACCEPTED = "Accepted"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    PODS_READY = "PodsReady"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    CHECKPOINT_READY = "CheckpointReady"
    DEADLINE_AT_RISK = "DeadlineAtRisk"
    STALLED = "Stalled"
    PROGRESS_STALE = "ProgressStale"


class Reason(StrEnum):
    """Reasons of conditions, of status.capacity and of events."""

    ACCEPTED = "Accepted"
    ADOPTED = "Adopted"
    ALL_PODS_READY = "AllPodsReady"
    AFTER_INTERRUPTIONS = "AfterInterruptions"
    AFTER_PENDING = "AfterPending"
    BACKOFF = "Backoff"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    CHECKPOINT_PUBLISHED = "CheckpointPublished"
    CLAIM_CONFLICT = "ClaimConflict"
    COMPLETED = "Completed"
    CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DEADLINE_INFEASIBLE = "DeadlineInfeasible"
    DEADLINE_FEASIBLE = "DeadlineFeasible"
    DEADLINE_NEAR = "DeadlineNear"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    INVALID_COMMAND = "InvalidCommand"
    INVALID_PRICE = "InvalidPrice"
    INVALID_SPEC = "InvalidSpec"
    LAUNCHING = "Launching"
    MISSING_OBJECT = "MissingObject"
    NO_CHECKPOINT_STORE = "NoCheckpointStore"
    NO_CHECKPOINT_YET = "NoCheckpointYet"
    NO_SUCH_BUCKET = "NoSuchBucket"
    ON_DEMAND_ONLY = "OnDemandOnly"
    NEVER_STARTED = "NeverStarted"
    NO_PROGRESS = "NoProgress"
    NO_REPORTS = "NoReports"
    NOT_RUNNING = "NotRunning"
    OUT_OF_MEMORY = "OutOfMemory"
    POD_CREATION_REFUSED = "PodCreationRefused"
    POD_CREATION_UNANSWERED = "PodCreationUnanswered"
    POD_DELETION_REFUSED = "PodDeletionRefused"
    POD_FAILURE_POLICY = "PodFailurePolicy"
    POD_DISRUPTED = "PodDisrupted"
    POD_LOST = "PodLost"
    POD_STARTING = "PodStarting"
    POD_UNMARKED = "PodUnmarked"
    POD_UNSEEN = "PodUnseen"
    REPORTING = "Reporting"
    RESUMED = "Resumed"
    RUNNING = "Running"
    SCHEDULED = "Scheduled"
    SCHEDULING_GATED = "SchedulingGated"
    SETTLING = "Settling"
    SPOT_FIRST = "SpotFirst"
    SPOT_NOT_CHEAPER = "SpotNotCheaper"
    SPOT_ONLY = "SpotOnly"
    NODE_HINT = "NodeHint"
    STATUS_REFUSED = "StatusRefused"
    STATUS_UNREADABLE = "StatusUnreadable"
    STOP_SIGNAL = "StopSignal"
    STOPPING = "Stopping"
    STORAGE_CHANGED = "StorageChanged"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    TERMINATION_OVERDUE = "TerminationOverdue"
    TRAINER_REFUSED = "TrainerRefused"
    WAITING_FOR_SPOT = "WaitingForSpot"
    WORK_UNKNOWN = "WorkUnknown"
    UNSCHEDULABLE = "Unschedulable"
    WAITING_FOR_OLD_POD = "WaitingForOldPod"


class Cause(StrEnum):
    """Why an incarnation ended. One verdict per incarnation, kept in status.recentRestarts."""

    INTERRUPTION = "Interruption"
    NODE_LOST = "NodeLost"
    SCHEDULER_PREEMPTION = "SchedulerPreemption"
    VOLUNTARY_EVICTION = "VoluntaryEviction"
    NODE_PRESSURE = "NodePressure"
    INFRASTRUCTURE = "Infrastructure"
    OUT_OF_MEMORY = "OutOfMemory"
    FAILURE = "Failure"
    FENCED = "Fenced"
    MISSING_OBJECT = "MissingObject"
    REQUESTED = "Requested"
    CAPACITY_CHANGE = "CapacityChange"


class Phase(StrEnum):
    """One word for people, derived from conditions and the gang; nothing decides on it."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    WAITING = "Waiting"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class StopReason(StrEnum):
    """Why the operator itself stops a gang; written to status before the pod is deleted."""

    NODE_SIGNAL = "NodeSignal"
    SUSPENDED = "Suspended"
    CAPACITY_CHANGE = "CapacityChange"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INVALID_SPEC = "InvalidSpec"
    TERMINATED = "Terminated"
    NEVER_STARTED = "NeverStarted"
