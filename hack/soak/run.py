"""A soak: bring up, disturb, let finish, compare.

Invariant: the only verdict on the product is what a user could check: every job is Complete, no
failure was charged, and every result is that of a run that was never disturbed.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.checkpoints import ask, verdict_line
from demo.jobs import DemoError, Jobs, current_node, is_done, is_true, restarts
from demo.lab import Lab
from demo.manifests import CLAIM, JobPlan, checkpoint_uri, make_job
from localcluster import CapacityType, NodeSpec, ReclaimStyle
from localcluster.api import ApiError
from localcluster.supervision import FABRIC
from soak import counter, plan
from soak.plan import NAMESPACE, Deed, Disturbance, Options, Outage

NOTICE_SECONDS = 30.0
REFERENCE = "torch-reference"
TICK_SECONDS = 15.0


@dataclass
class Row:
    """What became of one job."""

    job: str
    phase: str
    incarnations: int
    causes: dict[str, int] = field(default_factory=dict)
    charged: int = 0
    lost_steps: int = 0
    result: str = ""

    @property
    def is_good(self) -> bool:
        return self.phase == "Complete" and self.charged == 0 and self.result == "EQUAL"

    def __str__(self) -> str:
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.causes.items())) or "none"
        return (
            f"{self.job:<12} {self.phase:<10} {self.incarnations:>3} incarnations   {self.charged} charged   "
            f"{self.lost_steps:>3} steps repeated   {self.result:<10} restarts: {causes}"
        )


class Soak:
    def __init__(self, lab: Lab, options: Options, say: Callable[[str], None]) -> None:
        self.lab, self.options, self._say = lab, options, say
        self.jobs: Jobs = lab.make_namespace(NAMESPACE, volume=True)
        self._torch: list[JobPlan] = [plan.torch_plan(n, options) for n in range(options.torch)]
        self._counters = [f"counter-{n}" for n in range(options.jobs - options.torch)]
        self._began = time.monotonic()
        self._coming_back: dict[int, threading.Thread] = {}
        """By number of the node: who starts its next machine."""
        self.running_at_outages: list[int] = []
        """How many jobs were not done when the API server went."""

    @property
    def names(self) -> list[str]:
        return [each.name for each in self._torch] + self._counters

    def run(self) -> list[Row]:
        """The rows of the final table; raises DemoError if a job does not end in time."""
        self._prepare()
        self._began = time.monotonic()
        ticks = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(ticks,), daemon=True)
        ticker.start()
        try:
            for each in plan.disturbances(self.options):
                time.sleep(max(0.0, each.at - (time.monotonic() - self._began)))
                self._disturb(each)
            for thread in self._coming_back.values():
                thread.join()
            for outage in plan.outages(self.options):
                self._restart_api_server(outage)
            self.say("nothing more is disturbed")
            for name in self.names:
                self._finish(name)
        finally:
            ticks.set()
            ticker.join()
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._row, self.names))

    def say(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    # ------------------------------------------------------------------ before

    def _prepare(self) -> None:
        script = {plan.SCRIPT + ".py": Path(counter.__file__).read_text()}
        config_map = {"metadata": {"name": plan.SCRIPT}, "data": script}
        self.lab.cluster.api.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", config_map)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._add_node, range(self.options.nodes)))
        if self._torch:
            reference = JobPlan(name=REFERENCE, epochs=2, fallback={"policy": "OnDemandOnly"})
            self.jobs.apply(make_job(reference, self.lab.s3_access))
            self.jobs.wait_condition(REFERENCE, "Complete", timeout_seconds=120)
        manifests = [make_job(each, self.lab.s3_access) for each in self._torch]
        manifests += [plan.counter_job(n, self.options) for n in range(len(self._counters))]
        self.jobs.apply(*manifests)

    def _node(self, number: int) -> str:
        return f"soak-{number}"

    def _add_node(self, number: int) -> None:
        self.lab.cluster.add_node(NodeSpec(self._node(number), CapacityType.SPOT, labels=plan.POOL))

    # ------------------------------------------------------------------ meanwhile

    def _disturb(self, it: Disturbance) -> None:
        with contextlib.suppress(ApiError):  # what it was meant for has gone by itself
            match it.deed:
                case Deed.KILL_OPERATOR:
                    self.say(it.deed)
                    with contextlib.suppress(DemoError, ProcessLookupError):
                        self.lab.kill_program(self.lab.operator_pod())
                case Deed.EVICT | Deed.DELETE_POD:
                    self._disturb_pod(it)
                case _:
                    self._disturb_node(it)

    def _disturb_pod(self, it: Disturbance) -> None:
        name = self.names[it.choice % len(self.names)]
        pods = [p for p in self.jobs.pods(name) if p["status"].get("phase") == "Running"]
        if not pods:
            return
        pod = pods[-1]["metadata"]["name"]
        self.say(f"{it.deed} {name}")
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}"
        if it.deed is Deed.DELETE_POD:
            self.lab.cluster.api.delete(path)
        else:
            body = {"metadata": {"name": pod, "namespace": NAMESPACE}}
            self.lab.cluster.api.create(f"{path}/eviction", body)

    def _disturb_node(self, it: Disturbance) -> None:
        number = it.choice % self.options.nodes
        node = self._node(number)
        coming = self._coming_back.get(number)
        if node not in self.lab.cluster.node_names() or (coming is not None and coming.is_alive()):
            return
        on_it = [name for name in self.names if current_node(self.jobs.get(name)) == node]
        self.say(f"{it.deed} {node} ({', '.join(on_it) or 'nobody there'})")
        cluster = self.lab.cluster
        if it.deed is Deed.POWER_OFF:
            cluster.kill_node(node, delete_node_after_seconds=1.0)
        else:
            is_karpenter = it.deed is Deed.RECLAIM_KARPENTER
            style = ReclaimStyle.KARPENTER if is_karpenter else ReclaimStyle.CORDON_EVICT
            cluster.reclaim(node, style=style, notice_seconds=NOTICE_SECONDS)
        thread = threading.Thread(target=self._add_node, args=(number,))
        thread.start()
        self._coming_back[number] = thread

    def _restart_api_server(self, outage: Outage) -> None:
        """Kill it, and start it again a while later on the same data."""
        cluster = self.lab.cluster
        running = sum(not is_done(self.jobs.get(name)) for name in self.names)
        self.running_at_outages.append(running)
        self.say(f"kills the API server for {outage.away_seconds} s ({running} jobs running)")
        cluster.stop_program(FABRIC, "kube-apiserver")
        time.sleep(outage.away_seconds)
        cluster.start_program(FABRIC, "kube-apiserver")
        cluster.wait_for(cluster.api.is_ready, what="the API server")
        self.say("the API server is back")
        time.sleep(outage.there_seconds)

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(TICK_SECONDS):
            with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
                found = [self.jobs.get(name).get("status", {}) for name in self.names]
                phases = [str(status.get("phase", "new")) for status in found]
                counted = {phase: phases.count(phase) for phase in sorted(set(phases))}
                self.say("jobs: " + ", ".join(f"{count} {phase}" for phase, count in counted.items()))

    # ------------------------------------------------------------------ after

    def _finish(self, name: str) -> None:
        left = self.options.seconds - (time.monotonic() - self._began)
        self.jobs.wait(name, is_done, what="the end", timeout_seconds=max(10.0, left))

    def _row(self, name: str) -> Row:
        job: Any = self.jobs.get(name)
        found = restarts(job)
        causes = [each["cause"] for each in found]
        return Row(
            name,
            "Complete" if is_true(job, "Complete") else str(job["status"].get("phase")),
            int(job["status"].get("incarnation", 0)),
            {cause: causes.count(cause) for cause in set(causes)},
            sum(1 for each in found if each["charged"]),
            sum(each.get("lostSteps", 0) for each in found),
            self._compare(name),
        )

    def _compare(self, name: str) -> str:
        ours = next((each for each in self._torch if each.name == name), None)
        if ours is not None:
            reference = JobPlan(name=REFERENCE, epochs=2)
            answer = ask(self.lab, NAMESPACE, "compare", checkpoint_uri(reference), checkpoint_uri(ours))
            return "EQUAL" if answer.code == 0 else verdict_line(answer.text)
        volume = self.lab.cluster.paths.volumes / NAMESPACE / CLAIM
        state = json.loads((volume / name / "state.json").read_text())
        expected = counter.chain(plan.counter_steps(self.options))
        return "EQUAL" if state["state"] == expected else f"DIFFERENT at step {state['step']}"
