"""The operator's policies in simulated runs: their own thresholds, their own reasons."""

from datetime import UTC, datetime, timedelta
from typing import Any

from spot_operator.market import (
    Climate,
    Market,
    Outcome,
    Overheads,
    Plan,
    Policy,
    Scenario,
    decider,
    play,
    summaries,
)
from spot_operator.model import DeadlineSpec, FallbackSpec, JobSpec, PolicySettings
from spot_operator.policy import Running
from spot_operator.testing import make_spec

HOUR = 3600.0
NEVER = Market(name="never", times=(0.0,), available=(False,))
FLICKERING = Market(
    name="flickering",
    times=tuple(i * HOUR for i in range(200)),
    available=tuple(i % 2 == 0 for i in range(200)),
    length_seconds=200 * HOUR,
)


def scenario(**changes: Any) -> Scenario:
    values: dict[str, Any] = {
        "work_seconds": 10 * HOUR,
        "deadline_seconds": 20 * HOUR,
        "overheads": Overheads(spread=0),
        "spot_price": 1.0,
        "on_demand_price": 3.0,
        "limit_seconds": 100 * HOUR,
    }
    return Scenario(**(values | changes))


def run(policy: Policy, market: Market, spec: JobSpec | None = None, **changes: Any) -> Outcome:
    chosen = scenario(**changes)
    decide = decider(policy, spec or make_spec(), chosen, PolicySettings())
    return play(chosen, market, offset=0, decide=decide, seed="")


def test_rules_leave_spot_after_as_many_interruptions_as_the_job_says() -> None:
    spec = make_spec(fallback=FallbackSpec(interruptions_count=3, interruptions_window_seconds=6 * 3600))
    found = run(Policy.RULES, FLICKERING, spec, deadline_seconds=float("inf"))
    assert found.interruptions == 3
    assert found.on_demand_seconds > 0
    forgetful = make_spec(fallback=FallbackSpec(interruptions_count=3, interruptions_window_seconds=3600))
    assert run(Policy.RULES, FLICKERING, forgetful, deadline_seconds=float("inf")).on_demand_seconds == 0


def test_rules_leave_spot_when_a_pod_has_waited_long_enough() -> None:
    spec = make_spec(fallback=FallbackSpec(after_pending_seconds=1800))
    found = run(Policy.RULES, NEVER, spec)
    assert found.waiting_seconds == 1800
    assert found.on_time


def test_rules_leave_spot_when_the_deadline_comes_near() -> None:
    reserve = make_spec(fallback=FallbackSpec(before_deadline_seconds=2 * 3600))
    found = run(Policy.RULES, NEVER, reserve)
    # A minute earlier: 120 checkpoints hold the work up by half a second each.
    assert found.waiting_seconds == 8 * HOUR - 60
    assert found.on_time
    # The default reserve is shorter than a start on on-demand takes here: the simulation says so.
    assert not run(Policy.RULES, NEVER).on_time


def test_the_deadline_of_the_run_counts_and_not_the_one_of_the_manifest() -> None:
    old = DeadlineSpec(finish_by=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=9))
    assert run(Policy.RULES, NEVER, make_spec(deadline=old)) == run(Policy.RULES, NEVER)


def test_spot_only_never_leaves_spot_and_on_demand_only_never_takes_it() -> None:
    assert run(Policy.SPOT_ONLY, FLICKERING).on_demand_seconds == 0
    assert run(Policy.ON_DEMAND_ONLY, FLICKERING).spot_seconds == 0
    assert run(Policy.SPOT_ONLY, NEVER).finish_seconds is None


def test_auto_keeps_the_deadline_whatever_the_market_does() -> None:
    for market in (NEVER, FLICKERING):
        for hours in (11, 12, 15, 20):
            found = run(Policy.AUTO, market, deadline_seconds=hours * HOUR)
            assert found.on_time, (market.name, hours)


def test_pauses_for_checkpoints_are_part_of_the_work_that_is_left() -> None:
    slow = {"checkpoint_interval": 60.0, "checkpoint_stall": 6.0, "checkpoint_seconds": 20.0}
    assert run(Policy.AUTO, NEVER, deadline_seconds=13 * HOUR, **slow).on_time
    reserve = make_spec(fallback=FallbackSpec(before_deadline_seconds=600))
    assert run(Policy.RULES, NEVER, reserve, deadline_seconds=13 * HOUR, **slow).on_time


def test_auto_is_told_of_startups_that_took_longer_than_expected() -> None:
    slow = Overheads(spread=1.0)
    assert slow.high(Running.ON_DEMAND) > 3 * slow.mean(Running.ON_DEMAND)
    found = run(Policy.AUTO, FLICKERING, overheads=slow)
    assert found.on_time


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "scenario": scenario(),
        "spec": make_spec(),
        "settings": PolicySettings(),
        "markets": Climate(),
    }
    return Plan(**(values | changes))


def test_a_run_is_the_same_however_the_runs_are_shared_out() -> None:
    whole = plan().play(range(6))
    parts = [plan().play([number]) for number in (5, 4, 3, 2, 1, 0)][::-1]
    for policy in Policy:
        assert whole[policy] == [outcome for part in parts for outcome in part[policy]]


def test_another_seed_makes_other_runs() -> None:
    assert plan(seed=1).play(range(3)) != plan(seed=2).play(range(3))


def test_recorded_markets_are_met_in_turn_and_from_anywhere_in_them() -> None:
    recorded = plan(markets=(FLICKERING, NEVER))
    met = [recorded.market_of(number) for number in range(40)]
    assert [market.name for market, _ in met[:3]] == ["flickering", "never", "flickering"]
    offsets = {offset for market, offset in met if market is FLICKERING}
    assert len(offsets) == 20
    assert max(offsets) <= 180 * HOUR  # a whole run fits behind it


def test_auto_is_on_time_and_cheaper_than_on_demand_on_synthetic_markets() -> None:
    found = summaries(plan().play(range(40)))
    assert found[Policy.AUTO].on_time == 1
    assert found[Policy.AUTO].cost_mean < 0.8 * found[Policy.ON_DEMAND_ONLY].cost_mean
