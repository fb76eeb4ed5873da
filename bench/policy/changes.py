"""What published simulators leave out, done to the referee's cases and to what policies are told.

The referee draws per step, independent of the policy, whether on-demand is refused and how much longer than
told a start takes. Other draws make other worlds; its accounting stays as it is.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from referee_policy import MEASURED_SECONDS

SHORTEST_SECONDS, LONGEST_SECONDS = 300.0, 3600.0
TAIL_INDEX, LONGEST_TAIL = 1.5, 20.0


def late_on_demand(case: Any) -> Any:
    """On-demand nodes come only every 5 to 60 minutes; with `od_refuse` 0.5 all else is refused."""
    draws = _draws(case, "late")
    refused: list[float] = []
    while len(refused) <= case.n:
        steps = round(draws.uniform(SHORTEST_SECONDS, LONGEST_SECONDS) / case.step)
        refused += [0.0] * max(0, steps - 1) + [1.0]
    changed = copy.copy(case)
    changed.rnd_od = refused[: case.n + 1]
    return changed


def heavy_tails(case: Any) -> Any:
    """With `jitter` 1 a start takes d times a Pareto draw: mean 3 d, one in a hundred over 20 d."""
    draws = _draws(case, "tails")
    changed = copy.copy(case)
    changed.rnd_over = [min(draws.paretovariate(TAIL_INDEX) - 1, LONGEST_TAIL) for _ in range(case.n + 1)]
    return changed


CHANGES: Mapping[str, Callable[[Any], Any]] = {"late on-demand": late_on_demand, "heavy tails": heavy_tails}


@dataclass(frozen=True)
class WronglyTold:
    """A policy whose job was said to take `factor` times as long, until half an hour of work was measured."""

    policy: Any
    factor: float

    def decide(self, seen: Any) -> str:
        if seen.work_live_s < MEASURED_SECONDS:
            total = max(seen.work_total_s * self.factor, seen.work_live_s + 1.0)
            seen = replace(seen, work_total_s=total)
        answer: str = self.policy.decide(seen)
        return answer


@dataclass(frozen=True)
class Told:
    """Wraps policies; its `repr` says how."""

    factor: float

    def __call__(self, policy: Any) -> WronglyTold:
        return WronglyTold(policy, self.factor)


def _draws(case: Any, purpose: str) -> random.Random:
    return random.Random(f"{purpose}|{case.trace.id}|{case.first}|{case.cell}")
