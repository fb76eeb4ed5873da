"""The demo as it is told: three jobs, five scenes, one comparison.

Invariant: every scene waits for what the trainer or the operator says; how fast the machine
is changes how long the demo takes and nothing else.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from demo import plan
from demo.jobs import DemoError, Jobs, is_true
from demo.lab import Lab
from demo.manifests import JobPlan, make_job
from demo.plan import ACT, Options
from demo.recorder import Recorder
from demo.scenes import Scene, Stage
from demo.screen import Screen
from localcluster import ReclaimStyle

MAIN_SECONDS = 420.0


@dataclass
class Story:
    """The jobs of the demo and what was done to them."""

    lab: Lab
    jobs: Jobs
    recorder: Recorder
    screen: Screen
    options: Options
    scenes: list[Scene] = field(default_factory=list)
    helpers: list["Background"] = field(default_factory=list)

    def tell(self) -> None:
        """Run everything to its end; raises DemoError where the product does not keep its word."""
        reference, main = plan.reference_job(self.options), plan.main_job(self.options)
        self._focus(main)
        self._apply(reference)
        self._wait_complete(reference.name, 120)
        self._apply(main)
        self._interrupt_main(Stage(self.lab, self.jobs, self.recorder, main.name))
        self._check_fallback(main.name, "AfterInterruptions")
        self._run_deadline_job(plan.deadline_job(self.options))
        for helper in self.helpers:
            helper.join()

    def _interrupt_main(self, stage: Stage) -> None:
        stage.wait_for_step(ACT.step(ACT.reclaim))
        first = self._remember(stage.reclaim(ReclaimStyle.KARPENTER))
        self._later(lambda: stage.bring_back(first.node))

        stage.wait_for_step(ACT.step(ACT.hard_kill), after_incarnation=first.incarnation)
        stage.wait_until_exposed(plan.EXPOSED_STEPS)
        second = self._remember(stage.kill_node())
        self._later(lambda: stage.bring_back(second.node))

        stage.wait_for_step(ACT.step(ACT.crash), after_incarnation=second.incarnation)
        stage.wait_until_exposed(plan.EXPOSED_STEPS)
        third = self._remember(stage.crash())

        stage.wait_for_step(ACT.step(ACT.suspend), after_incarnation=third.incarnation)
        fourth = self._remember(stage.suspend())
        stage.resume(fourth)

        stage.wait_for_step(ACT.step(ACT.last_reclaim), after_incarnation=fourth.incarnation)
        self._remember(stage.reclaim(ReclaimStyle.CORDON_EVICT))
        stage.finish(MAIN_SECONDS)

    def _run_deadline_job(self, job: JobPlan) -> None:
        """Spot capacity vanishes altogether, and the run must still be done in time."""
        self._focus(job)
        self._apply(job)
        stage = Stage(self.lab, self.jobs, self.recorder, job.name)
        stage.wait_for_step(job.epochs * plan.STEPS_PER_EPOCH // 4)
        idle = [name for name in plan.SPOT_NODES if name != stage.node() and self._is_up(name)]
        self.recorder.note("the spot market dries up: every spot node goes", job=job.name)
        for name in idle:
            self._later(lambda name=name: self.lab.cluster.remove_node(name))  # type: ignore[misc]
        for helper in self.helpers:
            helper.join()
        self._remember(stage.reclaim(ReclaimStyle.KARPENTER))
        stage.finish(plan.DEADLINE_SECONDS)
        self._check_fallback(job.name, "DeadlineNear")

    def _is_up(self, node: str) -> bool:
        return node in self.lab.cluster.node_names()

    def _check_fallback(self, name: str, reason: str) -> None:
        capacity = self.jobs.get(name)["status"]["capacity"]
        if (capacity["type"], capacity["reason"]) != ("on-demand", reason):
            raise DemoError(f"job {name} should have ended on on-demand because of {reason}, not {capacity}")

    def _apply(self, job: JobPlan) -> None:
        self.recorder.note(f"kubectl apply: job {job.name}", job=job.name)
        self.jobs.apply(make_job(job, None if job.volume else self.lab.s3_access))

    def _wait_complete(self, name: str, seconds: float) -> None:
        self.jobs.wait(name, lambda job: is_true(job, "Complete"), what="the end", timeout_seconds=seconds)

    def _focus(self, job: JobPlan) -> None:
        self.screen.focus, self.screen.total_steps = job.name, job.epochs * plan.STEPS_PER_EPOCH

    def _remember(self, scene: Scene) -> Scene:
        self.scenes.append(scene)
        return scene

    def _later(self, action: Callable[[], None]) -> None:
        self.helpers.append(Background(action))


class Background:
    """Something that is done beside the story; `join` raises what it raised."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action, self._error = action, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001  it belongs to the one who waits for it
            self._error = error  # type: ignore[assignment]

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
