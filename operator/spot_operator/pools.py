"""What the jobs of one pool of nodes have seen of launches and of interruptions, shared between them.

Kept in memory: every job's own measurements stand in its status, so that a listing after a restart brings
all of it back. Invariant: bounded; the job that has not been looked at for longest is forgotten.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from spot_operator.decide.overheads import merged
from spot_operator.decide.rates import seen
from spot_operator.model import InterruptionRate, JobSpec, Overheads, Pool
from spot_operator.names import CapacityType
from spot_operator.policy import Interruptions, Launches

MAX_JOBS: Final = 12_000
"""Above what one operator is expected to serve: a job that is dropped is taken in again at its next look."""
NOTHING_SEEN: Final = InterruptionRate()


def _name(pool: Pool) -> str:
    return json.dumps([dict(pool.node_selector), list(pool.node_affinity_terms)], sort_keys=True)


def _plus(
    total: Mapping[str, Interruptions], more: Mapping[str, Interruptions], *, sign: int
) -> dict[str, Interruptions]:
    """The sum, or the difference, without zones in which nothing is left."""
    found = dict(total)
    for zone, each in more.items():
        old = found.pop(zone, Interruptions())
        # Rounded as in status, so that adding and taking away leaves nothing behind.
        new = Interruptions(
            old.count + sign * each.count, round(old.node_seconds + sign * each.node_seconds, 3)
        )
        if new != Interruptions():
            found[zone] = new
    return found


@dataclass(frozen=True)
class Entry:
    """What one job has measured, and in which pools."""

    spot: str
    on_demand: str
    overheads: Overheads
    interruptions: Mapping[str, Interruptions]
    """By zone, on spot."""

    def pool(self, capacity_type: CapacityType) -> str:
        return self.spot if capacity_type is CapacityType.SPOT else self.on_demand

    def launches(self, capacity_type: CapacityType) -> Launches:
        of = self.overheads
        return of.spot if capacity_type is CapacityType.SPOT else of.on_demand


class PoolBook:
    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Entry] = OrderedDict()
        """By UID."""
        self._interruptions: dict[str, dict[str, Interruptions]] = {}
        """By name of the spot pool, by zone: the sum over the jobs, at hand since every look asks for it."""
        self._launches: dict[tuple[CapacityType, str], Launches] = {}
        """By name of the pool: of all jobs, where it is known."""

    def learn(
        self, job_uid: str, spec: JobSpec, overheads: Overheads, rate: InterruptionRate = NOTHING_SEEN
    ) -> None:
        known = self._jobs.get(job_uid)
        found = (overheads, seen(rate))
        if known is not None:
            self._jobs.move_to_end(job_uid)
        if found == ((Overheads(), {}) if known is None else (known.overheads, known.interruptions)):
            return
        self._forget(job_uid)
        entry = Entry(_name(spec.spot), _name(spec.on_demand), *found)
        self._jobs[job_uid] = entry
        self._add(entry)
        while len(self._jobs) > MAX_JOBS:
            self._forget(next(iter(self._jobs)))

    def _forget(self, job_uid: str) -> None:
        entry = self._jobs.pop(job_uid, None)
        if entry is not None:
            self._add(entry, sign=-1)

    def _add(self, entry: Entry, *, sign: int = 1) -> None:
        for capacity_type in CapacityType:
            of = (capacity_type, entry.pool(capacity_type))
            launches = self._launches.pop(of, None)
            # What was longest cannot be taken out of a total again, only put in.
            if launches is not None and sign > 0:
                self._launches[of] = merged(launches, entry.launches(capacity_type))
        if entry.interruptions:
            total = self._interruptions.get(entry.spot, {})
            if left := _plus(total, entry.interruptions, sign=sign):
                self._interruptions[entry.spot] = left
            else:
                self._interruptions.pop(entry.spot, None)

    def known_interruptions(self, job_uid: str, spec: JobSpec) -> dict[str, Interruptions]:
        """By zone: what other jobs of the same spot pool have seen."""
        name, own = _name(spec.spot), self._jobs.get(job_uid)
        total = self._interruptions.get(name, {})
        return dict(total) if own is None or own.spot != name else _plus(total, own.interruptions, sign=-1)

    def known(self, job_uid: str, spec: JobSpec) -> Overheads:
        """What other jobs of the same pools have measured; the extremes are those of all jobs."""
        own = self._jobs.get(job_uid)
        return Overheads(
            spot=self._known(CapacityType.SPOT, _name(spec.spot), own),
            on_demand=self._known(CapacityType.ON_DEMAND, _name(spec.on_demand), own),
        )

    def _known(self, capacity_type: CapacityType, name: str, own: Entry | None) -> Launches:
        total = self._launches.get((capacity_type, name))
        if total is None:
            total = Launches()
            for entry in self._jobs.values():
                if entry.pool(capacity_type) == name:
                    total = merged(total, entry.launches(capacity_type))
            if total.count:
                self._launches[capacity_type, name] = total
        if own is None or own.pool(capacity_type) != name:
            return total
        mine = own.launches(capacity_type)
        if total.count == mine.count:
            return Launches()
        seconds = round(total.total_seconds - mine.total_seconds, 3)
        return replace(total, count=total.count - mine.count, total_seconds=seconds)
