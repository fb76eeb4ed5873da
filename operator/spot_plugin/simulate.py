"""`simulate`: from a manifest and a few assumptions to a plan, with every assumption named.

Invariant: what neither the manifest nor the command line says is assumed in the open: a note says what was
taken for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import inf
from typing import Final

from spot_operator.market import Climate, Market, Overheads, Plan, Policy, Scenario
from spot_operator.model import DeadlineAction, PolicySettings
from spot_plugin.errors import PluginError
from spot_plugin.job import Job
from spot_plugin.manifest import Manifest
from spot_plugin.words import MAX_DURATION_SECONDS, duration
from spot_trainer.contract import IntervalPolicy

DEFAULT_RATIO: Final = 3.0
"""On-demand over spot where nobody says; what GPUs usually are."""
LIMIT_TIMES: Final = 10
"""A run is cut off after so many times its work, or twice its deadline if that is later."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the command line says; None: not said."""

    work_seconds: float | None = None
    deadline_seconds: float | None = None
    spot_price: float | None = None
    on_demand_price: float | None = None
    overheads: Overheads = field(default_factory=Overheads)
    checkpoint_seconds: float = 30.0
    checkpoint_stall: float = 0.5
    notice_reliability: float = 0.5
    probe_seconds: float = 0.0
    policies: tuple[Policy, ...] = ()
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Prepared:
    plan: Plan
    chosen: Policy
    notes: tuple[str, ...]


def prepare(
    manifest: Manifest, given: Assumptions, markets: tuple[Market, ...] | Climate, *, created: datetime
) -> Prepared:
    notes: list[str] = []
    spec = manifest.spec
    work = _work(manifest, given)
    deadline = _deadline(manifest, given, created=created)
    if deadline < work:
        notes.append(
            f"the deadline comes after {duration(deadline)} and the work alone takes {duration(work)}: "
            "it cannot be kept"
        )
    spot, on_demand = _prices(manifest, given, markets, notes)
    scenario = Scenario(
        work_seconds=work,
        deadline_seconds=deadline,
        ends_at_deadline=spec.deadline is not None and spec.deadline.action is not DeadlineAction.CONTINUE,
        overheads=given.overheads,
        checkpoint_interval=float(spec.checkpoint.interval_seconds),
        checkpoint_seconds=given.checkpoint_seconds,
        checkpoint_stall=given.checkpoint_stall,
        notice_reliability=given.notice_reliability,
        probe_seconds=given.probe_seconds,
        spot_price=spot,
        on_demand_price=on_demand,
        num_nodes=manifest.num_nodes,
        limit_seconds=min(
            max(LIMIT_TIMES * work, 0.0 if deadline == inf else 2 * deadline), MAX_DURATION_SECONDS
        ),
    )
    if given.checkpoint_seconds >= scenario.checkpoint_interval:
        raise PluginError(
            f"a checkpoint takes {duration(given.checkpoint_seconds)}, and one is due every "
            f"{duration(scenario.checkpoint_interval)}: the next would begin before the last is durable",
            do="raise spec.checkpoint.interval.seconds, or lower --checkpoint-time",
        )
    policies = _policies(manifest.chosen, given.policies)
    plan = Plan(
        scenario=scenario,
        # Pod template and store play no part; without them less travels between processes.
        spec=replace(spec, template={}),
        settings=PolicySettings(),
        markets=markets,
        policies=policies,
        seed=given.seed,
    )
    if isinstance(markets, tuple):
        short = [market.name for market in markets if market.length_seconds < plan.window_seconds]
        if short:
            notes.append(f"{', '.join(short)}: shorter than a run, so it is played over and over")
    if spec.checkpoint.interval_policy is IntervalPolicy.AUTO:
        notes.append("checkpoint.interval.policy is Auto: its longest interval is assumed")
    return Prepared(plan=plan, chosen=manifest.chosen, notes=tuple(notes))


SHORTEST_MEDIAN_SECONDS: Final = 60.0
"""Below, a pool with hardly any spot would be played as millions of spells that no pod could use."""


def climate(
    manifest: Manifest, *, availability: float, median_up_seconds: float | None, spread: float
) -> tuple[Climate, tuple[str, ...]]:
    """What synthetic markets are like, and what is to be said about it.

    Where the command line does not say how long spot stays, a job that has lost spot nodes does.

    Raises:
        ValueError: says what is wrong with a number.
    """
    found = Climate(availability=availability, spread=spread)
    if median_up_seconds is not None:
        return replace(found, median_up_seconds=median_up_seconds), ()
    job = Job({"status": manifest.status})
    hours = job.get("status.interruptionRate.nodeHoursPerInterruption")
    if not job.spot_interruptions or not isinstance(hours, int | float) or hours <= 0:
        return found, ()
    # Spells of this spread are on average so many times as long as their median.
    median = max(SHORTEST_MEDIAN_SECONDS, hours * 3600 * found.median_up_seconds / found.mean_up_seconds)
    note = (
        f"the median up-time follows from what the job has seen: one interruption in "
        f"{duration(hours * 3600)} of a node (status.interruptionRate); --median-up-time says otherwise"
    )
    return replace(found, median_up_seconds=median), (note,)


def _work(manifest: Manifest, given: Assumptions) -> float:
    deadline = manifest.spec.deadline
    work = given.work_seconds
    if work is None and deadline is not None and deadline.expected_duration_seconds is not None:
        work = float(deadline.expected_duration_seconds)
    if work is None:
        raise PluginError(
            "how long does the run take? Neither spec.deadline.expectedDurationSeconds nor --work says so",
            do="add --work 48h (without interruptions and startup)",
        )
    if work <= 0:
        raise PluginError("--work must be more than 0")
    return work


def _deadline(manifest: Manifest, given: Assumptions, *, created: datetime) -> float:
    if given.deadline_seconds is not None:
        if given.deadline_seconds <= 0:
            raise PluginError("--deadline must be more than 0")
        return given.deadline_seconds
    if manifest.spec.deadline is None:
        return inf
    left = manifest.spec.deadline.finish_by - created
    if left <= timedelta():
        raise PluginError(
            f"spec.deadline.finishBy ({manifest.spec.deadline.finish_by.isoformat()}) is over",
            do="change it, or simulate another one with --deadline 60h",
        )
    return left.total_seconds()


def _prices(
    manifest: Manifest, given: Assumptions, markets: tuple[Market, ...] | Climate, notes: list[str]
) -> tuple[float | None, float]:
    """Command line before manifest before recording; the ratio is assumed last."""
    spot = _first(given.spot_price, manifest.spec.spot.price_per_node_hour)
    on_demand = _first(given.on_demand_price, manifest.spec.on_demand.price_per_node_hour)
    if isinstance(markets, tuple) and spot is None and all(market.spot_prices for market in markets):
        recorded = {market.on_demand_price for market in markets if market.on_demand_price is not None}
        if on_demand is not None or len(recorded) == 1:
            notes.append("spot prices as recorded with the market")
            return None, on_demand if on_demand is not None else recorded.pop()
    if spot is not None and on_demand is not None:
        return spot, on_demand
    where = "; say so with --spot-price and --on-demand-price, or pricePerNodeHour in the manifest"
    if spot is None and on_demand is None:
        notes.append(
            f"no prices: on-demand is taken to cost {DEFAULT_RATIO:g} times as much as spot (1.00){where}"
        )
        return 1.0, DEFAULT_RATIO
    if spot is None:
        assert on_demand is not None
        spot = on_demand / DEFAULT_RATIO
        notes.append(f"no spot price: a third of on-demand is assumed ({spot:.2f}){where}")
        return spot, on_demand
    on_demand = spot * DEFAULT_RATIO
    notes.append(f"no on-demand price: {DEFAULT_RATIO:g} times spot is assumed ({on_demand:.2f}){where}")
    return spot, on_demand


def _first(given: float | None, manifest: Decimal | None) -> float | None:
    return given if given is not None else None if manifest is None else float(manifest)


def _policies(chosen: Policy, wanted: Sequence[Policy]) -> tuple[Policy, ...]:
    """The chosen one first; on-demand alone is always there to compare with."""
    others = [each for each in (wanted or Policy) if each is not chosen]
    if chosen is not Policy.ON_DEMAND_ONLY and Policy.ON_DEMAND_ONLY not in others:
        others.append(Policy.ON_DEMAND_ONLY)
    return (chosen, *others)
