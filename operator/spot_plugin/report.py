"""What a simulation found: a table for people, JSON for machines."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isinf
from typing import Any

from spot_operator.decide.capacity import reserve_seconds
from spot_operator.market import Advice, Climate, Plan, Policy, Summary
from spot_operator.market.summary import ENOUGH, share
from spot_operator.policy import Running
from spot_operator.wire import camel
from spot_plugin.manifest import Manifest
from spot_plugin.words import duration, hours, table

HEADER = (
    "", "POLICY", "ON TIME", "FINISH P50", "P90", "COST MEAN", "P90", "SAVED",
    "INTERRUPTED", "LOST", "ON SPOT",
)  # fmt: skip
RIGHT = tuple(range(2, len(HEADER)))
CHOSEN_MARK = "*"


@dataclass(frozen=True, kw_only=True)
class Report:
    manifest: Manifest
    plan: Plan
    num_runs: int
    summaries: Mapping[Policy, Summary]
    advice: Advice
    notes: tuple[str, ...]
    wall_seconds: float
    plot: str = ""

    @property
    def has_deadline(self) -> bool:
        return self.plan.scenario.deadline_seconds < inf


def as_text(report: Report) -> list[str]:
    scenario, chosen = report.plan.scenario, report.manifest.chosen
    deadline = (
        f"deadline after {duration(scenario.deadline_seconds)}" if report.has_deadline else "no deadline"
    )
    lines = [
        f"{report.manifest.namespace}/{report.manifest.name}: {duration(scenario.work_seconds)} of work, "
        f"{deadline}",
        f"  market       {_market_words(report.plan)}; {report.num_runs} runs",
        f"  start        {duration(scenario.overheads.mean(Running.SPOT))} on spot, "
        f"{duration(scenario.overheads.mean(Running.ON_DEMAND))} on on-demand",
        f"  checkpoints  every {duration(scenario.checkpoint_interval)}, durable after "
        f"{duration(scenario.checkpoint_seconds)}; a last one on {scenario.notice_reliability:.0%} "
        "of the interruptions",
        f"  price        {_price_words(report.plan)}",
        "",
        *table(HEADER, [_row(each, chosen, report) for each in report.summaries.values()], right=RIGHT),
        f"{CHOSEN_MARK} what the manifest says",
        "",
        report.advice.sentence,
    ]
    if report.has_deadline and report.num_runs < 1000:
        own = report.summaries[chosen]
        lines.append(
            f"{report.num_runs} runs say no more than that {chosen} is on time in "
            f"{share(own.on_time_low)} to {share(own.on_time_high)} of all cases; --runs 1000 says more."
        )
    lines += [f"note: {note}" for note in _all_notes(report)]
    if report.plot:
        lines.append(f"plot: {report.plot}")
    return lines


def _all_notes(report: Report) -> list[str]:
    return [*_remarks(report), *report.notes, *_cut_off(report)]


def _cut_off(report: Report) -> list[str]:
    limit = duration(report.plan.scenario.limit_seconds)
    return [
        f"{each.policy}: {each.num_unfinished} of {each.num_runs} runs had not ended when they were cut off "
        f"(after {limit}, or at a deadline that ends the job); their cost is what was spent until then"
        for each in report.summaries.values()
        if each.num_unfinished
    ]


def _remarks(report: Report) -> list[str]:
    """What to know besides the advice."""
    said = []
    rules = report.summaries.get(Policy.RULES)
    if rules is not None and report.manifest.chosen is Policy.RULES and report.has_deadline:
        reserve, needed = (
            reserve_seconds(report.plan.spec, report.plan.settings),
            _reserve_needed(report.plan),
        )
        if rules.on_time < ENOUGH and reserve < needed:
            said.append(
                f"Rules goes to on-demand {duration(reserve)} before it must, and a start takes up to "
                f"{duration(needed)}: set beforeDeadlineSeconds to {needed}"
            )
    return said


def _reserve_needed(plan: Plan) -> int:
    scenario = plan.scenario
    return 60 * round((scenario.overheads.high(Running.ON_DEMAND) + scenario.checkpoint_seconds) / 60 + 0.5)


def _market_words(plan: Plan) -> str:
    if isinstance(plan.markets, Climate):
        climate = plan.markets
        return (
            f"synthetic ({climate.availability:.0%} available, "
            f"median up-time {duration(climate.median_up_seconds)})"
        )
    names = ", ".join(f"{market.name} ({market.availability:.0%} available)" for market in plan.markets[:3])
    more = f" and {len(plan.markets) - 3} more" if len(plan.markets) > 3 else ""
    return f"recorded: {names}{more}"


def _price_words(plan: Plan) -> str:
    scenario = plan.scenario
    spot = "as recorded" if scenario.spot_price is None else f"{scenario.spot_price:.2f}"
    nodes = f", {scenario.num_nodes} nodes" if scenario.num_nodes > 1 else ""
    return f"{spot} on spot, {scenario.on_demand_price:.2f} on on-demand per node-hour{nodes}"


def _row(each: Summary, chosen: Policy, report: Report) -> tuple[str, ...]:
    total = each.spot_hours_mean + each.on_demand_hours_mean
    return (
        CHOSEN_MARK if each.policy is chosen else "",
        str(each.policy),
        share(each.on_time) if report.has_deadline else "-",
        hours(each.finish_p50_seconds),
        hours(each.finish_p90_seconds),
        f"{each.cost_mean:.2f}",
        f"{each.cost_p90:.2f}",
        "-" if each.saved is None else f"{each.saved:.0%}",
        f"{each.interruptions_mean:.1f}",
        f"{each.lost_hours_mean:.1f} h",
        "-" if total <= 0 else f"{each.spot_hours_mean / total:.0%}",
    )


def as_json(report: Report) -> dict[str, Any]:
    scenario = report.plan.scenario
    markets = report.plan.markets
    return {
        "job": {"namespace": report.manifest.namespace, "name": report.manifest.name},
        "chosen": report.manifest.chosen,
        "runs": report.num_runs,
        "seed": report.plan.seed,
        "wallSeconds": round(report.wall_seconds, 2),
        "scenario": _plain(scenario),
        "market": {"synthetic": _plain(markets)}
        if isinstance(markets, Climate)
        else {
            "recorded": [
                {"name": market.name, "availability": round(market.availability, 4)} for market in markets
            ]
        },
        "policies": [_plain(each) for each in report.summaries.values()],
        "advice": {"better": report.advice.better, "sentence": report.advice.sentence},
        "notes": _all_notes(report),
    }


def _plain(value: Any) -> Any:
    """Dataclasses as objects; an infinite number is null, as JSON has none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {camel(f.name): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return None if isinf(value) else round(value, 4)
    return value
