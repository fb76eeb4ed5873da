"""The words that operator and trainer share: environment, outcome, progress, directives.

Both sides import this one module, so that a name, a limit or a code exists once. It
uses the standard library only: the operator's image has neither torch nor boto3.
Invariant: whatever comes from a pod (outcome, progress) is parsed without raising
anything but `ContractError`, and is bounded and cleaned before anybody sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

CONTRACT_VERSION = 1
"""Version of everything in this module; a reader refuses a greater one."""

MAX_OUTCOME_BYTES = 1024
"""The kubelet shares 12 KiB among the containers of a pod and cuts the tail."""

MAX_PROGRESS_BYTES = 64 * 1024
"""A longer progress body is refused before it is parsed."""

MAX_DIRECTIVES_BYTES = 16 * 1024
"""A longer answer is not ours."""

MAX_METRICS = 32
MAX_NAME_CHARS = 128
MAX_VALUE_CHARS = 256
MAX_MESSAGE_CHARS = 1024
MAX_INTEGER = 2**53 - 1
"""What every JSON reader represents exactly."""

TERMINATION_LOG = "/dev/termination-log"
"""Where the kubelet looks for the termination message unless the pod says otherwise."""

STATUS_AUDIENCE = "spottraining.io/status"
"""Audience of the projected token that authenticates progress reports."""


class Env(StrEnum):
    """Names of the environment variables that the operator sets."""

    CONTRACT_VERSION = "SPOT_CONTRACT_VERSION"
    JOB_NAME = "SPOT_JOB_NAME"
    JOB_NAMESPACE = "SPOT_JOB_NAMESPACE"
    JOB_UID = "SPOT_JOB_UID"
    JOB_CREATED = "SPOT_JOB_CREATED"
    POD_NAME = "SPOT_POD_NAME"
    POD_UID = "SPOT_POD_UID"
    INCARNATION = "SPOT_INCARNATION"
    CAPACITY_TYPE = "SPOT_CAPACITY_TYPE"
    RUN_ID = "SPOT_RUN_ID"
    CHECKPOINT_URI = "SPOT_CHECKPOINT_URI"
    CHECKPOINT_INTERVAL_POLICY = "SPOT_CHECKPOINT_INTERVAL_POLICY"
    CHECKPOINT_INTERVAL_SECONDS = "SPOT_CHECKPOINT_INTERVAL_SECONDS"
    CHECKPOINT_KEEP = "SPOT_CHECKPOINT_KEEP"
    CHECKPOINT_IF_EXISTS = "SPOT_CHECKPOINT_IF_EXISTS"
    GRACE_SECONDS = "SPOT_GRACE_SECONDS"
    HANDOVER_SECONDS = "SPOT_HANDOVER_SECONDS"
    DEADLINE = "SPOT_DEADLINE"
    NODES = "SPOT_NODES"
    NODE_RANK = "SPOT_NODE_RANK"
    TEMPLATE_FINGERPRINT = "SPOT_TEMPLATE_FINGERPRINT"
    TERMINATION_LOG = "SPOT_TERMINATION_LOG"

    STATUS_URL = "KUBEFLOW_TRAINER_SERVER_URL"
    STATUS_CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
    STATUS_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"

    PET_NNODES = "PET_NNODES"
    PET_NODE_RANK = "PET_NODE_RANK"
    PET_MASTER_ADDR = "PET_MASTER_ADDR"
    PET_MASTER_PORT = "PET_MASTER_PORT"
    PET_NPROC_PER_NODE = "PET_NPROC_PER_NODE"

    AWS_ENDPOINT_URL_S3 = "AWS_ENDPOINT_URL_S3"
    AWS_REGION = "AWS_REGION"


class Metric(StrEnum):
    """Metrics of a report that the operator reads; all others are for people."""

    CURRENT_STEP = "current_step"
    TOTAL_STEPS = "total_steps"
    """These two as Hugging Face `transformers` names them."""
    STEPS_PER_SECOND = "steps_per_second"
    """Of this process, since it began to step; believed only of clients that speak our extension, as are
    the following."""
    CHECKPOINT_BYTES = "checkpoint_bytes"
    CHECKPOINT_SECONDS = "checkpoint_seconds"
    """Of the newest durable save: from the beginning of its snapshot until it was durable."""
    CHECKPOINT_STALL_SECONDS = "checkpoint_stall_seconds"
    """Of the newest durable save: training stood still."""
    RESTORE_SECONDS = "restore_seconds"
    """To find, read and verify the checkpoint that this process resumed."""


class ExitCode(IntEnum):
    """What the trainer's exit code means where torchrun does not mask it."""

    COMPLETE = 0
    FAILED = 1
    STOPPED = 75
    """EX_TEMPFAIL: stopped on purpose after a checkpoint, start me again."""
    FENCED = 76
    """A greater claim exists; this process must not touch the run any more."""
    CONFIG = 78
    """EX_CONFIG: a restart cannot help."""


class CapacityType(StrEnum):
    """What kind of capacity a pod runs on."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"


class IntervalPolicy(StrEnum):
    """How the time between checkpoints is chosen."""

    FIXED = "Fixed"
    AUTO = "Auto"


class IfExists(StrEnum):
    """What to do with checkpoints that are there before the job's first incarnation."""

    RESUME = "Resume"
    FAIL = "Fail"


class OutcomeKind(StrEnum):
    """How a trainer ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    FENCED = "fenced"
    FAILED = "failed"


class OutcomeReason(StrEnum):
    """Reasons that the trainer library gives; readers accept any CamelCase word."""

    COMPLETED = "Completed"
    ALREADY_COMPLETE = "AlreadyComplete"
    NOTICE = "Notice"
    STOP_REQUESTED = "StopRequested"
    NOTICE_WITHOUT_CHECKPOINT = "NoticeWithoutCheckpoint"
    """Told to stop, and the final checkpoint did not fit or could not be written."""
    SUPERSEDED = "Superseded"
    """A later incarnation of the same job holds a claim."""
    CLAIM_CONFLICT = "ClaimConflict"
    """Another job holds a greater claim on the same store; the message names it."""
    CHECKPOINT_CONFLICT = "CheckpointConflict"
    """The store belongs to another run, or has checkpoints and ifExists is Fail."""
    CHECKPOINTS_DAMAGED = "CheckpointsDamaged"
    """There are checkpoints and not one of them is intact."""
    CHECKPOINT_INCOMPATIBLE = "CheckpointIncompatible"
    """The checkpoint does not fit this program (names or shapes differ)."""
    STORE_UNSUPPORTED = "StoreUnsupported"
    STORE_ACCESS_DENIED = "StoreAccessDenied"
    STORE_UNREACHABLE = "StoreUnreachable"
    NO_SUCH_BUCKET = "NoSuchBucket"
    INVALID_ENVIRONMENT = "InvalidEnvironment"
    UNCAUGHT_EXCEPTION = "UncaughtException"
    EXITED = "Exited"
    """The program called sys.exit() inside the run with a code of its own."""


HOPELESS: Final = frozenset(
    {
        OutcomeReason.CHECKPOINT_CONFLICT,
        OutcomeReason.CHECKPOINT_INCOMPATIBLE,
        OutcomeReason.CHECKPOINTS_DAMAGED,
        OutcomeReason.INVALID_ENVIRONMENT,
        OutcomeReason.NO_SUCH_BUCKET,
        OutcomeReason.STORE_ACCESS_DENIED,
        OutcomeReason.STORE_UNSUPPORTED,
    }
)
"""Reasons of a failure that the same program would meet again: its exit code is CONFIG."""


class ContractError(ValueError):
    """A value that breaks the contract; the message names it and says what is expected."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}\Z")
_CHECKPOINT_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z")


def clean_text(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return text on one line, without control or direction-changing characters, cut to limit."""
    return _CONTROL.sub(" ", text[: 4 * limit]).strip()[:limit]


def format_time(moment: datetime) -> str:
    """Return an aware datetime as RFC 3339 in UTC, with microseconds only where there are any."""
    if moment.tzinfo is None:
        raise ContractError("a time needs a time zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Return the aware UTC datetime of an RFC 3339 text; raises ContractError."""
    if len(text) > 40 or not _TIME.match(text):
        raise ContractError(f"{clean_text(text, 60)!r} is not a time such as 2026-12-01T06:00:00Z")
    try:
        # Python keeps microseconds; some clients send nanoseconds.
        trimmed = re.sub(r"(\.\d{6})\d+", r"\1", text)
        return datetime.fromisoformat(trimmed).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ContractError(f"{text!r} is not a time: {error}") from None


# ----------------------------------------------------------------------------- environment


def _identity(text: str) -> str:
    return text


def _integer(minimum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,15}", text) or int(text) < minimum:
            raise ContractError(f"expected a whole number of at least {minimum}")
        return int(text)

    return read


def _member(kind: type[StrEnum]) -> Callable[[str], Any]:
    def read(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ContractError(f"expected one of {', '.join(kind)}") from None

    return read


def _uri(text: str) -> str:
    if not text.startswith(("file:///", "s3://")):
        raise ContractError("expected file:///path or s3://bucket/prefix")
    return text


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the operator tells a pod; read once, at the edge of the process."""

    contract_version: int = CONTRACT_VERSION
    job_name: str
    job_namespace: str
    job_uid: str
    job_created: datetime
    pod_name: str
    pod_uid: str
    incarnation: int
    """1, 2, 3 ...: one per launch of the gang."""
    capacity_type: CapacityType
    run_id: str
    checkpoint_uri: str | None = None
    """file:///path or s3://bucket/prefix; None: nothing is kept."""
    checkpoint_interval_policy: IntervalPolicy = IntervalPolicy.FIXED
    checkpoint_interval_seconds: int = 300
    checkpoint_keep: int = 3
    """Checkpoints kept; at least 2, since with 1 a damaged newest leaves nothing."""
    checkpoint_if_exists: IfExists = IfExists.RESUME
    grace_seconds: int = 120
    """From SIGTERM to SIGKILL, or to the loss of the machine, whichever is first."""
    handover_seconds: int = 0
    """How long a predecessor may still be finishing its last checkpoint."""
    deadline: datetime | None = None
    nodes: int = 1
    node_rank: int = 0
    template_fingerprint: str = ""
    """Fingerprint of the job's pod template; empty: a final marker always matches."""
    termination_log: str = TERMINATION_LOG
    status_url: str | None = None
    status_ca_cert: str | None = None
    status_token: str | None = None

    @staticmethod
    def is_present(environ: Mapping[str, str]) -> bool:
        """Whether an operator started this process."""
        return Env.CONTRACT_VERSION in environ

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Environment:
        """Read and check the environment; raises ContractError naming the variable and its value.

        An empty value of an optional variable counts as unset.
        """
        version = _read(environ, Env.CONTRACT_VERSION, _integer(1))
        if version > CONTRACT_VERSION:
            raise ContractError(
                f"{Env.CONTRACT_VERSION}={version} is newer than this trainer library, which speaks version "
                f"{CONTRACT_VERSION}: install a newer one in the training image"
            )
        values: dict[str, Any] = {"contract_version": version}
        for name, variable, parse in _REQUIRED:
            values[name] = _read(environ, variable, parse)
        for name, variable, parse in _OPTIONAL:
            if environ.get(variable):
                values[name] = _read(environ, variable, parse)
        result = cls(**values)
        if result.node_rank >= result.nodes:
            raise ContractError(
                f"{Env.NODE_RANK}={result.node_rank} must be less than {Env.NODES}={result.nodes}"
            )
        return result

    def to_environ(self) -> dict[str, str]:
        """The inverse of from_environ: only what is set, as strings."""
        result = {str(Env.CONTRACT_VERSION): str(self.contract_version)}
        for name, variable, _ in _REQUIRED + _OPTIONAL:
            value = getattr(self, name)
            if value is None or (value == "" and (name, variable) in _MAY_BE_EMPTY):
                continue
            result[str(variable)] = format_time(value) if isinstance(value, datetime) else str(value)
        return result


_REQUIRED: tuple[tuple[str, Env, Callable[[str], Any]], ...] = (
    ("job_name", Env.JOB_NAME, _identity),
    ("job_namespace", Env.JOB_NAMESPACE, _identity),
    ("job_uid", Env.JOB_UID, _identity),
    ("job_created", Env.JOB_CREATED, parse_time),
    ("pod_name", Env.POD_NAME, _identity),
    ("pod_uid", Env.POD_UID, _identity),
    ("incarnation", Env.INCARNATION, _integer(1)),
    ("capacity_type", Env.CAPACITY_TYPE, _member(CapacityType)),
    ("run_id", Env.RUN_ID, _identity),
)
_OPTIONAL: tuple[tuple[str, Env, Callable[[str], Any]], ...] = (
    ("checkpoint_uri", Env.CHECKPOINT_URI, _uri),
    ("checkpoint_interval_policy", Env.CHECKPOINT_INTERVAL_POLICY, _member(IntervalPolicy)),
    ("checkpoint_interval_seconds", Env.CHECKPOINT_INTERVAL_SECONDS, _integer(1)),
    ("checkpoint_keep", Env.CHECKPOINT_KEEP, _integer(2)),
    ("checkpoint_if_exists", Env.CHECKPOINT_IF_EXISTS, _member(IfExists)),
    ("grace_seconds", Env.GRACE_SECONDS, _integer(0)),
    ("handover_seconds", Env.HANDOVER_SECONDS, _integer(0)),
    ("deadline", Env.DEADLINE, parse_time),
    ("nodes", Env.NODES, _integer(1)),
    ("node_rank", Env.NODE_RANK, _integer(0)),
    ("template_fingerprint", Env.TEMPLATE_FINGERPRINT, _identity),
    ("termination_log", Env.TERMINATION_LOG, _identity),
    ("status_url", Env.STATUS_URL, _identity),
    ("status_ca_cert", Env.STATUS_CA_CERT, _identity),
    ("status_token", Env.STATUS_TOKEN, _identity),
)
_MAY_BE_EMPTY = {("template_fingerprint", Env.TEMPLATE_FINGERPRINT)}


def _read(environ: Mapping[str, str], variable: Env, parse: Callable[[str], Any]) -> Any:
    text = environ.get(variable, "")
    if not text:
        raise ContractError(f"{variable} is not set")
    try:
        return parse(text)
    except ContractError as error:
        raise ContractError(f"{variable}={clean_text(text, 80)!r}: {error}") from None


# ----------------------------------------------------------------------------- JSON readers


def _load_object(text: str | bytes, limit: int, what: str) -> dict[str, Any]:
    """Parse a bounded JSON object; every way to fail is a ContractError."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > limit:
        raise ContractError(f"{what} is longer than {limit} bytes")
    try:
        # parse_constant: NaN and Infinity are not JSON, and no number of ours.
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{what} is not JSON: {clean_text(str(error), 100)}") from None
    if not isinstance(value, dict):
        raise ContractError(f"{what} is not a JSON object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _get_int(
    source: Mapping[str, Any], key: str, *, minimum: int = 0, maximum: int = MAX_INTEGER
) -> int | None:
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise ContractError(f"{key} must be a whole number from {minimum} to {maximum}")
    return value


def _get_seconds(source: Mapping[str, Any], key: str) -> float:
    value = source.get(key, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_INTEGER:
        raise ContractError(f"{key} must be a number of seconds")
    return float(value)


def _get_text(source: Mapping[str, Any], key: str, limit: int) -> str | None:
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ContractError(f"{key} must be a string")
    return clean_text(value, limit)


def _get_time(source: Mapping[str, Any], key: str) -> datetime | None:
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ContractError(f"{key} must be a string")
    try:
        return parse_time(value)
    except ContractError as error:
        raise ContractError(f"{key}: {error}") from None


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ----------------------------------------------------------------------------- outcome


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """A published checkpoint: the attempt's name in the store and its step."""

    name: str
    step: int


@dataclass(frozen=True, kw_only=True)
class SaveTotals:
    """What the saves of one process came to."""

    count: int = 0
    """Saves that became durable."""
    failed: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    """Until they were durable, summed."""
    stall_seconds: float = 0.0
    """Training stood still, summed."""

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "failed": self.failed,
            "bytes": self.num_bytes,
            "seconds": self.seconds,
            "stallSeconds": self.stall_seconds,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trainer ended, in the words of the termination message."""

    kind: OutcomeKind
    reason: str
    """One CamelCase word, usually an OutcomeReason."""
    incarnation: int
    step: int
    """The step that the process had reached, durable or not."""
    checkpoint: CheckpointRef | None = None
    """The last durable checkpoint of the lineage."""
    saves: SaveTotals | None = None
    message: str = ""

    def __post_init__(self) -> None:
        if not _REASON.match(self.reason):
            raise ContractError(f"reason must be one CamelCase word of at most 64 letters: {self.reason!r}")
        if self.checkpoint is not None and not _CHECKPOINT_NAME.match(self.checkpoint.name):
            raise ContractError("a checkpoint name has 1 to 128 letters, digits, dots, dashes, underscores")

    def to_json(self) -> str:
        """At most MAX_OUTCOME_BYTES of UTF-8; what does not fit is cut from the message's end."""
        message = clean_text(self.message)
        text = self._dump_with(message)
        while len(text.encode()) > MAX_OUTCOME_BYTES:
            excess = len(text.encode()) - MAX_OUTCOME_BYTES
            message = message[: -max(1, excess // 4)]
            text = self._dump_with(message)
        return text

    def _dump_with(self, message: str) -> str:
        checkpoint, saves = self.checkpoint or CheckpointRef(name="", step=0), self.saves
        totals = {} if saves is None else {"saves": saves.as_json()}
        return _dump(
            {
                "version": CONTRACT_VERSION,
                "outcome": str(self.kind),
                "reason": str(self.reason),
                "incarnation": self.incarnation,
                "step": self.step,
                "checkpoint": {"name": checkpoint.name, "step": checkpoint.step},
                **totals,
                "message": message,
            }
        )


def parse_outcome(text: str | bytes | None) -> Outcome | None:
    """Return the outcome in a termination message, or None if it is not exactly one. Never raises."""
    if not text:
        return None
    try:
        return _read_outcome(_load_object(text, 4 * MAX_OUTCOME_BYTES, "the termination message"))
    except (ContractError, UnicodeError):
        return None


def _read_outcome(source: Mapping[str, Any]) -> Outcome | None:
    version = _get_int(source, "version", minimum=1)
    reason, kind = source.get("reason"), source.get("outcome")
    incarnation, step = _get_int(source, "incarnation", minimum=1), _get_int(source, "step")
    if version != CONTRACT_VERSION or incarnation is None or step is None:
        return None
    if not isinstance(reason, str) or kind not in tuple(OutcomeKind):
        return None
    return Outcome(
        kind=OutcomeKind(kind),
        reason=reason,
        incarnation=incarnation,
        step=step,
        checkpoint=_read_checkpoint(source.get("checkpoint")),
        saves=_read_saves(source.get("saves")),
        message=_get_text(source, "message", MAX_MESSAGE_CHARS) or "",
    )


def _read_saves(source: Any) -> SaveTotals | None:
    if source is None:
        return None
    if not isinstance(source, dict):
        raise ContractError("saves must be an object")
    return SaveTotals(
        count=_get_int(source, "count") or 0,
        failed=_get_int(source, "failed") or 0,
        num_bytes=_get_int(source, "bytes") or 0,
        seconds=_get_seconds(source, "seconds"),
        stall_seconds=_get_seconds(source, "stallSeconds"),
    )


def _read_checkpoint(source: Any) -> CheckpointRef | None:
    if source is None:
        return None
    if not isinstance(source, dict):
        raise ContractError("checkpoint must be an object")
    name, step = _get_text(source, "name", MAX_NAME_CHARS), _get_int(source, "step")
    if not name:
        return None
    if step is None:
        raise ContractError("checkpoint.step is missing")
    return CheckpointRef(name=name, step=step)


# ----------------------------------------------------------------------------- progress


@dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """One report of a pod. Everything is optional: other clients send trainerStatus only."""

    progress_percentage: int | None = None
    """0 to 100; never proof of completion."""
    estimated_remaining_seconds: int | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    last_updated_time: datetime | None = None
    """By the pod's clock."""
    step: int | None = None
    total_steps: int | None = None
    durable_step: int | None = None
    durable_time: datetime | None = None
    checkpoint_name: str | None = None
    incarnation: int | None = None

    def to_json(self) -> str:
        """The body of the POST; what is None is left out."""
        status: dict[str, Any] = {
            "progressPercentage": self.progress_percentage,
            "estimatedRemainingSeconds": self.estimated_remaining_seconds,
            "lastUpdatedTime": self.last_updated_time and format_time(self.last_updated_time),
        }
        body: dict[str, Any] = {
            "step": self.step,
            "totalSteps": self.total_steps,
            "durableStep": self.durable_step,
            "durableTime": self.durable_time and format_time(self.durable_time),
            "checkpointName": self.checkpoint_name,
            "incarnation": self.incarnation,
        }
        trainer_status = {key: value for key, value in status.items() if value is not None}
        if self.metrics:
            trainer_status["metrics"] = [
                {"name": clean_text(name, MAX_NAME_CHARS), "value": clean_text(value, MAX_VALUE_CHARS)}
                for name, value in list(self.metrics.items())[:MAX_METRICS]
            ]
        return _dump({"trainerStatus": trainer_status} | {k: v for k, v in body.items() if v is not None})


def parse_progress(text: str | bytes) -> ProgressReport:
    """Parse the body of a progress report; raises ContractError (the server answers 400)."""
    source = _load_object(text, MAX_PROGRESS_BYTES, "the report")
    status = source.get("trainerStatus", {})
    if not isinstance(status, dict):
        raise ContractError("trainerStatus must be an object")
    return ProgressReport(
        progress_percentage=_get_int(status, "progressPercentage", maximum=100),
        estimated_remaining_seconds=_get_int(status, "estimatedRemainingSeconds"),
        metrics=_read_metrics(status.get("metrics")),
        last_updated_time=_get_time(status, "lastUpdatedTime"),
        step=_get_int(source, "step"),
        total_steps=_get_int(source, "totalSteps"),
        durable_step=_get_int(source, "durableStep"),
        durable_time=_get_time(source, "durableTime"),
        checkpoint_name=_get_text(source, "checkpointName", MAX_NAME_CHARS),
        incarnation=_get_int(source, "incarnation", minimum=1),
    )


def _read_metrics(source: Any) -> dict[str, str]:
    if source is None:
        return {}
    if not isinstance(source, list):
        raise ContractError("metrics must be a list of {name, value}")
    metrics: dict[str, str] = {}
    for entry in source[:MAX_METRICS]:
        if not isinstance(entry, dict):
            raise ContractError("metrics must be a list of {name, value}")
        name, value = _get_text(entry, "name", MAX_NAME_CHARS), _get_text(entry, "value", MAX_VALUE_CHARS)
        if name and value is not None:
            metrics[name] = value
    return metrics


@dataclass(frozen=True, kw_only=True)
class Directives:
    """What the operator answers to a report."""

    checkpoint_now: str | None = None
    """An id: take one checkpoint for it, however often it is repeated."""
    checkpoint_interval_seconds: int | None = None
    mean_seconds_between_losses: int | None = None
    """How long the job runs on average until work is lost; what an automatic interval rests on."""
    deadline: datetime | None = None
    stop: str | None = None
    """Stop after a checkpoint, as on a notice; the text is the reason, for people."""
    predecessor_dead: int | None = None
    """The incarnation up to which all pods are surely dead."""

    def to_json(self) -> str:
        """The body of the answer; what is None is left out."""
        values: dict[str, Any] = {
            "checkpointNow": self.checkpoint_now,
            "checkpointIntervalSeconds": self.checkpoint_interval_seconds,
            "meanSecondsBetweenLosses": self.mean_seconds_between_losses,
            "deadline": self.deadline and format_time(self.deadline),
            "stop": self.stop,
            "predecessorDead": self.predecessor_dead,
        }
        return _dump({"directives": {key: value for key, value in values.items() if value is not None}})


def parse_directives(text: str | bytes) -> Directives:
    """Parse the answer to a report; no `directives` in it means none. Raises ContractError."""
    source = _load_object(text, MAX_DIRECTIVES_BYTES, "the answer").get("directives")
    if source is None:
        return Directives()
    if not isinstance(source, dict):
        raise ContractError("directives must be an object")
    return Directives(
        checkpoint_now=_get_text(source, "checkpointNow", MAX_NAME_CHARS),
        checkpoint_interval_seconds=_get_int(source, "checkpointIntervalSeconds", minimum=1),
        mean_seconds_between_losses=_get_int(source, "meanSecondsBetweenLosses", minimum=1),
        deadline=_get_time(source, "deadline"),
        stop=_get_text(source, "stop", MAX_VALUE_CHARS),
        predecessor_dead=_get_int(source, "predecessorDead"),
    )
