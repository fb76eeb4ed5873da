"""Recorded and synthetic markets: what is read, what is refused, and what a seed makes."""

from random import Random
from statistics import mean, median
from typing import Any

import pytest

from spot_operator.market import (
    Climate,
    InvalidMarket,
    market_from_table,
    market_from_trace,
    synthetic_market,
)
from spot_operator.market.market import Cursor

TRACE: dict[str, Any] = {
    "format": "spot-availability-trace/1",
    "step_s": 100,
    "first": 0,
    "runs": [2, 3, 1],
    "n_steps": 6,
    "price_on_demand": 3.0,
    "price_spot_runs": [[1.0, 3], [1.5, 3]],
}


def test_a_trace_becomes_changes_of_availability_and_price() -> None:
    market = market_from_trace(TRACE, name="zone")
    assert market.times == (0, 200, 300, 500)
    assert market.available == (False, True, True, False)
    assert market.spot_prices == (1.0, 1.0, 1.5, 1.5)
    assert (market.length_seconds, market.on_demand_price, market.availability) == (600, 3.0, 0.5)


def test_a_trace_may_lack_prices() -> None:
    market = market_from_trace({**TRACE, "price_spot_runs": None, "price_on_demand": None}, name="zone")
    assert (market.times, market.spot_prices) == ((0, 200, 500), None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": "other"}, "format is 'other'; expected 'spot-availability-trace/1'"),
        ({"step_s": 0}, "step_s is 0"),
        ({"runs": []}, "runs must be a list"),
        ({"runs": [1, -2]}, "runs must be a list"),
        ({"first": 2}, "first is 2; expected 0 or 1"),
        ({"n_steps": 7}, "add up to 6 steps, n_steps says 7"),
        ({"price_spot_runs": [[1.0, 2]]}, "do not add up to 6 steps"),
        ({"price_spot_runs": [1.0]}, "pairs of a price and a number of steps"),
    ],
)
def test_a_broken_trace_is_refused_with_the_field(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidMarket, match=f"zone: .*{complaint}"):
        market_from_trace({**TRACE, **changes}, name="zone")


def test_a_table_is_one_line_for_each_change_and_the_last_ends_it() -> None:
    market = market_from_table(
        "seconds,available,price\n# a comment\n100,1,0.9\n400, 0 ,1\n\n600,0,1\n", name="t"
    )
    assert (market.times, market.available, market.length_seconds) == ((0, 300), (True, False), 500)
    assert market.spot_prices == (0.9, 1.0)
    always = market_from_table("0,1", name="t")
    assert (always.available, always.availability) == ((True,), 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no line"),
        ("0,1\n5,maybe", "t, line 2: available is 'maybe'; expected 0 or 1"),
        ("0,1\nsoon,0", "t, line 2: seconds is 'soon'; expected a number"),
        ("0,1\n0,0", "t, line 2: seconds must rise"),
        ("0", "t, line 1: expected seconds,available"),
        ("0,1,1\n5,0\n9,1,1\n10,1", "give each one a price"),
        ("-1,1", "not negative"),
    ],
)
def test_a_broken_table_is_refused_with_the_line(text: str, complaint: str) -> None:
    with pytest.raises(InvalidMarket, match=complaint):
        market_from_table(text, name="t")


def test_a_cursor_goes_round() -> None:
    cursor = Cursor(market_from_trace(TRACE, name="zone"), 350)
    seen = []
    for _ in range(6):
        seen.append((cursor.available, cursor.next_change))
        cursor.step()
    assert seen == [(True, 150), (False, 250), (False, 450), (True, 550), (True, 750), (False, 850)]


def test_synthetic_markets_have_the_share_and_the_median_that_were_asked_for() -> None:
    climate = Climate(availability=0.7, median_up_seconds=3600, spread=1.2)
    market = synthetic_market(climate, Random(1), length_seconds=20_000 * 3600)
    spells = [
        end - begin
        for begin, end, up in zip(market.times[:-1], market.times[1:], market.available[:-1], strict=True)
        if up
    ]
    assert market.availability == pytest.approx(0.7, abs=0.04)
    assert median(spells) == pytest.approx(3600, rel=0.1)
    assert mean(spells) == pytest.approx(climate.mean_up_seconds, rel=0.15)
    assert max(spells) > 10 * mean(spells)


def test_a_seed_makes_one_market() -> None:
    def made(seed: int) -> Any:
        return synthetic_market(Climate(), Random(seed), length_seconds=1e6)

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_a_market_may_be_always_or_never_there() -> None:
    assert synthetic_market(Climate(availability=1), Random(1), length_seconds=9).availability == 1
    assert synthetic_market(Climate(availability=0), Random(1), length_seconds=9).availability == 0


@pytest.mark.parametrize("changes", [{"availability": 1.1}, {"median_up_seconds": 0}, {"spread": -1}])
def test_an_impossible_climate_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Climate(**changes)
