"""What the simulator says of the jobs that ran, on their market, with the overheads of that run. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spot_operator.decide.auto import REACTION_SECONDS
from spot_operator.market import Outcome, Overheads, Policy, Scenario, decider, play
from spot_operator.model import JobSpec, PolicySettings
from trace_bench import plan
from trace_bench.recording import Stretch

NUM_DRAWS = 200
"""Of startups and notices for each job; its cost is their mean."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the run has shown, over all jobs."""

    spot_seconds: float
    """A launch, from the intent to useful work, as the jobs' status has it."""
    on_demand_seconds: float
    num_spot: int
    num_on_demand: int
    spread: float
    save_seconds: float
    notice_reliability: float
    num_notices: int

    @property
    def overheads(self) -> Overheads:
        """The parts do not matter, only what a launch takes on each kind."""
        return Overheads(
            detect=0.0,
            provision_spot=self.spot_seconds,
            provision_on_demand=self.on_demand_seconds,
            pull=0.0,
            restore=0.0,
            spread=self.spread,
        )


def measure(statuses: Sequence[Mapping[str, Any]], launches: Mapping[str, Sequence[float]]) -> Measured:
    """`launches`: single ones by capacity type, for how they spread; everything else is in the statuses."""
    spot, num_spot = _mean_launch(statuses, "spot")
    on_demand, num_on_demand = _mean_launch(statuses, "onDemand")
    notices = [status.get("notices", {}) for status in statuses]
    seen = sum(each.get("seen", 0) for each in notices)
    landed = sum(each.get("landed", 0) for each in notices)
    saves = [each["saveSeconds"] for s in statuses if "saveSeconds" in (each := s.get("checkpoint", {}))]
    return Measured(
        spot_seconds=spot,
        on_demand_seconds=on_demand,
        num_spot=num_spot,
        num_on_demand=num_on_demand,
        spread=_spread(launches),
        save_seconds=statistics.fmean(saves) if saves else 0.0,
        notice_reliability=landed / seen if seen else 1.0,
        num_notices=seen,
    )


def _mean_launch(statuses: Sequence[Mapping[str, Any]], kind: str) -> tuple[float, int]:
    found = [status.get("overheads", {}).get(kind, {}) for status in statuses]
    count = sum(each.get("count", 0) for each in found)
    total = sum(each.get("totalSeconds", 0.0) for each in found)
    return (total / count if count else float(plan.LAUNCH_SECONDS)), count


def _spread(launches: Mapping[str, Sequence[float]]) -> float:
    """Of the logarithms, around the mean of each kind."""
    deviations = []
    for values in launches.values():
        logs = [math.log(max(value, 0.5)) for value in values]
        if len(logs) > 1:
            middle = statistics.fmean(logs)
            deviations += [(each - middle) ** 2 for each in logs]
    return math.sqrt(statistics.fmean(deviations)) if deviations else 0.3


@dataclass(frozen=True, kw_only=True)
class Prediction:
    cost: float
    late: int
    """Of the draws."""
    interruptions: float
    on_demand_share: float
    finish_seconds: float


def scenario(job: plan.Job, measured: Measured) -> Scenario:
    return Scenario(
        work_seconds=job.work_seconds,
        deadline_seconds=float(job.deadline_seconds),
        overheads=measured.overheads,
        checkpoint_interval=float(plan.INTERVAL_SECONDS),
        checkpoint_seconds=measured.save_seconds,
        checkpoint_stall=0.0,
        notice_reliability=measured.notice_reliability,
        reaction_seconds=REACTION_SECONDS,
        spot_price=plan.SPOT_PRICE,
        on_demand_price=plan.ON_DEMAND_PRICE,
        limit_seconds=10 * job.work_seconds,
    )


def predict(
    job: plan.Job, stretch: Stretch, applied_after: float, measured: Measured, spec: JobSpec
) -> Prediction:
    circumstances = scenario(job, measured)
    outcomes: list[Outcome] = []
    for number in range(NUM_DRAWS):
        decide = decider(Policy.AUTO, spec, circumstances, PolicySettings())
        offset = stretch.offset + applied_after
        outcomes.append(
            play(circumstances, stretch.market, offset=offset, decide=decide, seed=f"{job.name}/{number}")
        )
    paid = [each.spot_seconds + each.on_demand_seconds for each in outcomes]
    return Prediction(
        cost=statistics.fmean(each.cost for each in outcomes),
        late=sum(not each.on_time for each in outcomes),
        interruptions=statistics.fmean(each.interruptions for each in outcomes),
        on_demand_share=statistics.fmean(
            each.on_demand_seconds / seconds for each, seconds in zip(outcomes, paid, strict=True)
        ),
        finish_seconds=statistics.fmean(each.finish_seconds or math.inf for each in outcomes),
    )
