"""What is to be done."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from spot_operator.model.spec import Json
from spot_operator.model.status import JobStatus


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
