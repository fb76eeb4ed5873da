"""The ways in which a run is disturbed, one function each; driven by what is observed, never by sleeping.

Nodes are lost at node level, through the local cluster. Invariant: no scene deletes a pod
and none talks to the operator, except as a user would, through the job's spec.
"""

import time
from dataclasses import dataclass, field

from demo.jobs import DemoError, Jobs, current_node, has_running_container, is_done, is_true
from demo.lab import Lab
from demo.plan import ON_DEMAND_NODE
from demo.recorder import Recorder
from demo.training import Training
from localcluster import NodeSpec, ReclaimRecord, ReclaimStyle

NOTICE_SECONDS = 120
SILENT_SECONDS = 60
"""Longer than the node monitor's grace period, so that a node without power is seen to be silent."""


@dataclass
class Scene:
    """What was done, to what, when."""

    kind: str
    job: str
    incarnation: int
    """The incarnation that was disturbed."""
    began: float
    node: str = ""
    details: dict[str, float] = field(default_factory=dict)
    """Times of single steps, in seconds since the epoch."""


class Stage:
    """One job, and the hands that disturb it."""

    def __init__(self, lab: Lab, jobs: Jobs, recorder: Recorder, job: str) -> None:
        self.lab, self.jobs, self.recorder, self.job = lab, jobs, recorder, job

    @property
    def training(self) -> Training:
        return self.recorder.training(self.job)

    def node_to_lose(self) -> str:
        """Where the job runs now. Raises DemoError where nobody else could go on without that node."""
        node = self.node()
        if node == ON_DEMAND_NODE:
            raise DemoError(
                f"{self.job} runs on {node} by now, as the operator does: it will not be taken away"
            )
        return node

    def wait_for_step(self, step: int, *, after_incarnation: int = 0, timeout_seconds: float = 240) -> None:
        """Until that step is done, by an incarnation later than the one given."""
        what = f"step {step}" + (f" after incarnation {after_incarnation}" if after_incarnation else "")
        self.recorder.wait(
            self.job,
            lambda t: t.incarnation > after_incarnation and t.last_step >= step and _is_stepping(t),
            what=what,
            timeout_seconds=timeout_seconds,
        )

    def wait_until_exposed(self, num_steps: int, *, timeout_seconds: float = 120) -> None:
        """Until steps have been done that no checkpoint holds, so that a loss without notice costs some."""
        self.recorder.wait(
            self.job,
            lambda t: t.durable_step > 0 and t.last_step - t.durable_step >= num_steps,
            what=f"{num_steps} steps beyond a checkpoint",
            timeout_seconds=timeout_seconds,
        )

    def node(self) -> str:
        """Where the job runs now."""
        job = self.jobs.wait(self.job, lambda job: bool(current_node(job)), what="a node")
        return current_node(job)

    # ------------------------------------------------------------------ scenes

    def reclaim(
        self, style: ReclaimStyle = ReclaimStyle.KARPENTER, *, notice_seconds: float = NOTICE_SECONDS
    ) -> Scene:
        """The provider takes the node back, with notice."""
        node = self.node_to_lose()
        scene = self.scene(f"reclaim ({style.value})", node)
        how = {
            ReclaimStyle.KARPENTER: "event, deletion, taint, drain, gone",
            ReclaimStyle.CORDON_EVICT: "cordon, evict, gone",
            ReclaimStyle.GKE: "the kubelet ends its pods, the Node stays",
            ReclaimStyle.AKS: "conditions, no drain, gone",
        }[style]
        self.note(f"reclaims {node} with notice: {how}")
        record = self.lab.cluster.reclaim(node, style=style, notice_seconds=notice_seconds)
        scene.details |= _times(record)
        return scene

    def kill_node(self) -> Scene:
        """Power off without notice; the cloud's node controller removes the Node once it is silent."""
        node = self.node_to_lose()
        scene = self.scene("hard kill", node)
        self.note(f"cuts the power of {node}, without notice")
        self.lab.cluster.kill_node(node)
        self.lab.cluster.wait_for(
            lambda: is_silent(self.lab, node), timeout_seconds=SILENT_SECONDS, what=f"{node} Ready=Unknown"
        )
        scene.details["silent"] = time.time()
        self.note(f"removes the Node {node}, as a cloud's node controller does when the machine is gone")
        self.lab.cluster.remove_node(node)
        scene.details["node object removed"] = time.time()
        return scene

    def crash(self) -> Scene:
        """The program dies by itself; pod and node stay."""
        scene = self.scene("crash", self.node())
        pod = self.jobs.pods(self.job)[-1]
        self.note("kill -9 of the training process in its container")
        self.lab.kill_program(pod)
        return scene

    def suspend(self) -> Scene:
        """spec.suspend: true, until the operator says Suspended."""
        scene = self.scene("suspend", self.node())
        self.note("sets spec.suspend to true")
        self.jobs.patch(self.job, {"spec": {"suspend": True}})
        self.jobs.wait_condition(self.job, "Suspended")
        scene.details["suspended"] = time.time()
        return scene

    def resume(self, scene: Scene) -> None:
        """spec.suspend: false."""
        if any(map(has_running_container, self.jobs.pods(self.job))):
            raise DemoError(f"job {self.job} is Suspended and a container of it still runs")
        self.note("sets spec.suspend to false")
        scene.details["resumed"] = time.time()
        self.jobs.patch(self.job, {"spec": {"suspend": False}})

    def bring_back(self, node: str, **labels: str) -> None:
        """The pool's provisioner starts a new machine of the same name: a new Node, with a new UID."""
        self.lab.cluster.add_node(NodeSpec(node, labels=labels))

    def finish(self, timeout_seconds: float) -> None:
        """Until the job is Complete; anything else is an error."""
        job = self.jobs.wait(self.job, is_done, what="the end", timeout_seconds=timeout_seconds)
        if not is_true(job, "Complete"):
            raise DemoError(f"job {self.job} failed\n{self.jobs.describe(self.job)}")

    def scene(self, kind: str, node: str) -> Scene:
        return Scene(kind, self.job, self.training.incarnation, time.time(), node)

    def note(self, text: str) -> None:
        self.recorder.note(text, job=self.job)


def is_silent(lab: Lab, node: str) -> bool:
    """Whether the control plane has noticed that the node says nothing any more."""
    found = lab.cluster.api.get(f"/api/v1/nodes/{node}")
    return any(c["type"] == "Ready" and c["status"] == "Unknown" for c in found["status"]["conditions"])


def _is_stepping(training: Training) -> bool:
    life = training.lives.get(training.incarnation)
    return life is not None and life.first_step is not None


def _times(record: ReclaimRecord) -> dict[str, float]:
    return {step.name: step.at.timestamp() for step in record.steps}
