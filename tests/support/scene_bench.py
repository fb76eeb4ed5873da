"""Runs scenes of the demo for the end-to-end tests, several at once on one cluster.

Each scene has a namespace, a job and, where it loses nodes, machines of its own, so that
scenes do not disturb each other. A test asks for a scene's result; what went wrong in the
scene is raised in that test.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from demo.checkpoints import Answer, ask
from demo.equality import describe, loss_differences
from demo.jobs import Job, Jobs, restarts
from demo.lab import Lab
from demo.manifests import JobPlan, checkpoint_uri, make_job
from demo.recorder import Recorder
from demo.scenes import Scene, Stage
from demo.timeline import Timeline, as_text
from demo.training import Training
from localcluster import CapacityType, NodeSpec

EPOCHS = 2
TOTAL_STEPS = 58
STEP_SECONDS = 0.25
INTERVAL_SECONDS = 3
FINISH_SECONDS = 300
"""From the last disturbance to the end; on a busy machine a trainer takes 45 s until its first step."""
REFERENCE = "reference"
NUM_AT_ONCE = 4


@dataclass
class Result:
    """What a scene left behind."""

    job: Job
    training: Training
    pods: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    checkpoints: Answer | None = None
    """Comparison of the final checkpoint with the reference's."""

    @property
    def restarts(self) -> list[dict[str, Any]]:
        return restarts(self.job)

    @property
    def status(self) -> Mapping[str, Any]:
        status: Mapping[str, Any] = self.job["status"]
        return status


@dataclass
class Place:
    """Where one scene takes place."""

    lab: Lab
    name: str
    jobs: Jobs
    recorder: Recorder

    @property
    def stage(self) -> Stage:
        return Stage(self.lab, self.jobs, self.recorder, self.name)

    def plan(self, **changes: Any) -> JobPlan:
        """The job of this scene: two epochs in about a quarter of a minute, on this scene's machines."""
        values: dict[str, Any] = {
            "name": self.name,
            "epochs": EPOCHS,
            "step_seconds": STEP_SECONDS,
            "interval_seconds": INTERVAL_SECONDS,
            "spot_selector": {"scene": self.name},
            "fallback": {"policy": "SpotOnly"},
        }
        return JobPlan(**(values | changes))

    def apply(self, plan: JobPlan, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        manifest = make_job(plan, None if plan.volume else self.lab.s3_access)
        change(manifest)
        self.jobs.apply(manifest)

    def add_nodes(self, *numbers: int, graceful_shutdown: bool = False, **labels: str) -> None:
        """Spot machines that only this scene's job may use."""
        specs = [
            self.node(f"{self.name}-{number}", graceful_shutdown=graceful_shutdown, **labels)
            for number in numbers
        ]
        threads = [threading.Thread(target=self.lab.cluster.add_node, args=(spec,)) for spec in specs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def node(self, name: str, *, graceful_shutdown: bool = False, **labels: str) -> NodeSpec:
        return NodeSpec(
            name,
            CapacityType.SPOT,
            labels={"scene": self.name, **labels},
            graceful_shutdown=graceful_shutdown,
        )

    def remove_nodes(self) -> None:
        for name in self.lab.cluster.node_names():
            if name.rpartition("-")[0] == self.name:
                self.lab.cluster.remove_node(name)

    def result(self, plan: JobPlan, *, compare: bool = True, **notes: Any) -> Result:
        """Look at the finished job; compare its final checkpoint with the undisturbed run's."""
        found = Result(
            self.jobs.get(plan.name),
            self.recorder.training(plan.name),
            [pod.name for pod in self.recorder.pods.values() if pod.job == plan.name],
            notes,
        )
        if compare and not plan.volume:
            uris = (f"s3://{plan.bucket}/{REFERENCE}", checkpoint_uri(plan))
            found.checkpoints = ask(self.lab, self.jobs.namespace, "compare", *uris)
        return found


SceneFunction = Callable[[Place], Result]


class Bench:
    """Starts scenes in the background; `result` waits for one."""

    def __init__(self, lab: Lab, log: Callable[[str, str], None]) -> None:
        self.lab, self._log = lab, log
        self._pool = ThreadPoolExecutor(NUM_AT_ONCE)
        self._futures: dict[str, Future[Result]] = {}
        self.reference = self.play(REFERENCE, run_reference)

    def start(self, scenes: Mapping[str, SceneFunction]) -> None:
        for name, scene in scenes.items():
            self._futures[name] = self._pool.submit(self.play, name, scene)

    def result(self, name: str) -> Result:
        return self._futures[name].result()

    def wait_for_all(self) -> None:
        """For scenes that would disturb the others."""
        for future in self._futures.values():
            with contextlib.suppress(Exception):
                future.result()

    def play(self, name: str, scene: SceneFunction) -> Result:
        with self.place(name) as place:
            return scene(place)

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[Place]:
        """A namespace with everything that the example needs, and its recorder."""
        jobs = self.lab.make_namespace(name, volume=name.startswith("volume"))
        timeline = Timeline(time.time())
        recorder = Recorder(self.lab.streams(), name, timeline)
        recorder.start()
        place = Place(self.lab, name, jobs, recorder)
        try:
            yield place
        finally:
            self._log(name, as_text(timeline.entries(), timeline.start))
            recorder.close()
            place.remove_nodes()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def run_reference(place: Place) -> Result:
    """The undisturbed run, on on-demand, at full speed."""
    plan = place.plan(step_seconds=0.0, spot_selector={}, fallback={"policy": "OnDemandOnly"})
    place.apply(plan)
    place.jobs.wait_condition(plan.name, "Complete")
    return place.result(plan, compare=False)


def problems(result: Result, reference: Result) -> list[str]:
    """Why the run is not the undisturbed one; empty: it is, bit for bit."""
    found = []
    differences = loss_differences(reference.training.steps, result.training.steps)
    if differences:
        found.append(describe(differences))
    if result.checkpoints is not None and result.checkpoints.code != 0:
        found.append(result.checkpoints.text)
    return found


def lost_steps(training: Training, scene: Scene) -> int:
    """Steps that were done again after this scene."""
    before, after = training.lives[scene.incarnation], None
    later = [life for number, life in sorted(training.lives.items()) if number > scene.incarnation]
    after = next((life for life in later if life.first_step is not None), None)
    assert before.last_step is not None
    assert after is not None
    assert after.first_step is not None
    return before.last_step.step - after.first_step.step + 1
