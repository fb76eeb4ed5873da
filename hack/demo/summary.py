"""The arithmetic of the summary: what each interruption cost, and which promises were kept. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demo.training import Training

Restart = Mapping[str, Any]
"""One entry of status.recentRestarts."""

MAX_STOP_SECONDS = 2.0
MAX_REPLACE_SECONDS = 1.0
MAX_MEMORY_MB = 180


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """One ended incarnation, seen from both sides."""

    incarnation: int
    capacity_type: str
    node: str
    cause: str
    """The operator's verdict."""
    evidence: str
    had_notice: bool
    """The trainer was told before it ended."""
    steps_lost: int
    """Steps done again, by the trainer's own lines."""
    seconds_to_training: float | None
    """From the last step before to the first step after; None: no step came after it."""


def interruptions(restarts: Sequence[Restart], training: Training) -> list[Interruption]:
    return [_interruption(restart, training) for restart in restarts]


def _interruption(restart: Restart, training: Training) -> Interruption:
    incarnation = int(restart["incarnation"])
    life = training.lives.get(incarnation)
    return Interruption(
        incarnation=incarnation,
        capacity_type=str(restart.get("capacityType", "")),
        node=str(restart.get("nodeName", "")),
        cause=str(restart.get("cause", "")),
        evidence=str(restart.get("evidence", "")),
        had_notice=life is not None and life.notice_time is not None,
        steps_lost=steps_lost(training, incarnation),
        seconds_to_training=seconds_to_training(training, incarnation),
    )


def steps_lost(training: Training, incarnation: int) -> int:
    """Steps of this incarnation that a later one did again."""
    life = training.lives.get(incarnation)
    if life is None or life.last_step is None:
        return 0
    later = [
        found.first_step.step
        for number, found in sorted(training.lives.items())
        if number > incarnation and found.first_step is not None
    ]
    return max(0, life.last_step.step - later[0] + 1) if later else 0


def seconds_to_training(training: Training, incarnation: int) -> float | None:
    """How long the run stood still after this incarnation's last step."""
    life = training.lives.get(incarnation)
    if life is None or life.last_step is None:
        return None
    later = [
        found.first_step.time
        for number, found in sorted(training.lives.items())
        if number > incarnation and found.first_step is not None
    ]
    return round(later[0] - life.last_step.time, 2) if later else None


def interval_steps(interval_seconds: float, step_seconds: float) -> int:
    """Most steps between two publications: the interval, and the step at whose end it is seen to be over."""
    return int(interval_seconds / step_seconds) + 2 if step_seconds > 0 else 1 << 30


# --------------------------------------------------------------------------- goals


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One promise, and what was measured."""

    name: str
    value: float | None
    unit: str
    goal: str
    met: bool


def at_most(name: str, value: float | None, limit: float, unit: str) -> Measure:
    """A value that is not known meets no goal."""
    met = value is not None and value <= limit
    return Measure(name=name, value=_rounded(value), unit=unit, goal=f"at most {limit:g} {unit}", met=met)


def below(name: str, value: float | None, limit: float, unit: str) -> Measure:
    met = value is not None and value < limit
    return Measure(name=name, value=_rounded(value), unit=unit, goal=f"under {limit:g} {unit}", met=met)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def loss_measures(found: Sequence[Interruption], most_steps: int) -> list[Measure]:
    """Nothing is lost with notice, and at most one interval without."""
    noticed = [each.steps_lost for each in found if each.had_notice]
    unannounced = [each.steps_lost for each in found if not each.had_notice]
    return [
        at_most("work lost, with notice", max(noticed, default=None), 0, "steps"),
        at_most("work lost, without notice", max(unannounced, default=None), most_steps, "steps"),
    ]


# --------------------------------------------------------------------------- cost


@dataclass(frozen=True, kw_only=True)
class Cost:
    spot_node_seconds: float
    on_demand_node_seconds: float
    spent: float
    on_demand_only: float

    @property
    def saved_share(self) -> float:
        """Of what the same node time would have cost on on-demand alone."""
        return 1 - self.spent / self.on_demand_only if self.on_demand_only else 0.0


def total_cost(statuses: Sequence[Mapping[str, Any]]) -> Cost:
    """The sum over the jobs' status.cost."""
    costs = [status.get("cost", {}) for status in statuses]

    def total(key: str) -> float:
        return round(sum(float(cost.get(key, 0)) for cost in costs), 4)

    return Cost(
        spot_node_seconds=total("spotNodeSeconds"),
        on_demand_node_seconds=total("onDemandNodeSeconds"),
        spent=total("spent"),
        on_demand_only=total("onDemandOnly"),
    )


# --------------------------------------------------------------------------- the whole


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    name: str
    outcome: str
    steps: int
    incarnations: int
    capacity: str
    """Where it ended, and why."""
    interruptions: list[Interruption]
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Whether the interrupted run is the undisturbed one."""

    num_losses: int
    losses_equal: bool
    samples_equal: bool
    checkpoints: str
    """What the comparison of the final checkpoints said."""
    checkpoints_equal: bool
    problems: list[str]

    @property
    def holds(self) -> bool:
        return self.losses_equal and self.samples_equal and self.checkpoints_equal


@dataclass(frozen=True, kw_only=True)
class Summary:
    jobs: list[JobSummary]
    cost: Cost
    equality: Equality
    measures: list[Measure]
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["equality"]["holds"] = self.equality.holds
        value["cost"]["saved_share"] = round(self.cost.saved_share, 4)
        for part, job in zip(value["jobs"], self.jobs, strict=True):
            part["cost"]["saved_share"] = round(job.cost.saved_share, 4)
        return value
