"""What the jobs of one pool of nodes have seen of launches, shared between them.

Kept in memory: every job's own measurements stand in its status, so that a listing after a restart brings
all of it back. Invariant: bounded; the job that has not been looked at for longest is forgotten.
"""

import json
from collections import OrderedDict
from typing import Final

from spot_operator.decide.overheads import merged
from spot_operator.model import JobSpec, Overheads, Pool
from spot_operator.policy import Launches

MAX_JOBS: Final = 2000


def _name(pool: Pool) -> str:
    return json.dumps([dict(pool.node_selector), list(pool.node_affinity_terms)], sort_keys=True)


class PoolBook:
    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[str, str, Overheads]] = OrderedDict()
        """By UID: names of the spot and the on-demand pool, and what the job has measured."""

    def learn(self, job_uid: str, spec: JobSpec, overheads: Overheads) -> None:
        known = self._jobs.get(job_uid)
        if overheads == (Overheads() if known is None else known[2]):
            return
        self._jobs[job_uid] = (_name(spec.spot), _name(spec.on_demand), overheads)
        self._jobs.move_to_end(job_uid)
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)

    def known(self, job_uid: str, spec: JobSpec) -> Overheads:
        """What other jobs of the same pools have measured."""
        spot, on_demand = Launches(), Launches()
        spot_name, on_demand_name = _name(spec.spot), _name(spec.on_demand)
        for uid, (their_spot, their_on_demand, overheads) in self._jobs.items():
            if uid == job_uid:
                continue
            if their_spot == spot_name:
                spot = merged(spot, overheads.spot)
            if their_on_demand == on_demand_name:
                on_demand = merged(on_demand, overheads.on_demand)
        return Overheads(spot=spot, on_demand=on_demand)
