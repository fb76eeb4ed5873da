"""The numbers of the report: cost and misses beside published rules, the gap to the optimum, the speed."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from checkpoint.measure import Goal, Measure
from policy.changes import Told
from policy.market import Market, Outcome, Row, ours
from policy.rows import GUARDS, MAIN_SUITES, ROWS, SLACK, UNIFORM, lost, peers

Say = Callable[[str], None]

BEST: Final = "best without a miss"

LEFT_OUT: Final = (
    ("on-demand comes after 5-60 min", lost(900.0, od_refuse=0.5), "late on-demand", None),
    ("starts with heavy tails", lost(900.0, jitter=1.0), "heavy tails", None),
    ("notices lost with .5, interval 60 min", lost(3600.0, p_notice=0.5), "", None),
    ("notices lost with .05, interval 60 min", lost(3600.0, p_notice=0.95), "", None),
    ("spot seen by trying every 10 min", lost(900.0, probe_s=600.0), "", None),
    ("spot seen by trying every 60 min", lost(900.0, probe_s=3600.0), "", None),
    ("duration first said to be half", lost(900.0), "", Told(0.5)),
    ("duration first said to be double", lost(900.0), "", Told(2.0)),
)


def all_measures(market: Market, say: Say) -> list[Measure]:
    told: list[Measure] = []
    played: list[tuple[Row, Outcome, dict[str, Outcome]]] = []
    for row in ROWS:
        make, source = ours()
        own = market.play(row, "ours", make, source)
        others = {
            label: market.play_reference(row, name, with_interval=with_interval)
            for label, name, with_interval in peers(row)
        }
        played.append((row, own, others))
        told.append(_cost(market, row, own, others))
        say(f"{row}: {own.mean_cost:.2f} $, {own.misses} misses, {told[-1].ratio:.4f} of the best")
    told += _overall(market, played)
    for title, options, change, wrongly in LEFT_OUT:
        for suite in MAIN_SUITES:
            row = Row(suite, title, options, change=change)
            told.append(_left_out(market, row, wrongly))
            say(f"{row}: {told[-1].value} $, {told[-1].details['misses']['ours']} misses")
    return [*told, _speed()]


def _cost(market: Market, row: Row, own: Outcome, others: Mapping[str, Outcome]) -> Measure:
    safe = {label: other for label, other in others.items() if not other.misses}
    best = min(other.mean_cost for other in safe.values())
    optimum = market.optimum(row)
    return Measure(
        name=f"cost per job, {row}",
        unit="$",
        value=own.mean_cost,
        against={BEST: best, **{label: other.mean_cost for label, other in others.items()}},
        ratio=own.mean_cost / best,
        goal=Goal("<=", 1.01, BEST),
        details={
            "misses": {"ours": own.misses, **{label: other.misses for label, other in others.items()}},
            "jobs": len(own.costs),
            "optimum": optimum,
            "overOptimum": own.mean_cost / optimum,
            "overOnDemand": own.mean_cost * len(own.costs) / sum(market.on_demand_costs(row)),
        },
    )


def _overall(market: Market, played: list[tuple[Row, Outcome, dict[str, Outcome]]]) -> list[Measure]:
    """A rule that plans with d in one row and with d + tau in another is two rules."""
    gaps = {row: market.optimum(row) for row, _, _ in played}
    own_gap = sum(own.mean_cost / gaps[row] - 1 for row, own, _ in played) / len(played)
    labels = {
        label.removesuffix(", d + tau").removesuffix(", guard") for _, _, others in played for label in others
    }
    rivals: dict[str, float] = {}
    for label in sorted(labels):
        for how in (", d + tau", ", guard"):
            chosen = [others.get(label + how, others.get(label)) for _, _, others in played]
            rows = [(row, other) for (row, _, _), other in zip(played, chosen, strict=True) if other]
            if len(rows) == len(played) and not any(other.misses for _, other in rows):
                rivals[label + how] = sum(other.mean_cost / gaps[row] - 1 for row, other in rows) / len(rows)
    # Nobody misses in rows where no work is lost, so the best of each row stands for all rules there.
    rivals["best of each row"] = sum(
        min(other.mean_cost for other in others.values() if not other.misses) / gaps[row] - 1
        for row, _, others in played
    ) / len(played)
    misses = sum(own.misses for _, own, _ in played)
    jobs = sum(len(own.costs) for _, own, _ in played)
    percent = {label: 100 * gap for label, gap in rivals.items()}
    return [
        Measure(
            name=f"missed deadlines in {jobs} jobs", unit="jobs", value=float(misses), goal=Goal("<=", 0.0)
        ),
        Measure(
            name="cost over the clairvoyant optimum, mean of rows",
            unit="%",
            value=100 * own_gap,
            against=percent,
            ratio=own_gap / rivals["best of each row"],
            goal=Goal("<=", 1.0, "best of each row"),
        ),
    ]


def _left_out(market: Market, row: Row, told: Told | None) -> Measure:
    make, source = ours(told)
    own = market.play(row, "ours", make, source)
    others: dict[str, Outcome] = {}
    if row.change == "late on-demand":
        make, source = ours(told, reserve_seconds=3600.0)
        others["ours, told to keep an hour"] = market.play(row, "ours", make, source)
    if told is not None:
        make, source = ours(told, unmeasured_factor=2.0)
        others["ours, counting it double until measured"] = market.play(row, "ours", make, source)
    for label, name, with_interval in (
        (f"{UNIFORM}, d + tau", UNIFORM, True),
        (f"{SLACK}, d + tau", SLACK, True),
        (GUARDS[1], GUARDS[1], False),
    ):
        others[label] = market.play_reference(row, name, with_interval=with_interval, told=told)
    outcomes = {"ours": own, **others}
    return Measure(
        name=f"left out by simulators: {row}",
        unit="$",
        value=round(own.mean_cost, 2),
        against={label: other.mean_cost for label, other in others.items()},
        details={
            "misses": {label: each.misses for label, each in outcomes.items()},
            "worstLateMinutes": {
                label: round(each.worst_late_seconds / 60) for label, each in outcomes.items()
            },
            "jobs": len(own.costs),
        },
    )


class _Seen:
    """What the referee shows, in the middle of a job."""

    now_s, deadline_s, work_done_s, work_live_s, work_total_s = (
        20_000.0,
        190_000.0,
        9_000.0,
        9_500.0,
        172_800.0,
    )
    preempted, startup_left_s, restart_overhead_s, checkpoint_interval_s = False, 0.0, 1080.0, 900.0
    step_s, price_spot, price_on_demand = 195.0, 0.97, 3.06

    def __init__(self, current: str, available: bool) -> None:
        self.current, self.spot_available = current, available
        self.history = ((0.0, available),)


def _speed() -> Measure:
    worst = 0.0
    make, _ = ours()
    for current, available in (("idle", False), ("idle", True), ("spot", True), ("on-demand", True)):
        decide, seen = make().decide, _Seen(current, available)
        rounds = timeit.repeat(partial(decide, seen), number=5000, repeat=5)
        worst = max(worst, min(rounds) / 5000)
    return Measure(name="a decision", unit="us", value=worst * 1e6, goal=Goal("<=", 40.0))


def as_table(measures: list[Measure]) -> str:
    lines = []
    for each in measures:
        value = "" if each.value is None else f"{each.value:.4g} {each.unit}"
        ratio = "" if each.ratio is None else f"{each.ratio:.4f}x"
        verdict = {True: "met", False: "MISSED", None: ""}[each.met]
        goal = "" if each.goal is None else str(each.goal)
        missed = each.details.get("misses", {})
        own = f"{missed['ours']} missed" if missed else ""
        lines.append(f"{each.name:<72} {value:>12} {ratio:>8} {own:>10}  {goal:<30} {verdict}".rstrip())
        for peer, other in each.against.items():
            late = f"{missed[peer]} missed" if missed.get(peer) else ""
            lines.append(f"    {peer:<68} {other:>9.4g} {'':>11} {late:>10}".rstrip())
    return "\n".join(lines)
