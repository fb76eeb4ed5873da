"""What a schedule does to a run: to the operators and what lies before them, to jobs, pods and machines.

Each group handles its own kinds, and says whether the disturbance was one of these. A disturbance that
has no object (a pod that is not there, for example) does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from simulation.api import Object
from simulation.operator import OperatorProcess, Weather
from simulation.schedule import Disturbance, Kind
from simulation.trainer import End
from simulation.world import NAMESPACE, Machine, World

_STOP_TAINT = "aws-node-termination-handler/spot-itn"


class Disturber:
    def __init__(
        self,
        world: World,
        weather: Weather,
        operators: Mapping[int, OperatorProcess],
        leader: Callable[[], OperatorProcess | None],
    ) -> None:
        self._world = world
        self._weather = weather
        self._operators = operators
        self._leader = leader

    async def disturb(self, it: Disturbance) -> None:
        world, job = self._world, f"job{it.job}"
        pod = world.current_pod(job)
        machine = world.machine_of(pod) if pod is not None else None
        for group in (self._disturb_operators, self._disturb_weather, self._disturb_world):
            if await group(it):
                return
        if await self._disturb_job(it, job) or pod is None or await self._disturb_pod(it, job, pod):
            return
        if machine is not None and not await self._end_machine(it, machine):
            await self._disturb_machine(it, machine)

    # ------------------------------------------------------------------ operators and API server

    async def _disturb_operators(self, it: Disturbance) -> bool:
        leader = self._leader()
        match it.kind:
            case Kind.OPERATOR_DIES_NOW:
                for each in self._operators.values():
                    if each.is_leading:
                        each.kill("somebody killed it")
            case Kind.OPERATOR_DIES_AT_CALL:
                if leader is not None:
                    where = it.where or ("after" if it.number % 2 else "before")
                    leader.dies_at = (leader.num_calls + it.number, where)
            case Kind.OPERATOR_STALLS:
                if leader is not None:
                    leader.stalled_until = self._world.seconds() + min(it.number, 60)
            case Kind.WATCH_BREAKS:
                for each in self._operators.values():
                    if each.core is not None:
                        each.break_watches()
                await asyncio.sleep(it.number)
                self._watch_again()
            case _:
                return False
        return True

    async def _disturb_weather(self, it: Disturbance) -> bool:
        world, weather = self._world, self._weather
        match it.kind:
            case Kind.API_DOWN:
                weather.is_down = True
                await asyncio.sleep(it.number)
                weather.is_down = False
                self._watch_again()
            case Kind.LOST_ANSWERS:
                weather.lost_answers += min(it.number, 5)
            case Kind.WRITES_REFUSED:
                weather.refused_writes += min(it.number, 5)
            case Kind.SLOW_WATCHES:
                weather.slow_watches_until = world.seconds() + it.number
            case Kind.POD_READS_FAIL:
                weather.are_pods_unreadable = True
                await asyncio.sleep(min(it.number, 100))
                weather.are_pods_unreadable = False
            case Kind.NODE_READS_FAIL:
                weather.are_nodes_unreadable = True
                world.unreadable.append((world.seconds(), world.seconds() + it.number))
                await asyncio.sleep(it.number)
                weather.are_nodes_unreadable = False
            case _:
                return False
        return True

    def _watch_again(self) -> None:
        for each in self._operators.values():
            if each.core is not None and not each.is_dead:
                each.watch_again()

    # ------------------------------------------------------------------ all of the cluster, and jobs

    async def _disturb_world(self, it: Disturbance) -> bool:
        world = self._world
        match it.kind:
            case Kind.DROUGHT:
                world.is_drought = True
                await asyncio.sleep(it.number)
                world.is_drought = False
            case Kind.ADMISSION:
                world.kubelets_refuse = True
                await asyncio.sleep(min(it.number, 30))
                world.kubelets_refuse = False
            case Kind.QUOTA:
                world.api.refuse_pods = True
                await asyncio.sleep(it.number)
                world.api.refuse_pods = False
            case _:
                return False
        return True

    async def _disturb_job(self, it: Disturbance, job: str) -> bool:
        world = self._world
        match it.kind:
            case Kind.CRASH_LOOP:
                world.bugs[job] = (min(it.number, 13), End(1, "Error", "Traceback ..."))
            case Kind.OUT_OF_MEMORY_LOOP:
                world.bugs[job] = (min(it.number, 5), End(137, "OOMKilled"))
            case Kind.STOP_LOOP:
                world.bugs[job] = (min(it.number, 8), End(75, "Error"))
            case Kind.DELETE_JOB_IN_FOREGROUND:
                await world.delete_job_in_foreground(job)
            case Kind.DELETE_JOB:
                if world.job(job) is not None:
                    world.api.remove("spottrainingjobs", job, NAMESPACE)
            case Kind.SUSPEND:
                self._blame_job(job, "suspend")
                self._patch(job, suspend=True)
                await asyncio.sleep(it.number)
                self._patch(job, suspend=False)
            case _:
                return False
        return True

    def _blame_job(self, job: str, what: str) -> None:
        for pod in self._world.api.all("pods"):
            if pod["metadata"]["labels"].get("spottraining.io/job-name") == job:
                self._world.truth[pod["metadata"]["uid"]].add(what)

    def _patch(self, job: str, **spec: object) -> None:
        if self._world.job(job) is None:
            return

        def change(found: dict[str, object]) -> None:
            found["spec"] |= spec  # type: ignore[operator]
            found["metadata"]["generation"] += 1  # type: ignore[index]

        self._world.api.update("spottrainingjobs", job, change, NAMESPACE)

    # ------------------------------------------------------------------ pods

    async def _disturb_pod(self, it: Disturbance, job: str, pod: Object) -> bool:
        world, uid = self._world, pod["metadata"]["uid"]
        match it.kind:
            case Kind.EVICT:
                world.truth[uid].add("eviction")
                world.evict(pod)
            case Kind.FORCE_DELETE:
                world.truth[uid].add("deleted by somebody")
                world.force_delete(pod)
            case Kind.STALE_CONDITION:
                world.truth[uid].add("eviction")
                await world.announce_eviction(pod, 120)
            case Kind.COPIED_LABELS:
                world.copy_labels(pod)
            case Kind.PREEMPTION:
                world.truth[uid].add("preemption")
                world.preempt(pod)
            case Kind.PRESSURE:
                if uid in world.running:
                    world.truth[uid].add("pressure")
                    world.evict_under_pressure(pod)
            case Kind.USER_DELETES_POD:
                world.truth[uid].add("deleted by somebody")
                world.api.delete_pod(pod)
            case Kind.CRASH | Kind.OUT_OF_MEMORY:
                self._crash(job, uid, out_of_memory=it.kind is Kind.OUT_OF_MEMORY)
            case _:
                return False
        return True

    def _crash(self, job: str, pod_uid: str, *, out_of_memory: bool) -> None:
        world = self._world
        running = world.running.get(pod_uid)
        if running is None:
            return
        world.crashes[job] += 1
        world.truth[pod_uid].add("out of memory" if out_of_memory else "crash")
        running.process.crash(End(137, "OOMKilled") if out_of_memory else End(1, "Error", "Traceback ..."))

    # ------------------------------------------------------------------ machines

    async def _end_machine(self, it: Disturbance, machine: Machine) -> bool:
        """In the ways of the clouds, and in those that nobody announces."""
        world = self._world
        loss = "reclaim" if machine.pool == "spot" else "reclaim on-demand"
        match it.kind:
            case Kind.RECLAIM_KARPENTER:
                world.blame(machine, loss)
                world.taint(machine, "karpenter.sh/disrupted")
                await asyncio.sleep(it.number % 8)
                world.mark_node_deleted(machine)
                await asyncio.sleep(it.number + 20)
                world.remove_node(machine)
            case Kind.RECLAIM_NTH:
                world.blame(machine, loss)
                world.taint(machine, _STOP_TAINT)
                world.cordon(machine)
                for each in list(world.api.all("pods")):
                    if each.get("model", {}).get("machine") == machine.uid:
                        world.evict(each)
                await asyncio.sleep(it.number + 20)
                world.power_off(machine)
                await asyncio.sleep(it.number)
                world.remove_node(machine)
            case Kind.RECLAIM_SHUTDOWN:
                world.blame(machine, loss)
                world.set_ready(machine, "False", "node is shutting down")
                for running in world.pods_on(machine):
                    running.is_shut_down = True
                    running.process.terminate()
                await asyncio.sleep(15)
                world.power_off(machine)
                await asyncio.sleep(it.number)
                world.remove_node(machine)
            case Kind.POWER_OFF:
                world.blame(machine, "off")
                world.power_off(machine)
                await asyncio.sleep(30 + it.number)
                world.remove_node(machine)
            case Kind.NODE_REUSED:
                world.blame(machine, "off")
                world.power_off(machine)
                await asyncio.sleep(it.number)
                world.remove_node(machine)
                await asyncio.sleep(it.number % 7)
                if world.api.get("nodes", machine.name) is None:
                    world.add_node(machine.pool, machine.name)
            case Kind.SEVERED:
                world.blame(machine, "off")
                world.disconnect(machine)
                await asyncio.sleep(20 + it.number)
                world.remove_node(machine, is_off=False)
                await asyncio.sleep(min(it.number, 100))
                world.power_off(machine)
            case _:
                return False
        return True

    async def _disturb_machine(self, it: Disturbance, machine: Machine) -> None:
        """It stays, or comes back."""
        world = self._world
        match it.kind:
            case Kind.PARTITION:
                world.blame(machine, "partition")
                world.disconnect(machine)
                await asyncio.sleep(it.number * 3)
                machine.deeds.discard("partition")
                world.connect(machine)
            case Kind.WITHDRAWN:
                world.blame(machine, "stop taint")
                world.taint(machine, _STOP_TAINT)
                await asyncio.sleep(it.number)
                machine.deeds.discard("stop taint")
                world.untaint(machine, _STOP_TAINT)
            case Kind.REBOOT:
                if not machine.is_booting:
                    world.blame(machine, "reboot")
                    world.reboot(machine, 10 + it.number)
                    await asyncio.sleep(10 + it.number)
                    machine.deeds.discard("reboot")
            case Kind.CORDON:
                world.cordon(machine)
            case _:
                raise ValueError(f"nobody does {it.kind}")
