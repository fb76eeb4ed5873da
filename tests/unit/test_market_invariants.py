"""What holds for every simulated run, whatever the market, the job and the policy."""

from random import Random
from typing import Any

import pytest

from spot_operator.market import (
    Climate,
    MarketView,
    Move,
    Overheads,
    Policy,
    Scenario,
    decider,
    play,
    synthetic_market,
)
from spot_operator.model import FallbackSpec, PolicySettings
from spot_operator.policy import Action
from spot_operator.testing import make_spec

HOUR = 3600.0


def anything(dice: Random) -> tuple[Scenario, Climate]:
    work = dice.uniform(0.5, 30) * HOUR
    scenario = Scenario(
        work_seconds=work,
        deadline_seconds=work * dice.uniform(1.1, 2.5) + HOUR,
        overheads=Overheads(
            provision_spot=dice.uniform(10, 600),
            provision_on_demand=dice.uniform(10, 900),
            spread=dice.choice([0, 0.3, 1.0]),
        ),
        checkpoint_interval=dice.choice([0.0, 60.0, 600.0, 3600.0]),
        checkpoint_seconds=dice.choice([0.0, 20.0]),
        checkpoint_stall=dice.choice([0.0, 2.0]),
        notice_reliability=dice.random(),
        probe_seconds=dice.choice([0.0, 600.0]),
        spot_price=1.0,
        on_demand_price=dice.uniform(1.5, 5),
        num_nodes=dice.choice([1, 4]),
        limit_seconds=20 * work,
    )
    climate = Climate(
        availability=dice.uniform(0.05, 0.95),
        median_up_seconds=dice.uniform(0.1, 4) * HOUR,
        spread=dice.uniform(0.5, 2),
    )
    return scenario, climate


@pytest.mark.parametrize("seed", range(60))
def test_time_money_and_work_add_up(seed: int) -> None:
    dice = Random(seed)
    scenario, climate = anything(dice)
    market = synthetic_market(climate, dice, length_seconds=3 * scenario.deadline_seconds)
    spec = make_spec(fallback=FallbackSpec(interruptions_count=dice.choice([None, 1, 4])))
    done: list[float] = []
    for policy in Policy:
        decide = decider(policy, spec, scenario, PolicySettings())

        def watched(view: MarketView, decide: Any = decide) -> Move:
            assert 0 <= view.work_durable <= view.work_done <= view.work_total
            done.append(view.work_durable)
            move = decide(view)
            assert isinstance(move, Move)
            return move

        done.clear()
        found = play(scenario, market, offset=dice.random() * HOUR, decide=watched, seed=str(seed))
        assert done == sorted(done)  # durable work never goes back
        passed = found.spot_seconds + found.on_demand_seconds + found.waiting_seconds
        assert passed == pytest.approx(
            scenario.limit_seconds if found.finish_seconds is None else found.finish_seconds
        )
        rented = found.spot_seconds + scenario.on_demand_price * found.on_demand_seconds
        saves = found.launches * scenario.checkpoint_seconds * scenario.on_demand_price
        least = rented / HOUR * scenario.num_nodes
        assert least - 1e-6 <= found.cost <= least + saves / HOUR * scenario.num_nodes + 1e-6
        assert 0 <= found.interruptions <= found.launches
        if found.finish_seconds is not None:
            # Nobody is faster than the work, and what was lost was done again.
            useful = found.spot_seconds + found.on_demand_seconds
            assert useful >= scenario.work_seconds + found.lost_seconds - 1e-3
        assert found.on_time is (
            found.finish_seconds is not None and found.finish_seconds <= scenario.deadline_seconds + 1e-6
        )


@pytest.mark.parametrize("seed", range(100))
def test_auto_is_on_time_on_any_market_where_startups_take_what_was_told(seed: int) -> None:
    dice = Random(f"auto/{seed}")
    scenario, climate = anything(dice)
    overheads = Overheads(
        provision_spot=scenario.overheads.provision_spot,
        provision_on_demand=scenario.overheads.provision_on_demand,
        spread=0,
    )
    told = Scenario(
        work_seconds=scenario.work_seconds,
        deadline_seconds=scenario.work_seconds + scenario.deadline_seconds * dice.uniform(0.05, 0.5) + HOUR,
        overheads=overheads,
        checkpoint_interval=scenario.checkpoint_interval,
        checkpoint_seconds=scenario.checkpoint_seconds,
        notice_reliability=scenario.notice_reliability,
        checkpoint_stall=scenario.checkpoint_stall,
        spot_price=1.0,
        on_demand_price=scenario.on_demand_price,
        limit_seconds=scenario.limit_seconds,
    )
    market = synthetic_market(climate, dice, length_seconds=3 * told.deadline_seconds)
    decide = decider(Policy.AUTO, make_spec(), told, PolicySettings())
    found = play(told, market, offset=0, decide=decide, seed=str(seed))
    assert found.on_time, (told, climate, found)


def test_a_run_of_two_days_takes_few_looks() -> None:
    """It goes from event to event; stepping through the time would take thousands."""
    looks = 0
    scenario = Scenario(
        work_seconds=48 * HOUR, deadline_seconds=70 * HOUR, spot_price=1.0, on_demand_price=3.0
    )
    for number in range(20):
        market = synthetic_market(Climate(), Random(number), length_seconds=300 * HOUR)
        decide = decider(Policy.AUTO, make_spec(), scenario, PolicySettings())

        def counted(view: MarketView, decide: Any = decide) -> Move:
            nonlocal looks
            looks += 1
            move = decide(view)
            assert move.action in Action
            return move

        assert play(scenario, market, offset=0, decide=counted, seed="").on_time
    assert looks / 20 < 150
