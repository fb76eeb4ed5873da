"""What a soak is going to do: jobs, and disturbances drawn from a seed. Pure."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from demo.manifests import JobPlan, Manifest, make_job

NAMESPACE = "soak"
POOL = {"scene": "soak"}
SCRIPT = "counter"
FIRST_SECONDS = 15.0
"""Everything runs before anything is disturbed."""


class Deed(StrEnum):
    RECLAIM_KARPENTER = "reclaims, as Karpenter does,"
    RECLAIM_EVICT = "cordons, drains and takes away"
    POWER_OFF = "cuts the power of"
    EVICT = "evicts a pod of"
    DELETE_POD = "deletes a pod of"
    KILL_OPERATOR = "kills the operator"


WEIGHTS = {
    Deed.RECLAIM_KARPENTER: 3,
    Deed.RECLAIM_EVICT: 2,
    Deed.POWER_OFF: 2,
    Deed.EVICT: 2,
    Deed.DELETE_POD: 2,
    Deed.KILL_OPERATOR: 2,
}


@dataclass(frozen=True)
class Options:
    jobs: int = 8
    torch: int = 3
    """So many of the jobs train with the library and torch."""
    seconds: float = 360.0
    """How long all of it may take."""
    nodes: int = 4
    seed: int = 0

    @property
    def disturbed_seconds(self) -> float:
        """Afterwards only the API server goes, a few times; then everybody is left to finish."""
        return 0.28 * self.seconds

    @property
    def work_seconds(self) -> float:
        """What a job takes if nothing happens to it: longer than the disturbances."""
        return 0.3 * self.seconds

    @property
    def num_outages(self) -> int:
        return max(3, int(self.seconds // 120))


@dataclass(frozen=True)
class Disturbance:
    at: float
    deed: Deed
    choice: int
    """Which node or job, counted modulo what there is."""


def disturbances(options: Options) -> list[Disturbance]:
    rng = random.Random(options.seed)
    found, at = [], FIRST_SECONDS
    while at < options.disturbed_seconds:
        (deed,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        found.append(Disturbance(round(at, 1), deed, rng.randrange(1000)))
        at += rng.uniform(4.0, 16.0)
    return found


@dataclass(frozen=True)
class Outage:
    """The API server is away, and then there for a while."""

    away_seconds: float
    there_seconds: float


def outages(options: Options) -> list[Outage]:
    rng = random.Random(f"outages {options.seed}")
    return [
        Outage(round(rng.uniform(1.0, 9.0), 1), round(rng.uniform(4.0, 12.0), 1))
        for _ in range(options.num_outages)
    ]


def torch_plan(number: int, options: Options) -> JobPlan:
    """The example; all have the same data and seed, so all end alike."""
    epochs = 2
    return JobPlan(
        name=f"torch-{number}",
        epochs=epochs,
        step_seconds=options.work_seconds / (29 * epochs),
        interval_seconds=5,
        spot_selector=POOL,
        fallback={"policy": "SpotOnly"},
        failure_limit=0,
    )


def counter_steps(options: Options) -> int:
    return int(options.work_seconds / 0.5)


def counter_job(number: int, options: Options) -> Manifest:
    """A plain container with its state on the volume."""
    name = f"counter-{number}"
    plan = JobPlan(
        name=name,
        epochs=1,
        volume=True,
        spot_selector=POOL,
        fallback={"policy": "SpotOnly"},
        failure_limit=0,
    )
    job = make_job(plan, None)
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    arguments = ["/checkpoints", str(counter_steps(options)), "0.5", "6"]
    container["command"] = ["python3", f"/app/{SCRIPT}.py", *arguments]
    volumes = job["spec"]["template"]["spec"]["volumes"]
    next(v for v in volumes if v["name"] == "app")["configMap"]["name"] = SCRIPT
    return job
