"""What many runs come to, and which policy they speak for."""

from math import inf
from typing import Any

import pytest

from spot_operator.market import Outcome, Policy, Summary, advise, summaries
from spot_operator.market.summary import quantile, share, wilson


def outcome(**changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "finish_seconds": 3600.0, "on_time": True, "cost": 10.0, "interruptions": 0, "launches": 1,
        "lost_seconds": 0.0, "spot_seconds": 3600.0, "on_demand_seconds": 0.0, "waiting_seconds": 0.0,
    }  # fmt: skip
    return Outcome(**(values | changes))


def test_runs_that_were_cut_off_count_as_later_than_any() -> None:
    runs = [outcome(finish_seconds=float(n), cost=n) for n in range(1, 9)]
    runs += [outcome(finish_seconds=None, on_time=False, cost=50.0)] * 2
    found = summaries({Policy.SPOT_ONLY: runs})[Policy.SPOT_ONLY]
    assert (found.finish_p50_seconds, found.finish_p90_seconds) == (5, inf)
    assert (found.num_unfinished, found.on_time, found.cost_mean, found.saved) == (2, 0.8, 13.6, None)


def test_savings_are_against_on_demand_alone() -> None:
    found = summaries({Policy.AUTO: [outcome(cost=4.0)], Policy.ON_DEMAND_ONLY: [outcome(cost=16.0)]})
    assert (found[Policy.AUTO].saved, found[Policy.ON_DEMAND_ONLY].saved) == (0.75, 0)


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([3, 1, 2, 4], 0.5) == 2
    assert quantile([3, 1, 2, 4], 0.9) == 4
    assert quantile([7], 0.1) == 7


def test_few_runs_say_little() -> None:
    low, high = wilson(10, 10)
    assert (round(low, 3), high) == (0.722, 1.0)
    assert wilson(1000, 1000)[0] > 0.996


def test_only_what_always_happened_is_a_hundred_percent() -> None:
    assert [share(x) for x in (0, 0.0001, 0.5, 0.99999, 1)] == ["0%", "0.1%", "50.0%", "99.9%", "100%"]


def found(**policies: tuple[float, float]) -> dict[Policy, Summary]:
    """Policy = (share of 1000 runs on time, cost)."""
    words = {
        "auto": Policy.AUTO,
        "rules": Policy.RULES,
        "spot": Policy.SPOT_ONLY,
        "od": Policy.ON_DEMAND_ONLY,
    }
    return summaries(
        {
            words[word]: [outcome(on_time=n < on_time * 1000, cost=cost) for n in range(1000)]
            for word, (on_time, cost) in policies.items()
        }
    )


@pytest.mark.parametrize(
    ("runs", "better", "sentence"),
    [
        (
            found(rules=(0.7, 10), auto=(1, 8), spot=(0.3, 5), od=(1, 20)),
            Policy.AUTO,
            "Auto would be on time in 100% of the runs instead of 70.0%, "
            "and cost 20% less (8.00 instead of 10.00).",
        ),
        (
            found(rules=(1, 10), auto=(1, 8), spot=(0.3, 5), od=(1, 20)),
            Policy.AUTO,
            "Auto would cost 20% less (8.00 instead of 10.00) and be on time as often.",
        ),
        (found(rules=(1, 8), auto=(1, 8.1), od=(1, 20)), None, "No policy here is better than Rules."),
        (
            found(rules=(0.5, 10), od=(0.6, 20)),
            Policy.ON_DEMAND_ONLY,
            "OnDemandOnly would be on time in 60.0% of the runs instead of 50.0%, "
            "and cost 100% more (20.00 instead of 10.00). The deadline is near for any of them; "
            "a later one, more nodes or faster starts would help.",
        ),
        (
            found(rules=(0, 10), od=(0, 20)),
            None,
            "No policy here is better than Rules. The deadline is near for any of them; "
            "a later one, more nodes or faster starts would help.",
        ),
    ],
)  # fmt: skip
def test_advice_is_on_time_first_and_money_second(
    runs: dict[Policy, Summary], better: Policy | None, sentence: str
) -> None:
    advice = advise(Policy.RULES, runs, has_deadline=True)
    assert (advice.better, advice.sentence) == (better, sentence)


def test_without_a_deadline_only_runs_that_end_count() -> None:
    runs = summaries(
        {
            Policy.SPOT_ONLY: [outcome(finish_seconds=None, on_time=False, cost=1.0), outcome()],
            Policy.ON_DEMAND_ONLY: [outcome(cost=20.0)] * 2,
        }
    )
    advice = advise(Policy.SPOT_ONLY, runs, has_deadline=False)
    assert advice.better is Policy.ON_DEMAND_ONLY
    assert "had not ended in 1 of 2" in advice.sentence
    runs = summaries({Policy.RULES: [outcome()] * 2, Policy.SPOT_ONLY: [outcome(cost=5.0)] * 2})
    advice = advise(Policy.RULES, runs, has_deadline=False)
    assert advice.sentence == "SpotOnly would cost 50% less (5.00 instead of 10.00)."
