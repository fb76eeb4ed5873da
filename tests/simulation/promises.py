"""How soon the operator acts, as long as nothing stands in its way.

A promise counts only where the API server answered, watches were in time, and somebody led,
from its cause to its term: slowness in a storm is no fault. Invariant: as in `checks`, nothing
here reads what the operator keeps in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from simulation.api import Object
from simulation.trainer import REPORT_SECONDS
from simulation.world import Machine, Running, World
from spot_operator.names import LABEL_JOB_NAME
from spot_operator.views import controller_of, incarnation_of, time_of

CALM_BEFORE_SECONDS = 5.0
"""A leader that has just taken over first lists everything."""
STOP_SECONDS = 3.0
REPLACE_SECONDS = 5.0
PLAIN_REPLACE_SECONDS = 120.0 + 5.0
STRAY_SECONDS = 20.0
PREDECESSOR_SECONDS = 20.0
"""A predecessor whose pod has ended has its verdict by then."""
UNREACHABLE_SECONDS = {"spot": 60.0 + 10.0, "on-demand": 300.0 + 10.0}
"""The pods' toleration, and a while."""
STOP_TAINTS = {"karpenter.sh/disrupted", "aws-node-termination-handler/spot-itn"}
SHOW_SECONDS = 30.0
"""Durable progress that a trainer has reported stands in status by then."""
FIRST_POD_SECONDS = 3.0
PERIOD_SECONDS = 10.0
STEADY_SECONDS = 15.0
"""A trainer that has run for so long reports regularly."""
HINT_SECONDS = 7.0
DOOMED_SECONDS = 25.0
IDLE_SECONDS = 15.0
LEASE_SECONDS = 30.0
MACHINE_DEEDS = {"reclaim", "reclaim on-demand", "off"}


class Promises:
    def __init__(
        self,
        world: World,
        fail: Callable[[str], None],
        is_calm: Callable[[], bool],
        is_alive: Callable[[str], bool],
    ) -> None:
        """`is_alive` says whether the operator of a name runs."""
        self._world, self._fail, self._is_calm = world, fail, is_calm
        self._calm_since: float | None = None
        self._strays: dict[str, float] = {}
        self._behind: dict[str, tuple[int, float]] = {}
        """The durable step that was reported, and since when it ought to be shown."""
        self._unjudged: dict[str, float] = {}
        self._told: set[str] = set()
        self._suspended: set[str] = set()
        self._hinted: set[str] = set()
        self._doomed: dict[str, float] = {}
        self._idle: dict[str, float] = {}
        self._holder = ""
        self._is_alive = is_alive
        world.api.listeners.append(self._hear)

    async def watch(self) -> None:
        """Notice when calm begins and ends, and look at what no event announces."""
        looked = 0.0
        while True:
            self._take_weather()
            if self._world.seconds() - looked >= PERIOD_SECONDS:
                looked = self._world.seconds()
                self._look_for_strays()
                self._look_at_progress()
                self._look_at_predecessors()
                self._look_for_doomed()
                self._look_for_idle_jobs()
            await asyncio.sleep(0.5)

    def _take_weather(self) -> None:
        if not self._is_calm():
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = self._world.seconds()

    def _was_calm(self, since: float) -> bool:
        self._take_weather()
        return self._calm_since is not None and self._calm_since <= since - CALM_BEFORE_SECONDS

    def _promise(self, seconds: float, what: Callable[[], str]) -> None:
        """Unless it was not calm: in so many seconds `what` has nothing to complain about."""
        self._world.spawn(self._keep(self._world.seconds(), seconds, what))

    async def _keep(self, since: float, seconds: float, what: Callable[[], str]) -> None:
        await asyncio.sleep(seconds)
        if self._was_calm(since) and (complaint := what()):
            self._fail(f"{complaint}, {seconds:g} s later")

    # ------------------------------------------------------------------ what events begin

    def _hear(self, kind: str, plural: str, changed: Object) -> None:
        name = changed["metadata"]["name"]
        if plural == "nodes" and kind == "MODIFIED" and _says_that_it_goes(changed):
            if name not in self._told:
                self._told.add(name)
                self._promise(STOP_SECONDS, lambda: self._not_stopped(name))
        elif plural == "nodes" and kind == "MODIFIED":
            self._told.discard(name)
            if changed["spec"].get("unschedulable") and name not in self._hinted:
                self._hinted.add(name)
                self._node_hinted(changed)
            if _is_unreachable(changed):
                self._node_unreachable(changed)
        elif plural == "nodes" and kind == "DELETED":
            self._node_gone(changed)
        elif plural == "spottrainingjobs" and kind == "ADDED":
            self._promise(FIRST_POD_SECONDS, lambda: self._no_first_pod(name))
        elif plural == "spottrainingjobs" and kind == "MODIFIED" and changed["spec"].get("suspend"):
            if name not in self._suspended:
                self._suspended.add(name)
                self._promise(STOP_SECONDS, lambda: self._not_suspended(name))
        elif plural == "spottrainingjobs" and kind == "MODIFIED":
            self._suspended.discard(name)

        elif plural == "leases":
            self._take_holder(changed["spec"].get("holderIdentity") or "")

    def _take_holder(self, holder: str) -> None:
        """Nobody takes the Lease from a leader that is well."""
        before, self._holder = self._holder, holder
        if before and holder and holder != before and self._is_alive(before):
            well = self._calm_since is not None and self._world.seconds() - self._calm_since > LEASE_SECONDS
            if well:
                self._fail(f"{holder} took the lease from {before}, which was well")

    def _node_hinted(self, node: Object) -> None:
        """A cordon asks the trainers there for a checkpoint, with their next report."""
        machine = self._world.machines[node["metadata"]["uid"]]
        for each in self._world.pods_on(machine):
            process = each.process
            if process.is_plain or process.seconds_running < STEADY_SECONDS or process.step == 0:
                continue
            due = REPORT_SECONDS + 2 * process.save_cost_seconds + HINT_SECONDS
            self._promise(due, lambda each=each, step=process.step: self._not_saved(each, step))  # type: ignore[misc]

    def _not_saved(self, each: Running, step: int) -> str:
        if each.pod_uid not in self._world.running or each.process.is_told_to_stop:
            return ""
        if not each.machine.is_heard or self._world.stores[each.job].newest_step >= step:
            return ""
        return f"the node of pod {each.pod_name} was cordoned at step {step}, and nothing was saved"

    def _not_stopped(self, node: str) -> str:
        found = self._world.api.get("nodes", node)
        if found is None or not _says_that_it_goes(found):
            return ""
        for pod in self._world.api.all("pods"):
            metadata = pod["metadata"]
            is_alive = pod["status"]["phase"] == "Running" and pod["spec"].get("nodeName") == node
            if is_alive and self._is_owned(pod) and not metadata.get("deletionTimestamp"):
                started = self._world.running.get(metadata["uid"])
                if started is not None and started.process.seconds_running > STOP_SECONDS:
                    return f"node {node} says that it goes, and pod {metadata['name']} was not told to stop"
        return ""

    def _node_gone(self, node: Object) -> None:
        machine = self._world.machines[node["metadata"]["uid"]]
        for each in self._world.lost_on(machine):
            self._promise(REPLACE_SECONDS, lambda each=each: self._not_replaced(each, machine))  # type: ignore[misc]
            self._promise(PLAIN_REPLACE_SECONDS, lambda each=each: self._not_replaced(each, machine))  # type: ignore[misc]

    def _node_unreachable(self, node: Object) -> None:
        machine = self._world.machines[node["metadata"]["uid"]]
        for each in [*self._world.pods_on(machine), *self._world.lost_on(machine)]:

            def complain(each: Running = each) -> str:
                found = self._world.node_of(machine)
                if found is None or not _is_unreachable(found):
                    return ""
                job = self._world.job(each.job) or {}
                is_plain = not (job.get("status") or {}).get("claims")
                return "" if is_plain else self._not_replaced(each, machine)

            self._promise(UNREACHABLE_SECONDS[machine.pool], complain)

    def _not_replaced(self, each: Running, machine: Machine) -> str:
        """A pod whose node object is gone has a successor: a claiming one at once, any after two minutes."""
        job = self._world.job(each.job)
        since = self._world.seconds()
        if job is None or job["spec"].get("suspend") or self._is_over(job):
            return ""
        status = job.get("status") or {}
        gone = self._world.gone_at.get(machine.uid, since)
        if not status.get("claims") and since - gone < PLAIN_REPLACE_SECONDS - 1:
            return ""
        if status.get("incarnation", 0) > each.process.incarnation:
            return ""
        return f"the node of pod {each.pod_name} is gone, and it has no successor"

    def _not_suspended(self, name: str) -> str:
        job = self._world.job(name)
        if job is None or not job["spec"].get("suspend"):
            return ""
        for pod in self._world.api.all("pods"):
            metadata = pod["metadata"]
            is_alive = pod["status"]["phase"] == "Running" and metadata["labels"][LABEL_JOB_NAME] == name
            if is_alive and self._is_owned(pod) and not metadata.get("deletionTimestamp"):
                return f"job {name} is suspended, and pod {metadata['name']} runs on"
        return ""

    def _no_first_pod(self, name: str) -> str:
        job = self._world.job(name)
        if job is None or job["spec"].get("suspend") or (job.get("status") or {}).get("incarnation"):
            return ""
        return f"job {name} was created, and nothing was launched"

    # ------------------------------------------------------------------ what nothing announces

    def _look_for_strays(self) -> None:
        now, found = self._world.seconds(), {}
        for pod in self._world.api.all("pods"):
            metadata = pod["metadata"]
            if pod["status"]["phase"] in ("Succeeded", "Failed") or metadata.get("deletionTimestamp"):
                continue
            job = self._world.job(metadata["labels"][LABEL_JOB_NAME])
            status = (job or {}).get("status") or {}
            gangs = [status.get("gang") or {}, status.get("predecessor") or {}]
            if job is not None and self._is_owned(pod) and incarnation_of(pod) not in _numbers(gangs):
                found[metadata["name"]] = self._strays.get(metadata["name"], now)
        self._strays = found
        for name, since in found.items():
            if now - since > STRAY_SECONDS and self._was_calm(since):
                self._fail(f"pod {name} belongs to no incarnation of its job, and stays")

    def _look_at_progress(self) -> None:
        now = self._world.seconds()
        for job in self._world.api.all("spottrainingjobs"):
            name = job["metadata"]["name"]
            shown = ((job.get("status") or {}).get("progress") or {}).get("durableStep") or 0
            step, since = self._behind.get(name, (0, now))
            if shown >= step:
                self._behind[name] = (self._world.reported[name], now)
            elif now - since > SHOW_SECONDS and self._was_calm(since) and not self._is_over(job):
                self._fail(f"{name} has reported step {step} durable, and status says {shown}")

    def _look_at_predecessors(self) -> None:
        now, found = self._world.seconds(), {}
        for job in self._world.api.all("spottrainingjobs"):
            predecessor = (job.get("status") or {}).get("predecessor") or {}
            for record in predecessor.get("pods", ()):
                pod = self._world.api.get("pods", record["name"], job["metadata"]["namespace"])
                if pod is None or pod["status"]["phase"] in ("Succeeded", "Failed"):
                    found[record["name"]] = self._unjudged.get(record["name"], now)
        self._unjudged = found
        for name, since in found.items():
            if now - since > PREDECESSOR_SECONDS and self._was_calm(since):
                self._fail(f"pod {name} has handed over and ended, and has no verdict")

    def _look_for_doomed(self) -> None:
        """What could not be done at the signal is done when it can be."""
        now, found = self._world.seconds(), {}
        for node in self._world.api.all("nodes"):
            name = node["metadata"]["name"]
            if _says_that_it_goes(node) and self._not_stopped(name):
                found[name] = self._doomed.get(name, now)
        self._doomed = found
        for name, since in found.items():
            calm = max(since, self._calm_since if self._calm_since is not None else now)
            if now - calm > DOOMED_SECONDS:
                self._fail(f"{self._not_stopped(name)}, {now - since:g} s later")

    def _look_for_idle_jobs(self) -> None:
        now, found = self._world.seconds(), {}
        for job in self._world.api.all("spottrainingjobs"):
            name, status = job["metadata"]["name"], job.get("status") or {}
            due = time_of(status.get("nextLaunchTime"))
            is_held = due is not None and due > self._world.now()
            if job["spec"].get("suspend") or self._is_over(job):
                continue
            if not is_held and not status.get("gang") and not status.get("predecessor"):
                found[name] = self._idle.get(name, now)
        self._idle = found
        for name, since in found.items():
            if now - since > IDLE_SECONDS and self._was_calm(since):
                self._fail(f"nothing holds {name} back, and nothing was launched")

    def _is_owned(self, pod: Object) -> bool:
        job = self._world.job(pod["metadata"]["labels"][LABEL_JOB_NAME])
        return job is not None and (controller_of(pod) or {}).get("uid") == job["metadata"]["uid"]

    @staticmethod
    def _is_over(job: Object) -> bool:
        is_deleted = "deletionTimestamp" in job["metadata"]
        return is_deleted or bool((job.get("status") or {}).get("completionTime"))


def _says_that_it_goes(node: Object) -> bool:
    """As the catalogue of interruptions has it, whatever the operator believes."""
    is_shutting_down = any("shutting down" in c.get("message", "") for c in node["status"]["conditions"])
    is_tainted = any(taint["key"] in STOP_TAINTS for taint in node["spec"].get("taints", ()))
    return is_tainted or is_shutting_down or bool(node["metadata"].get("deletionTimestamp"))


def _is_unreachable(node: Object) -> bool:
    taints = node["spec"].get("taints", ())
    return any(t["key"].endswith("/unreachable") and t["effect"] == "NoExecute" for t in taints)


def _numbers(gangs: list[dict[str, Any]]) -> set[int]:
    return {gang["incarnation"] for gang in gangs if gang}
