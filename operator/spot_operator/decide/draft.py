"""A decision in the making: what is known, and what has been decided so far.

Each step of `decide` takes a draft and returns another; nothing is mutated. A step that
settles the matter returns a draft with `done` set, and the steps after it are skipped.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from spot_operator.decide.fates import PodFate, pod_fate
from spot_operator.model import Action, Gang, JobEvent, JobSpec, JobStatus, Observation, PolicySettings
from spot_operator.names import ConditionType, Reason


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a step wants a condition to say."""

    type: ConditionType
    status: bool | None
    reason: Reason | str
    message: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    observation: Observation
    spec: JobSpec
    now: datetime
    settings: PolicySettings
    status: JobStatus
    actions: tuple[Action, ...] = ()
    events: tuple[JobEvent, ...] = ()
    notes: tuple[Note, ...] = ()
    looks: tuple[datetime, ...] = ()
    done: bool = False

    def with_status(self, **changes: Any) -> "Draft":
        return replace(self, status=replace(self.status, **changes))

    def with_gang(self, gang: Gang | None) -> "Draft":
        return self.with_status(gang=gang)

    def act(self, *actions: Action) -> "Draft":
        return replace(self, actions=(*self.actions, *actions))

    def say(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> "Draft":
        return replace(self, events=(*self.events, JobEvent(type=type_, reason=reason, message=message)))

    def note(self, type_: ConditionType, status: bool | None, reason: Reason | str, message: str) -> "Draft":
        """A later note on the same condition replaces an earlier one."""
        kept = tuple(note for note in self.notes if note.type is not type_)
        return replace(self, notes=(*kept, Note(type=type_, status=status, reason=reason, message=message)))

    def look_at(self, time: datetime | None) -> "Draft":
        return self if time is None else replace(self, looks=(*self.looks, time))

    def fates(self, gang: Gang | None = None) -> tuple[PodFate, ...]:
        """What has become of the pods of the gang; unset: of the current one."""
        gang = gang or self.status.gang
        if gang is None:
            return ()
        return tuple(
            pod_fate(record, gang, self.observation, self.now, self.settings) for record in gang.pods
        )

    def finish(self) -> "Draft":
        return replace(self, done=True)
