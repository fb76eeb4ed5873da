"""The simulator against an independent one, on recorded markets: the same policy must cost the same."""

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from spot_operator.market import MarketView, Move, Overheads, Scenario, market_from_trace, play
from spot_operator.policy import Action, Running

TRACES = next(
    (
        parent / "shared/traces"
        for parent in Path(__file__).resolve().parents[2].parents[:2]
        if (parent / "shared/traces/referee.py").is_file()
    ),
    None,
)
"""Beside the repository; from a worktree, beside the folder above."""
WORDS = {"spot": Action.SPOT, "on-demand": Action.ON_DEMAND, "idle": Action.WAIT}
CURRENT = {Running.SPOT: "spot", Running.ON_DEMAND: "on-demand", Running.NOTHING: "idle"}


@pytest.fixture(scope="module")
def referee() -> ModuleType:
    if TRACES is None:
        pytest.skip("the recorded markets (../shared/traces) are not here")
    pytest.importorskip("numpy")
    spec = importlib.util.spec_from_file_location("referee", TRACES / "referee.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["referee"] = module
    spec.loader.exec_module(module)
    return module


def careful(*, spot: bool, current: str, left: float, need: float) -> str:
    """Spot while it can be lost once more and still be made up for; the plainest safe policy."""
    if current != "spot" and left <= need:
        return "on-demand"
    if spot:
        return "spot"
    return current if current == "on-demand" else "idle"


class Theirs:
    def decide(self, seen: Any) -> str:
        need = seen.work_total_s - seen.work_done_s
        need += 2 * seen.restart_overhead_s + seen.checkpoint_interval_s + 2 * 195
        left = seen.deadline_s - seen.now_s
        return careful(spot=seen.spot_available, current=seen.current, left=left, need=need)


def ours(*, overhead: float, interval: float, step: float) -> Callable[[MarketView], Move]:
    def decide(view: MarketView) -> Move:
        need = view.work_total - view.work_durable + 2 * overhead + interval + 2 * step
        word = careful(
            spot=view.spot_available, current=CURRENT[view.running], left=view.deadline - view.now, need=need
        )
        return Move(WORDS[word], next_look_seconds=step - view.now % step)

    return decide


@pytest.mark.parametrize("zone", ["us-east-1a", "us-east-1f", "us-west-2a"])
@pytest.mark.parametrize("interval", [0.0, 3600.0])
@pytest.mark.parametrize("prices", ["flat", "trace"])
def test_a_run_costs_and_ends_as_the_referee_says(
    referee: ModuleType, zone: str, interval: float, prices: str
) -> None:
    assert TRACES is not None
    path = TRACES / "aws-v100-2023" / f"{zone}.json.gz"
    trace = referee.Trace(path)
    market = market_from_trace(json.loads(gzip.decompress(path.read_bytes())), name=zone)
    options = referee.Options(mode="lost" if interval else "nolost", tau=interval)
    step = float(trace.step)
    num_interruptions = 0
    for first in range(0, len(trace.avail) - 1300, 3000):
        case = referee.Case(0, trace, first, 48, 70, 0.1, prices, 0)
        expected = referee.simulate(case, Theirs(), options)
        scenario = Scenario(
            work_seconds=case.work,
            deadline_seconds=case.deadline,
            overheads=Overheads(
                detect=0, provision_spot=360, provision_on_demand=360, pull=0, restore=0, spread=0
            ),
            checkpoint_interval=interval,
            checkpoint_seconds=0,
            checkpoint_stall=0,
            notice_reliability=0,
            spot_price=referee.FLAT_SPOT if prices == "flat" else None,
            on_demand_price=case.p_od,
        )
        decide = ours(overhead=360, interval=interval, step=step)
        found = play(scenario, market, offset=first * step, decide=decide, seed="")
        assert found.finish_seconds == pytest.approx(expected.finish)
        assert found.cost == pytest.approx(expected.cost)
        assert found.lost_seconds == pytest.approx(expected.lost)
        assert (found.interruptions, found.launches) == (expected.preemptions, expected.launches)
        assert found.on_time is not expected.missed
        num_interruptions += found.interruptions
    assert num_interruptions > 10
