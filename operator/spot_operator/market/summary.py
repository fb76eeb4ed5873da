"""What many runs come to: distributions, side by side, and which policy they speak for.

Invariant: a run that was cut off counts as later than any that ended, never as absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from typing import Final

from spot_operator.market.policies import Policy
from spot_operator.market.scenario import Outcome

LIKE: Final = 0.005
"""Shares of runs on time that differ by less are called the same."""
WORTH_SAYING: Final = 0.02
"""A difference in cost that is worth a sentence."""
ENOUGH: Final = 0.99
"""A share of runs on time that leaves nothing to be asked for."""
_Z: Final = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    policy: Policy
    num_runs: int
    num_unfinished: int
    """Runs that were cut off, by the deadline's action or by the limit."""
    on_time: float
    on_time_low: float
    on_time_high: float
    """95 % interval of the share (Wilson): what the number of runs allows to say."""
    finish_p50_seconds: float
    finish_p90_seconds: float
    """Infinite if fewer runs ended."""
    cost_mean: float
    cost_p50: float
    cost_p90: float
    saved: float | None
    """Share of the mean cost on on-demand alone; None: that was not simulated."""
    interruptions_mean: float
    interruptions_p90: float
    launches_mean: float
    lost_hours_mean: float
    spot_hours_mean: float
    on_demand_hours_mean: float
    waiting_hours_mean: float


def summaries(outcomes: Mapping[Policy, Sequence[Outcome]]) -> dict[Policy, Summary]:
    on_demand = outcomes.get(Policy.ON_DEMAND_ONLY)
    reference = _mean([each.cost for each in on_demand]) if on_demand else None
    return {policy: _summary(policy, each, reference) for policy, each in outcomes.items()}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered) - 1e-9) - 1)]


def wilson(hits: int, of: int) -> tuple[float, float]:
    share = hits / of
    middle = (share + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
    half = _Z * sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2)) / (1 + _Z**2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _summary(policy: Policy, runs: Sequence[Outcome], reference: float | None) -> Summary:
    finishes = [inf if run.finish_seconds is None else run.finish_seconds for run in runs]
    costs = [run.cost for run in runs]
    hits = sum(run.on_time for run in runs)
    low, high = wilson(hits, len(runs))
    return Summary(
        policy=policy,
        num_runs=len(runs),
        num_unfinished=sum(run.finish_seconds is None for run in runs),
        on_time=hits / len(runs),
        on_time_low=low,
        on_time_high=high,
        finish_p50_seconds=quantile(finishes, 0.5),
        finish_p90_seconds=quantile(finishes, 0.9),
        cost_mean=_mean(costs),
        cost_p50=quantile(costs, 0.5),
        cost_p90=quantile(costs, 0.9),
        saved=None if not reference else 1 - _mean(costs) / reference,
        interruptions_mean=_mean([run.interruptions for run in runs]),
        interruptions_p90=quantile([run.interruptions for run in runs], 0.9),
        launches_mean=_mean([run.launches for run in runs]),
        lost_hours_mean=_mean([run.lost_seconds for run in runs]) / 3600,
        spot_hours_mean=_mean([run.spot_seconds for run in runs]) / 3600,
        on_demand_hours_mean=_mean([run.on_demand_seconds for run in runs]) / 3600,
        waiting_hours_mean=_mean([run.waiting_seconds for run in runs]) / 3600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    better: Policy | None
    """None: the chosen one is as good as any here."""
    sentence: str


def advise(chosen: Policy, found: Mapping[Policy, Summary], *, has_deadline: bool) -> Advice:
    """Which policy the runs speak for: on time first, money second."""
    own = found[chosen]
    best_share = max(each.on_time for each in found.values())
    punctual = [each for each in found.values() if each.on_time >= best_share - LIKE]
    best = min(punctual, key=lambda each: each.cost_mean)
    if has_deadline and own.on_time < min(best_share, ENOUGH) - LIKE and best.policy is not chosen:
        return Advice(
            better=best.policy,
            sentence=f"{best.policy} would be on time in {share(best.on_time)} of the runs instead of "
            f"{share(own.on_time)}, and {_money(best, own)}.{_too_near(best)}",
        )
    if not has_deadline and own.num_unfinished > best.num_unfinished:
        return Advice(
            better=best.policy,
            sentence=f"{best.policy} would end in every run; {chosen} had not ended in "
            f"{own.num_unfinished} of {own.num_runs} when they were cut off.",
        )
    rivals = [each for each in found.values() if each.on_time >= own.on_time - LIKE]
    cheapest = min(rivals, key=lambda each: each.cost_mean)
    if cheapest.cost_mean < own.cost_mean * (1 - WORTH_SAYING):
        punctual_too = " and be on time as often" if has_deadline else ""
        return Advice(
            better=cheapest.policy,
            sentence=f"{cheapest.policy} would {_money(cheapest, own)}{punctual_too}.",
        )
    return Advice(
        better=None,
        sentence=f"No policy here is better than {chosen}.{_too_near(own) if has_deadline else ''}",
    )


def _money(other: Summary, own: Summary) -> str:
    if own.cost_mean <= 0:
        return f"cost {other.cost_mean:.2f}"
    change = other.cost_mean / own.cost_mean - 1
    if abs(change) < WORTH_SAYING:
        return "cost the same"
    word = "less" if change < 0 else "more"
    return f"cost {abs(change):.0%} {word} ({other.cost_mean:.2f} instead of {own.cost_mean:.2f})"


def _too_near(best: Summary) -> str:
    if best.on_time >= ENOUGH:
        return ""
    return " The deadline is near for any of them; a later one, more nodes or faster starts would help."


def share(value: float) -> str:
    """A share in percent; only what always happened is 100 %."""
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    return f"{min(max(value, 0.001), 0.999):.1%}"
