"""What the jobs are doing, looked at every second: for the picture, the launches, and the lines in between.

Invariant: everything comes from the jobs' own status, as a user sees it.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from localcluster import Cluster
from localcluster.api import ApiError
from spot_trainer.contract import parse_time
from trace_bench.plan import NAMESPACE

PERIOD_SECONDS = 1.0
SAY_EVERY = 15
COLLECTION = f"/apis/spottraining.io/v1alpha1/namespaces/{NAMESPACE}/spottrainingjobs"

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Launch:
    """From the intent to the first step that was reported."""

    capacity_type: str
    created: datetime
    scheduled: datetime
    working: datetime

    @property
    def bound_seconds(self) -> float:
        return (self.working - self.scheduled).total_seconds()

    @property
    def seconds(self) -> float:
        return (self.working - self.created).total_seconds()


class Watch:
    def __init__(self, cluster: Cluster, now: Callable[[], float], say: Callable[[str], None]) -> None:
        """`now`: seconds since the beginning of the replay."""
        self._cluster, self._now, self._say = cluster, now, say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.jobs: dict[str, Job] = {}
        self.samples: dict[str, list[tuple[float, str]]] = {}
        """By job: when it was seen in which state, whenever that changed."""
        self.launches: dict[tuple[str, int], Launch] = {}
        """By job and incarnation."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)

    def look(self) -> None:
        now = self._now()
        for job in self._cluster.api.get(COLLECTION)["items"]:
            name = job["metadata"]["name"]
            self.jobs[name] = job
            state = state_of(job)
            seen = self.samples.setdefault(name, [])
            if not seen or seen[-1][1] != state:
                seen.append((now, state))
            for gang in gangs(job):
                if (launch := launch_of(gang)) is not None:
                    self.launches.setdefault((name, gang["incarnation"]), launch)

    def num_done(self) -> int:
        return sum(state_of(job) == "done" for job in self.jobs.values())

    def _run(self) -> None:
        count = 0
        while not self._over.wait(PERIOD_SECONDS):
            with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
                self.look()
            count += 1
            if count % SAY_EVERY == 0:
                counted = Counter(map(state_of, self.jobs.values()))
                words = [f"{number} {state}" for state, number in sorted(counted.items())]
                self._say("jobs: " + ", ".join(words))


def gangs(job: Job) -> list[Mapping[str, Any]]:
    status = job.get("status", {})
    return [status[key] for key in ("predecessor", "gang") if key in status]


def state_of(job: Job) -> str:
    """What does the work: spot, on-demand, nothing (it waits), or the job is done."""
    if "completionTime" in job.get("status", {}):
        return "done"
    for gang in gangs(job):
        pod = gang["pods"][0]
        if "stop" not in gang and "nodeName" in pod and "finishedTime" not in pod:
            return str(gang["capacityType"])
    return "nothing"


def launch_of(gang: Mapping[str, Any]) -> Launch | None:
    pod = gang["pods"][0]
    if "workingTime" not in pod or "scheduledTime" not in pod:
        return None
    return Launch(
        gang["capacityType"],
        parse_time(gang["createdTime"]),
        parse_time(pod["scheduledTime"]),
        parse_time(pod["workingTime"]),
    )


def of_type(launches: Sequence[Launch], capacity_type: str) -> list[Launch]:
    return [each for each in launches if each.capacity_type == capacity_type]
