"""What keeps the operator from a job and cannot stand in its status, told on the job all the same.

Most trouble is a condition. But a status that cannot be read or written, a pod that may not be
deleted, and creations that nobody answers would be in the operator's log alone, where the job's
owner does not look. Invariant: each is an Event, now and then, however often it happens.
"""

from collections.abc import Callable
from typing import Final

from spot_operator.act import Actor, Results
from spot_operator.kube import Json, KubeError, Refused, Unreachable
from spot_operator.model import JobEvent
from spot_operator.names import JobKey, Reason

AGAIN_SECONDS: Final = 600.0
UNANSWERED: Final = 3
"""Creations of a pod in a row without an answer: one may get lost, so many do not."""

WORDS: Final = {
    Reason.STATUS_UNREADABLE: "nothing is done for this job until that part of its status is corrected or "
    "removed",
    Reason.STATUS_REFUSED: "nothing is done for this job while its status cannot be written",
    Reason.POD_DELETION_REFUSED: "a pod that has to end cannot be deleted",
    Reason.POD_CREATION_UNANSWERED: "nobody answers requests to create the pod",
}


class Complaints:
    def __init__(self, actor: Actor, monotonic: Callable[[], float]) -> None:
        self._actor = actor
        self._monotonic = monotonic
        self._told: dict[JobKey, dict[Reason, float]] = {}
        """When (monotonic seconds)."""
        self._unanswered: dict[JobKey, int] = {}

    async def tell(self, key: JobKey, job: Json, reason: Reason, message: str) -> None:
        told, now = self._told.setdefault(key, {}), self._monotonic()
        if now - told.get(reason, float("-inf")) < AGAIN_SECONDS:
            return
        told[reason] = now
        event = JobEvent(type="Warning", reason=reason, message=f"{WORDS[reason]}: {message}")
        await self._actor.tell(job, (event,))

    async def hear(self, key: JobKey, job: Json, results: Results) -> None:
        """Tell of what came of the actions and is shown in no condition."""
        if refused := _first(results, Refused):
            await self.tell(key, job, Reason.POD_DELETION_REFUSED, refused)
        if results.created:
            self._unanswered.pop(key, None)
        if not results.is_unsure:
            return
        self._unanswered[key] = self._unanswered.get(key, 0) + 1
        if self._unanswered[key] >= UNANSWERED:
            await self.tell(key, job, Reason.POD_CREATION_UNANSWERED, _first(results, Unreachable))

    def forget(self, key: JobKey) -> None:
        self._told.pop(key, None)
        self._unanswered.pop(key, None)


def _first(results: Results, kind: type[KubeError]) -> str:
    return next((error.message for error in results.errors if isinstance(error, kind)), "")
