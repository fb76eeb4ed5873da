"""The policy `Auto` behind the referee's interface: one object per job, `decide(observation)`.

Only translates, and measures what the operator measures: how long launches took, how long on-demand was
refused, on how many interruptions the last checkpoint landed. Of the market it sees what a job sees.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))

from spot_operator.policy import (
    TUNING,
    Action,
    Launches,
    Notices,
    Running,
    Situation,
    Tuning,
    choose,
)

_RUNNING = {"spot": Running.SPOT, "on-demand": Running.ON_DEMAND, "idle": Running.NOTHING}
_WORDS = {Action.SPOT: "spot", Action.ON_DEMAND: "on-demand", Action.WAIT: "idle"}

ROUNDING_SECONDS = 1.0
MEASURED_SECONDS = 1800.0


class Policy:
    tuning: Tuning = TUNING
    reserve_seconds: float = 0.0
    """What an operator's settings keep for on-demand that comes late; 0: it learns by itself."""
    unmeasured_factor: float = 1.0
    """By how much the told duration is mistrusted until half an hour of work was measured."""

    def __init__(self) -> None:
        self._launches = Launches()
        self._notices = Notices()
        self._refused_seconds = 0.0
        """The longest time that on-demand was refused in a row."""
        self._refused_now = 0.0
        self._step: float | None = None
        self._asked: str | None = None
        self._last: Any = None

    def decide(self, seen: Any) -> str:
        if self._step is None:
            self._step = seen.step_s
        if self._last is not None:
            self._learn(seen)
        factor = self.unmeasured_factor if seen.work_live_s < MEASURED_SECONDS else 1.0
        choice = choose(
            Situation(
                time_left=seen.deadline_s - seen.now_s,
                work_left=factor * seen.work_total_s - seen.work_done_s,
                at_risk=seen.work_live_s - seen.work_done_s,
                running=_RUNNING[seen.current],
                startup_left=seen.startup_left_s,
                spot_available=seen.spot_available,
                spot_age=seen.now_s - seen.history[-1][0],
                launch_seconds=self._launches.mean_seconds(seen.restart_overhead_s),
                on_demand_seconds=self._launches.high_seconds(seen.restart_overhead_s) + self._reserve(),
                reaction_seconds=self._step,
                checkpoint_interval=seen.checkpoint_interval_s,
                notice_reliability=self._notices.reliability(),
                spot_price=seen.price_spot,
                on_demand_price=seen.price_on_demand,
            ),
            self.tuning,
        )
        self._asked = _WORDS[choice.action]
        self._last = seen
        return self._asked

    def _reserve(self) -> float:
        """On-demand is asked for once a step: half of one is lost on average, or what was lost before."""
        assert self._step is not None
        return max(self._step / 2, self._refused_seconds, self.reserve_seconds)

    def _learn(self, seen: Any) -> None:
        last, asked = self._last, self._asked
        if asked == "on-demand" and last.current != "on-demand" and seen.current != "on-demand":
            self._refused_now += seen.now_s - last.now_s
            self._refused_seconds = max(self._refused_seconds, self._refused_now)
        else:
            self._refused_now = 0.0
        if asked != "idle" and asked != last.current and asked == seen.current:
            self._launches = self._launches.and_one(self._launch_seconds(seen))
        if seen.preempted and asked == last.current == "spot":
            worked = seen.now_s - last.now_s - last.startup_left_s
            expected = last.work_live_s + max(0.0, worked)
            if expected > last.work_done_s + ROUNDING_SECONDS:
                landed = seen.work_live_s >= expected - ROUNDING_SECONDS
                self._notices = self._notices.and_one(landed=landed)

    def _launch_seconds(self, seen: Any) -> float:
        passed: float = seen.now_s - self._last.now_s
        if seen.startup_left_s > 0:
            seconds = passed + seen.startup_left_s
        else:
            seconds = passed - (seen.work_live_s - self._last.work_live_s)
        told: float = seen.restart_overhead_s
        return told if abs(seconds - told) < ROUNDING_SECONDS else seconds
