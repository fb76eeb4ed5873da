"""What a measure is, and how contenders are timed against each other.

The machine is shared and its disk varies by a factor of two within minutes, so contenders
take turns: each round runs every one of them once, every other round in reverse order. A
value is the median over the rounds; a ratio is the median of the ratios within a round, in
which both sides met the same weather. Invariant: every number comes from a clock or a
counter of this run.
"""

from __future__ import annotations

import operator
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Check = Callable[[float, float], bool]
_CHECKS: dict[str, Check] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio to a peer or, without a peer, on the value itself."""

    bound: str
    limit: float
    peer: str = ""

    def __str__(self) -> str:
        return f"{self.bound} {self.limit:g}" + (f" x {self.peer}" if self.peer else "")

    def is_met_by(self, number: float) -> bool:
        return _CHECKS[self.bound](number, self.limit)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the report; without a goal it is only told."""

    name: str
    unit: str
    value: float | None = None
    against: Mapping[str, float] = field(default_factory=dict)
    ratio: float | None = None
    """Ours over the goal's peer."""
    goal: Goal | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""
    """Why there is no value."""

    @property
    def met(self) -> bool | None:
        """None: there is no goal, or nothing was measured."""
        number = self.ratio if self.goal and self.goal.peer else self.value
        return None if self.goal is None or number is None else self.goal.is_met_by(number)

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "against": {peer: _rounded(value) for peer, value in self.against.items()},
            "ratio": _rounded(self.ratio),
            "goal": None if self.goal is None else str(self.goal),
            "met": self.met,
        }
        if self.details:
            body["details"] = dict(self.details)
        return body | ({"skipped": self.skipped} if self.skipped else {})


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def as_table(measures: Sequence[Measure]) -> str:
    """For the terminal: a line for each measure, and its peers below it."""
    lines = []
    for each in measures:
        value = each.skipped or ("" if each.value is None else f"{each.value:.4g} {each.unit}")
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}x"
        goal = "" if each.goal is None else str(each.goal)
        verdict = {True: "met", False: "MISSED", None: ""}[each.met]
        lines.append(f"{each.name:<62} {value:>14} {ratio:>8}  {goal:<34} {verdict}".rstrip())
        lines += [f"    {peer:<58} {other:>9.4g}" for peer, other in each.against.items()]
    return "\n".join(lines)


@dataclass(frozen=True)
class Cost:
    """Of one run of a contender."""

    seconds: float
    cpu_seconds: float
    """Of all threads of this process."""


@dataclass(frozen=True)
class Contender:
    """Something to time; `before` and `after` are not counted."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


class Timings:
    """Costs of several contenders, round by round."""

    def __init__(self, costs: Mapping[str, Sequence[Cost]]) -> None:
        self._costs = costs

    def __iter__(self) -> Iterator[str]:
        return iter(self._costs)

    def seconds(self, name: str) -> float:
        return statistics.median(cost.seconds for cost in self._costs[name])

    def cpu_seconds(self, name: str) -> float:
        return statistics.median(cost.cpu_seconds for cost in self._costs[name])

    def seconds_ratio(self, name: str, peer: str) -> float:
        """How many times as long as the peer; above 1 is slower."""
        pairs = zip(self._costs[name], self._costs[peer], strict=True)
        return statistics.median(own.seconds / other.seconds for own, other in pairs)

    def rates(self, num_bytes: int) -> dict[str, float]:
        """GB/s of each contender."""
        return {name: num_bytes / self.seconds(name) / 1e9 for name in self._costs}


def take_turns(title: str, contenders: Sequence[Contender], *, rounds: int) -> Timings:
    """Time everyone once per round, after one round that is not counted."""
    costs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            contender.before()
            cost = _timed(contender.run)
            contender.after()
            if number:
                costs[contender.name].append(cost)
        say(f"{title}: " + ("warmed up" if number == 0 else f"round {number} of {rounds}"))
    return Timings(costs)


def _timed(run: Callable[[], object]) -> Cost:
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    run()
    return Cost(time.perf_counter() - began, _cpu_seconds() - cpu_began)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


_STARTED = time.monotonic()


def say(line: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {line}", flush=True)


def rate_measures(
    name: str, timings: Timings, num_bytes: int, ours: str, goals: Sequence[Goal], details: Mapping[str, Any]
) -> list[Measure]:
    """One measure per goal, ratios in GB/s; the peers without a goal stand beside the first."""
    rates = timings.rates(num_bytes)
    own = rates.pop(ours)
    with_goal = {goal.peer for goal in goals}
    return [
        Measure(
            name=f"{name} vs {goal.peer}",
            unit="GB/s",
            value=own,
            against={
                peer: rate
                for peer, rate in rates.items()
                if peer == goal.peer or (number == 0 and peer not in with_goal)
            },
            ratio=1 / timings.seconds_ratio(ours, goal.peer),
            goal=goal,
            details=details if number == 0 else {},
        )
        for number, goal in enumerate(goals)
    ]
