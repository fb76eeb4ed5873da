"""One run: bring up, replay, wait for the last job, and what the simulator says of the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import localcluster
import spot_trainer
from demo.jobs import Jobs
from demo.lab import Lab
from localcluster import CapacityType, Cluster, ClusterConfig, NodeSpec, Progress
from spot_operator.testing import make_spec
from trace_bench import plan
from trace_bench.plan import Job, Options
from trace_bench.predict import Measured, measure, predict
from trace_bench.recording import Stretch
from trace_bench.replay import Replay
from trace_bench.report import Row, make_row
from trace_bench.watch import Watch, of_type

GRACE_AFTER_DEADLINE_SECONDS = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    rows: list[Row]
    measured: Measured
    replay: Replay
    watch: Watch
    applied: dict[str, float]
    """When each job was applied, in seconds since the beginning of the replay."""


def bring_up(name: str) -> Lab:
    """Two machines of on-demand, none of spot, and the operator from its chart."""
    nodes = tuple(NodeSpec(f"ondemand-{letter}", CapacityType.ON_DEMAND) for letter in "ab")
    config = ClusterConfig(name=name, nodes=nodes, images=("operator",), s3=True)
    return Lab(Cluster.up(config, owned=True, progress=Progress()))


def run(lab: Lab, options: Options, stretches: Sequence[Stretch], say: Say) -> Found:
    jobs = _prepare(lab)
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {text}")

    replay = Replay(lab.cluster, stretches, seconds=options.window_seconds, seed=str(options.seed), say=tell)
    replay.prepare()
    began = time.monotonic()
    replay.begin(began)
    watch = Watch(lab.cluster, lambda: replay.now, tell)
    watch.start()
    todo = plan.jobs(options, [each.zone for each in stretches])
    applied = {}
    try:
        for job in todo:
            time.sleep(max(0.0, job.applied_after - replay.now))
            jobs.apply(plan.manifest(job, lab.s3_access))
            applied[job.name] = replay.now
        _wait(todo, applied, watch, replay)
    finally:
        replay.end()
        watch.stop()
    watch.look()
    if replay.errors:
        raise RuntimeError("; ".join(replay.errors))
    statuses = [job.get("status", {}) for job in watch.jobs.values()]
    launches = list(watch.launches.values())
    kinds = {kind: [each.bound_seconds for each in of_type(launches, kind)] for kind in ("spot", "on-demand")}
    measured = measure(statuses, kinds)
    by_zone = {each.zone: each for each in stretches}
    rows = [_row(job, by_zone[job.zone], applied[job.name], watch, measured) for job in todo]
    return Found(rows, measured, replay, watch, applied)


def _row(job: Job, stretch: Stretch, applied: float, watch: Watch, measured: Measured) -> Row:
    return make_row(job, watch.jobs[job.name], predict(job, stretch, applied, measured, make_spec()))


def _wait(todo: Sequence[Job], applied: dict[str, float], watch: Watch, replay: Replay) -> None:
    last = max(applied[job.name] + job.deadline_seconds for job in todo) + GRACE_AFTER_DEADLINE_SECONDS
    while watch.num_done() < len(todo) and replay.now < last:
        time.sleep(1.0)


def _prepare(lab: Lab) -> Jobs:
    lab.install_operator(*plan.SETTINGS)
    jobs = lab.make_namespace(plan.NAMESPACE, bucket=plan.BUCKET)
    config_map = {"metadata": {"name": plan.PROGRAM}, "data": program()}
    lab.cluster.api.create(f"/api/v1/namespaces/{plan.NAMESPACE}/configmaps", config_map)
    return jobs


def program() -> dict[str, str]:
    """The training program, and what of the library it needs."""
    folders = {
        "trace_bench": Path(__file__).parent,
        "localcluster": Path(localcluster.__file__).parent,
        "spot_trainer": Path(spot_trainer.__file__).parent,
    }
    found = {}
    for name in plan.PROGRAM_FILES:
        package, _, file = name.partition("/")
        found[name.replace("/", ".")] = (folders[package] / file).read_text()
    return found
