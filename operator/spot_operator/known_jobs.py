"""Jobs as they are known without reading them: by a watch, a listing, or what the last look wrote.

A look that goes by such a job saves two calls; what it does is safe only because it begins with a write
that fails where the job is not that any more. Invariant: what is handed out is the newest version that
this process was told of, by whomever.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from spot_operator.names import JobKey
from spot_operator.readings import Readings
from spot_operator.views import time_of

Json = Mapping[str, Any]

NEW_FOR: Final = timedelta(minutes=10)
MAX_HELD: Final = 4096
"""Some 40 kB each; of those beyond, the ones that nothing happens to are read again when something does."""
MAX_VERSIONS: Final = 8
"""A watch that is behind by more writes than that costs a read."""
DELETED: Final = ""
"""The version of a job that is there no more."""


@dataclass(frozen=True)
class KnownJob:
    job: Json
    is_new: bool
    """No operator has ever written to it, so it has no pods."""


def version_of(item: Json) -> str:
    return str(item["metadata"]["resourceVersion"])


class KnownJobs:
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.readings = Readings()
        self._held: OrderedDict[JobKey, Json] = OrderedDict()
        self._new: dict[JobKey, Json] = {}
        self._versions: dict[JobKey, tuple[str, ...]] = {}
        """What was read, and what this process has made of it since: nobody else wrote in between."""
        self._heard: dict[JobKey, str] = {}
        """The version that a watch or a listing told of last."""
        self._looked_at: dict[JobKey, bool] = {}
        """Looks under way, and whether anything was heard of the job meanwhile."""

    def begin_look(self, key: JobKey) -> None:
        self._looked_at[key] = False

    def end_look(self, key: JobKey) -> bool:
        """Whether somebody else has written meanwhile, so that another look is due.

        What a watch says of the look's own write may come before the answer to it.
        """
        return self._looked_at.pop(key) and not self.has_seen(key, self._heard.get(key, DELETED))

    def keys(self) -> frozenset[JobKey]:
        """Jobs of which this process has had a version, and has not found that they are gone."""
        return frozenset(self._versions)

    def is_looked_at(self, key: JobKey) -> bool:
        return key in self._looked_at

    def hear(self, key: JobKey, job: Json, *, deleted: bool) -> bool:
        """Whether the job is new: neither looked at by this process nor, by its status, by any other."""
        self.readings.note(key)
        self.hear_version(key, DELETED if deleted else version_of(job))
        created = time_of(job["metadata"].get("creationTimestamp"))
        # A job that has been there for long is one whose status was emptied: it may well have pods.
        is_young = created is not None and self._clock() - created < NEW_FOR
        is_new = not deleted and key not in self._versions and not job.get("status") and is_young
        if is_new:
            self._new[key] = job
        else:
            self._new.pop(key, None)
        return is_new

    def hear_version(self, key: JobKey, version: str) -> None:
        """If it is news, the job has to be read."""
        self._heard[key] = version
        if key in self._looked_at:
            self._looked_at[key] = True
        if not self.has_seen(key, version):
            self._held.pop(key, None)

    def has_seen(self, key: JobKey, version: str) -> bool:
        """Whether the last look knew, or made, this version of the job or a later one."""
        return version in self._versions.get(key, ())

    def show(self, key: JobKey, job: Json) -> None:
        """How a listing had a job: good until something newer is heard."""
        self._versions[key] = (version_of(job),)
        self._hold(key, job)

    def take(self, key: JobKey) -> KnownJob | None:
        """What a look may go by; None: it has to read."""
        new, held = self._new.pop(key, None), self._held.pop(key, None)
        job = new or held
        return None if job is None else KnownJob(job, is_new=new is not None)

    def note_read(self, key: JobKey, job: Json) -> None:
        version = version_of(job)
        if not self.has_seen(key, version):
            self._versions[key] = (version,)

    def note_written(self, key: JobKey, job: Json) -> None:
        self._versions[key] = (*self._versions.get(key, ()), version_of(job))[-MAX_VERSIONS:]

    def keep(self, key: JobKey, job: Json) -> None:
        """For the next look, unless somebody was heard to have written meanwhile."""
        if self.has_seen(key, self._heard.get(key, version_of(job))):
            self._hold(key, job)

    def _hold(self, key: JobKey, job: Json) -> None:
        self._held[key] = job
        self._held.move_to_end(key)
        while len(self._held) > MAX_HELD:
            self._held.popitem(last=False)

    def forget(self, key: JobKey) -> None:
        self._held.pop(key, None)
        self._versions.pop(key, None)
        self._heard.pop(key, None)
