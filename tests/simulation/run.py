"""One schedule from its beginning to its end: the world, the operators, the disturbances, the checks."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass

from simulation import schedule as schedules
from simulation.checks import Checks, Violation
from simulation.disturb import Disturber
from simulation.loop import Stuck, VirtualLoop
from simulation.operator import SLOWEST_SECONDS, OperatorProcess, Weather
from simulation.promises import Promises
from simulation.schedule import Disturbance, Schedule
from simulation.world import World
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
        self.weather = Weather(self.world.rng, schedule.lagging)
        self.checks = Checks(self.world)
        self.operators: dict[int, OperatorProcess] = {}
        self.num_calls = 0
        self.promises = Promises(self.world, self.checks.fail, self._is_calm, self._is_alive)
        self.world.report_to = self._report
        self.world.complain = self.checks.fail
        self._disturber = Disturber(self.world, self.weather, self.operators, self._leader)

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
            and not weather.lagging
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
        answer = core.reconciler.answer(pod)
        if answer is None:
            return None
        body = parse_progress(report.to_json())
        urgent = core.reports.accept(pod, pod_uid, body, self.world.now())
        core.queue.wake(pod.key, 0.0 if urgent else 10.0)
        return parse_directives(answer)

    async def _disturb_at(self, disturbance: Disturbance) -> None:
        await asyncio.sleep(disturbance.at)
        self.world.say(f"--- {disturbance.kind} ({disturbance.number}), job {disturbance.job}")
        await self._disturber.disturb(disturbance)


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
    # What an earlier run has left must not end within this one; modules are not looked through each time.
    gc.collect()
    gc.freeze()
    return play(schedules.draw(seed))
