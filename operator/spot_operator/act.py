"""Do what was decided: create pods by name, delete pods by UID, write Events.

Every action may be repeated: a name that exists is ours only if its controller is our job,
a delete names the UID it means, and not found is success. Invariant: one failed action
never loses another; failures are collected and returned, and their effect is observed by
the next look.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from spot_operator import metrics
from spot_operator.kube import (
    EVENTS,
    PODS,
    AlreadyExists,
    Conflict,
    Kube,
    KubeError,
    NotFound,
    Refused,
    Unreachable,
)
from spot_operator.logs import Log
from spot_operator.model import Action, CreatePod, DeletePod, JobEvent, PodRefusal
from spot_operator.names import API_VERSION, CONTROLLER_NAME, KIND
from spot_operator.views import controller_of
from spot_operator.wire import format_time
from spot_trainer.contract import clean_text

Json = Mapping[str, Any]

_MAX_EVENT_MESSAGE_CHARS: Final = 1024

_log = Log(__name__)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What came of the actions of one decision."""

    created: tuple[str, ...] = ()
    """Names of pods that did not exist before."""
    uids: Mapping[str, str] = field(default_factory=dict)
    """UIDs by name of the pods that were to be created and exist."""
    is_unsure: bool = False
    """A create got no answer: whether it was done is not known."""
    deleted: tuple[DeletePod, ...] = ()
    """Deletes that the API server took, whether or not the pod was still there."""
    absent: frozenset[str] = frozenset()
    """UIDs of those that were not there."""
    refusal: PodRefusal | None = None
    """The first refusal to create a pod, for the next decision to show."""
    errors: tuple[KubeError, ...] = ()
    """What should be tried again."""


class Actor:
    """Executes actions for one operator; holds no state."""

    def __init__(self, kube: Kube, clock: Callable[[], datetime], component: str) -> None:
        self._kube = kube
        self._clock = clock
        self._component = component

    async def act(self, namespace: str, job_uid: str, actions: Sequence[Action]) -> Results:
        created: list[str] = []
        deleted: list[DeletePod] = []
        absent: set[str] = set()
        refusals: list[PodRefusal] = []
        errors: list[KubeError] = []
        uids: dict[str, str] = {}
        is_unsure = False
        for action in actions:
            try:
                if isinstance(action, CreatePod):
                    is_new, uids[action.name] = await self._create(namespace, job_uid, action)
                    if is_new:
                        created.append(action.name)
                else:
                    if not await self._delete(namespace, action):
                        absent.add(action.uid)
                    deleted.append(action)
            except (Refused, AlreadyExists, NotFound) as error:
                if isinstance(action, DeletePod):
                    errors.append(error)
                    continue
                message = clean_text(error.message)
                refusals.append(PodRefusal(pod_name=action.name, message=message, time=self._clock()))
            except KubeError as error:
                is_unsure |= isinstance(action, CreatePod) and isinstance(error, Unreachable)
                errors.append(error)
        return Results(
            created=tuple(created),
            uids=uids,
            is_unsure=is_unsure,
            deleted=tuple(deleted),
            absent=frozenset(absent),
            refusal=refusals[0] if refusals else None,
            errors=tuple(errors),
        )

    async def _create(self, namespace: str, job_uid: str, action: CreatePod) -> tuple[bool, str]:
        """Whether the pod is new, and its UID; raises AlreadyExists if the name belongs to somebody else."""
        try:
            pod = await self._kube.create(PODS, action.manifest, namespace)
        except AlreadyExists:
            pod = await self._kube.get(PODS, action.name, namespace)
            if (controller_of(pod) or {}).get("uid") == job_uid:
                return False, str(pod["metadata"]["uid"])
            raise AlreadyExists(
                f"a pod named {action.name} exists and does not belong to this job: delete or rename it"
            ) from None
        return True, str(pod["metadata"]["uid"])

    async def _delete(self, namespace: str, action: DeletePod) -> bool:
        """Whether the pod may have been there."""
        try:
            await self._kube.delete(PODS, action.name, namespace, uid=action.uid)
        except NotFound:
            return False
        except Conflict:
            # The name is by now another pod's (the UID precondition did not hold), and the pod that was meant
            # is no more; or a webhook says so, and it is.
            pass
        return True

    async def tell(self, job: Json, events: Sequence[JobEvent], time: datetime | None = None) -> None:
        """Write Events on the job, as of now or of `time`.

        They are for people: a failure is counted and forgotten.
        """
        for event in events:
            body = self._event(job, event, time or self._clock())
            try:
                await self._kube.create(EVENTS, body, job["metadata"]["namespace"])
            except KubeError as error:
                metrics.EVENT_ERRORS.inc()
                _log.warning("event not written", reason=event.reason, error=error.message)

    def _event(self, job: Json, event: JobEvent, time: datetime) -> dict[str, Any]:
        metadata, now = job["metadata"], format_time(time.replace(microsecond=0))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": clean_text(event.message, _MAX_EVENT_MESSAGE_CHARS),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": CONTROLLER_NAME},
            "reportingComponent": CONTROLLER_NAME,
            "reportingInstance": self._component,
        }
