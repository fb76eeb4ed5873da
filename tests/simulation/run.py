"""One schedule from its beginning to its end: the world, the operators, the disturbances, the checks."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass

from simulation import schedule as schedules
from simulation.checks import Checks, Violation
from simulation.loop import Stuck, VirtualLoop
from simulation.operator import SLOWEST_SECONDS, OperatorProcess, Weather
from simulation.promises import Promises
from simulation.schedule import Disturbance, Kind, Schedule
from simulation.trainer import End
from simulation.world import NAMESPACE, Machine, World
from spot_trainer.contract import Directives, ProgressReport, parse_directives, parse_progress

CALM_SECONDS = 600.0
"""From here on nothing is wrong any more: capacity, API server and watches are as they should be."""
HORIZON_SECONDS = 6000.0
SETTLE_SECONDS = 150.0
OPERATOR_RESTART_SECONDS = 3.0


@dataclass(frozen=True)
class Result:
    violation: str | None
    log: tuple[str, ...]
    seconds: float
    num_calls: int


class Run:
    def __init__(self, schedule: Schedule, loop: VirtualLoop) -> None:
        self.schedule = schedule
        self.world = World(schedule.seed, loop.time)
        self.weather = Weather(self.world.rng)
        self.checks = Checks(self.world)
        self.operators: dict[int, OperatorProcess] = {}
        self.num_calls = 0
        self.promises = Promises(self.world, self.checks.fail, self._is_calm, self._is_alive)
        self.world.report_to = self._report

    def _job(self, disturbance: Disturbance) -> str:
        return f"job{disturbance.job}"

    # ------------------------------------------------------------------ the course of it

    async def play(self) -> None:
        world = self.world
        for number in range(self.schedule.num_operators):
            self._start_operator(number)
        for pool in ["spot"] * self.schedule.num_spot_nodes + ["on-demand"]:
            world.add_node(pool)
        for number in range(len(self.schedule.jobs)):
            world.spawn(self._add_job(number))
        for disturbance in self.schedule.disturbances:
            world.spawn(self._disturb_at(disturbance))
        world.spawn(self._keep_operators())
        world.spawn(self.promises.watch())
        while not (world.seconds() > CALM_SECONDS and self._is_over()):
            await asyncio.sleep(5)
            if self.checks.violation is not None or world.seconds() > HORIZON_SECONDS:
                break
        if self.checks.violation is None:
            await asyncio.sleep(SETTLE_SECONDS)
            writes = self.checks.num_status_writes
            await asyncio.sleep(130)
            if self.checks.num_status_writes != writes:
                self.checks.fail("status is written although nothing happens")
            self.checks.at_end(crashes=world.crashes, could_speak=self._could_speak())
        for each in self.operators.values():
            each.kill("the run is over")
        await world.close()

    async def _add_job(self, number: int) -> None:
        """The first is there from the beginning, others come while the operator runs."""
        await asyncio.sleep(number * (self.schedule.seed % 100))
        self.world.add_job(f"job{number}", self.schedule.jobs[number])

    def _is_over(self) -> bool:
        jobs = self.world.api.all("spottrainingjobs")
        return all(
            (job.get("status") or {}).get("completionTime") or job["metadata"].get("deletionTimestamp")
            for job in jobs
        )

    def _start_operator(self, number: int) -> None:
        skew = self.schedule.skew_seconds[number]
        each = self.operators[number] = OperatorProcess(
            number,
            self.world.api,
            self.weather,
            clock=self.world.now,
            say=self.world.say,
            on_call=self._called,
            complain=self.checks.fail,
            skew_seconds=skew,
        )
        each.start()

    def _called(self, method: str, path: str, status: int) -> None:
        self.num_calls += 1
        self.checks.called(method, path, status)

    async def _keep_operators(self) -> None:
        """The kubelet restarts a process that has died."""
        while True:
            await asyncio.sleep(OPERATOR_RESTART_SECONDS)
            for number, each in list(self.operators.items()):
                if each.is_dead:
                    self._start_operator(number)

    def _is_calm(self) -> bool:
        weather, leader = self.weather, self._leader()
        return (
            leader is not None
            and leader.dies_at is None
            and leader._hear in self.world.api.listeners
            and not weather.is_down
            and leader.stalled_until < self.world.seconds()
            and not weather.are_nodes_unreadable
            and not weather.are_pods_unreadable
            and not weather.refused_writes
            and not weather.lost_answers
            and not self.world.api.refuse_pods
            and self.world.seconds() > weather.slow_watches_until + SLOWEST_SECONDS
        )

    def _could_speak(self) -> bool:
        return not any(each.kind in schedules.SILENCING for each in self.schedule.disturbances)

    def _is_alive(self, name: str) -> bool:
        return any(each.name == name and not each.is_dead for each in self.operators.values())

    def _leader(self) -> OperatorProcess | None:
        return next((each for each in self.operators.values() if each.is_leading), None)

    def _report(self, pod_uid: str, report: ProgressReport) -> Directives | None:
        """As the status server does it; the body crosses the contract."""
        leader = self._leader()
        if leader is None or leader.core is None:
            return None
        core, pod = leader.core, leader.core.pods.get(pod_uid)
        if pod is None:
            return None
        answer = core.reconciler.answer(pod.key, pod.incarnation)
        if answer is None:
            return None
        body = parse_progress(report.to_json())
        urgent = core.reports.accept(pod, pod_uid, body, self.world.now())
        core.queue.wake(pod.key, 0.0 if urgent else 10.0)
        return parse_directives(answer)

    # ------------------------------------------------------------------ disturbances

    async def _disturb_at(self, disturbance: Disturbance) -> None:
        await asyncio.sleep(disturbance.at)
        self.world.say(f"--- {disturbance.kind} ({disturbance.number}), job {disturbance.job}")
        await self._disturb(disturbance)

    async def _disturb(self, it: Disturbance) -> None:
        world, weather, job = self.world, self.weather, self._job(it)
        pod = world.current_pod(job)
        machine = world.machine_of(pod) if pod is not None else None
        match it.kind:
            case Kind.OPERATOR_DIES_NOW:
                for each in self.operators.values():
                    if each.is_leading:
                        each.kill("somebody killed it")
            case Kind.OPERATOR_DIES_AT_CALL:
                leader = self._leader()
                if leader is not None:
                    where = it.where or ("after" if it.number % 2 else "before")
                    leader.dies_at = (leader.num_calls + it.number, where)
            case Kind.API_DOWN:
                weather.is_down = True
                await asyncio.sleep(it.number)
                weather.is_down = False
                self._watch_again()
            case Kind.LOST_ANSWERS:
                weather.lost_answers += min(it.number, 5)
            case Kind.WATCH_BREAKS:
                for each in self.operators.values():
                    if each.core is not None:
                        each.break_watches()
                await asyncio.sleep(it.number)
                self._watch_again()
            case Kind.SLOW_WATCHES:
                weather.slow_watches_until = world.seconds() + it.number
            case Kind.CRASH_LOOP:
                world.bugs[job] = (min(it.number, 13), End(1, "Error", "Traceback ..."))
            case Kind.OUT_OF_MEMORY_LOOP:
                world.bugs[job] = (min(it.number, 5), End(137, "OOMKilled"))
            case Kind.STOP_LOOP:
                world.bugs[job] = (min(it.number, 8), End(75, "Error"))
            case Kind.POD_READS_FAIL:
                weather.are_pods_unreadable = True
                await asyncio.sleep(min(it.number, 100))
                weather.are_pods_unreadable = False
            case Kind.WRITES_REFUSED:
                weather.refused_writes += min(it.number, 5)
            case Kind.OPERATOR_STALLS:
                leader = self._leader()
                if leader is not None:
                    leader.stalled_until = world.seconds() + min(it.number, 60)
            case Kind.DELETE_JOB_IN_FOREGROUND:
                await world.delete_job_in_foreground(job)
            case Kind.NODE_READS_FAIL:
                weather.are_nodes_unreadable = True
                world.unreadable.append((world.seconds(), world.seconds() + it.number))
                await asyncio.sleep(it.number)
                weather.are_nodes_unreadable = False
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
            case Kind.SUSPEND:
                self._blame_job(job, "suspend")
                self._patch(job, suspend=True)
                await asyncio.sleep(it.number)
                self._patch(job, suspend=False)
            case Kind.DELETE_JOB if world.job(job) is not None:
                world.api.remove("spottrainingjobs", job, NAMESPACE)
            case _ if pod is None:
                return
            case Kind.EVICT:
                world.truth[pod["metadata"]["uid"]].add("eviction")
                world.evict(pod)
            case Kind.FORCE_DELETE:
                world.truth[pod["metadata"]["uid"]].add("deleted by somebody")
                world.force_delete(pod)
            case Kind.STALE_CONDITION:
                world.truth[pod["metadata"]["uid"]].add("eviction")
                await world.announce_eviction(pod, 120)
            case Kind.COPIED_LABELS:
                world.copy_labels(pod)
            case Kind.PREEMPTION:
                world.truth[pod["metadata"]["uid"]].add("preemption")
                world.preempt(pod)
            case Kind.PRESSURE:
                if pod["metadata"]["uid"] in world.running:
                    world.truth[pod["metadata"]["uid"]].add("pressure")
                    world.evict_under_pressure(pod)
            case Kind.USER_DELETES_POD:
                world.truth[pod["metadata"]["uid"]].add("deleted by somebody")
                world.api.delete_pod(pod)
            case Kind.CRASH | Kind.OUT_OF_MEMORY:
                self._crash(job, pod["metadata"]["uid"], out_of_memory=it.kind is Kind.OUT_OF_MEMORY)
            case _ if machine is None:
                return
            case _:
                await self._disturb_machine(it, machine)

    def _crash(self, job: str, pod_uid: str, *, out_of_memory: bool) -> None:
        running = self.world.running.get(pod_uid)
        if running is None:
            return
        self.world.crashes[job] += 1
        self.world.truth[pod_uid].add("out of memory" if out_of_memory else "crash")
        running.process.crash(End(137, "OOMKilled") if out_of_memory else End(1, "Error", "Traceback ..."))

    async def _disturb_machine(self, it: Disturbance, machine: Machine) -> None:
        world = self.world
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
                world.taint(machine, "aws-node-termination-handler/spot-itn")
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
            case Kind.PARTITION:
                world.blame(machine, "partition")
                world.disconnect(machine)
                await asyncio.sleep(it.number * 3)
                machine.deeds.discard("partition")
                world.connect(machine)
            case Kind.WITHDRAWN:
                world.blame(machine, "stop taint")
                world.taint(machine, "aws-node-termination-handler/spot-itn")
                await asyncio.sleep(it.number)
                machine.deeds.discard("stop taint")
                world.untaint(machine, "aws-node-termination-handler/spot-itn")
            case Kind.REBOOT if not machine.is_booting:
                world.blame(machine, "reboot")
                world.reboot(machine, 10 + it.number)
                await asyncio.sleep(10 + it.number)
                machine.deeds.discard("reboot")
            case Kind.CORDON:
                world.cordon(machine)

    def _watch_again(self) -> None:
        for each in self.operators.values():
            if each.core is not None and not each.is_dead:
                each.watch_again()

    def _blame_job(self, job: str, what: str) -> None:
        for pod in self.world.api.all("pods"):
            if pod["metadata"]["labels"].get("spottraining.io/job-name") == job:
                self.world.truth[pod["metadata"]["uid"]].add(what)

    def _patch(self, job: str, **spec: object) -> None:
        if self.world.job(job) is None:
            return

        def change(found: dict[str, object]) -> None:
            found["spec"] |= spec  # type: ignore[operator]
            found["metadata"]["generation"] += 1  # type: ignore[index]

        self.world.api.update("spottrainingjobs", job, change, NAMESPACE)


def _event_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        return None


def play(schedule: Schedule) -> Result:
    """Play a schedule; nothing of the real world is waited for."""
    silenced_before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    loop_before = _event_loop()
    loop = VirtualLoop()
    errors: list[str] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(str(context.get("exception") or context)))
    asyncio.set_event_loop(loop)
    run = Run(schedule, loop)
    try:
        loop.run_until_complete(run.play())
    except Stuck as stuck:
        run.checks.fail(str(stuck))
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()
        asyncio.set_event_loop(loop_before)
        logging.disable(silenced_before)
    violation: Violation | None = run.checks.violation
    if violation is None and errors:
        violation = Violation(f"an error in the background: {errors[0]}")
    return Result(
        violation=None if violation is None else str(violation),
        log=tuple(run.world.log),
        seconds=run.world.seconds(),
        num_calls=run.num_calls,
    )


def play_seed(seed: int) -> Result:
    gc.collect()
    return play(schedules.draw(seed))
