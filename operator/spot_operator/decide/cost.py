"""Node time on each capacity type, what it cost, and what the run will have cost at its end.

A node is paid for from the moment the pod was bound to it until the pod ended or the node went; one node
a pod is assumed. Each second has the price of the node that it was spent on. Invariants: a second is
counted once, whoever looks and however often, since status says up to when all is counted; time without a
price makes `spent` unknown, and is never taken to be free.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from spot_operator.decide.auto import working_gang
from spot_operator.decide.conditions import is_finished
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import find_pod, node_of
from spot_operator.decide.overheads import launch_began, merged
from spot_operator.decide.prices import known_price, price_by_selector, with_first_prices, with_prices
from spot_operator.decide.progress import remaining_work_seconds
from spot_operator.decide.rates import and_seen
from spot_operator.model import (
    UNKNOWN,
    Cost,
    Gang,
    JobSpec,
    JobStatus,
    Observation,
    PodRecord,
)
from spot_operator.names import CapacityType
from spot_operator.policy import Interruptions

SECONDS_PER_HOUR: Final = 3600
CENT_FRACTION: Final = Decimal("0.0001")
FINEST: Final = Decimal("1e-9")
"""What is added up again and again is rounded to this: a million times, and it is less than a cent."""
MAX_SECONDS_LEFT: Final = 100 * 365 * 86400.0
"""Of a run that takes longer nobody knows what it will cost."""
NOTHING: Final = Decimal(0)


def account(draft: Draft, gang: Gang, until: datetime, *, is_over: bool = False) -> tuple[JobStatus, Gang]:
    """Status and gang with the node time up to `until` added, and with the prices of now.

    Time that has passed is paid for at the price that was known of the node then. As long as a node was
    never read, its time waits for its price; when the gang `is_over`, it waits no longer.
    """
    status, table = draft.status, draft.settings.prices
    priced = with_prices(gang, draft.spec, draft.observation, table)
    waits = any(
        record.scheduled_time is not None and record.node_uid is None and record.price_per_node_hour is None
        for record in priced.pods
    )
    if waits and not is_over:
        return status, priced
    total = 0.0
    for record in with_first_prices(gang, priced).pods:
        seconds = _seconds(record, gang, draft.observation, until)
        if seconds:
            total += seconds
            price = record.price_per_node_hour
            if price is None:
                price = price_by_selector(gang.capacity_type, draft.spec, table)
            status = _and_time(status, gang.capacity_type, record.zone, seconds, price)
    return status, replace(priced, accounted_until=until) if total else priced


def _seconds(record: PodRecord, gang: Gang, observation: Observation, until: datetime) -> float:
    if record.scheduled_time is None:
        return 0.0
    since = max(record.scheduled_time, gang.accounted_until or record.scheduled_time)
    return round(max(0.0, (_paid_until(record, observation, until) - since).total_seconds()), 3)


def _paid_until(record: PodRecord, observation: Observation, until: datetime) -> datetime:
    """The end of the pod's program or of its node, if that was earlier."""
    pods = () if observation.pods is UNKNOWN else observation.pods
    pod = find_pod(record, pods) or find_pod(record, observation.departed)
    ended = pod.trainer.terminated if pod is not None else None
    if ended is not None and ended.finished_at is not None:
        until = min(until, ended.finished_at)
    if record.node_gone_time is not None and node_of(record, None, observation) is None:
        until = min(until, record.node_gone_time)
    return until


def _and_time(
    status: JobStatus, capacity_type: CapacityType, zone: str | None, seconds: float, price: Decimal | None
) -> JobStatus:
    cost = _with_accrued(status.cost)
    unpriced = 0.0 if price is not None else seconds
    if capacity_type is CapacityType.SPOT:
        cost = replace(
            cost,
            spot_node_seconds=round(cost.spot_node_seconds + seconds, 3),
            unpriced_spot_node_seconds=round(cost.unpriced_spot_node_seconds + unpriced, 3),
        )
        rate = and_seen(status.interruption_rate, zone, Interruptions(node_seconds=seconds))
        status = replace(status, interruption_rate=rate)
    else:
        cost = replace(
            cost,
            on_demand_node_seconds=round(cost.on_demand_node_seconds + seconds, 3),
            unpriced_on_demand_node_seconds=round(cost.unpriced_on_demand_node_seconds + unpriced, 3),
        )
    return replace(status, cost=_and_money(cost, seconds, price))


def _and_money(cost: Cost, seconds: float, price: Decimal | None) -> Cost:
    if price is None:
        return cost
    money = _money(seconds, price)
    return replace(cost, accrued=((cost.accrued or NOTHING) + money).quantize(FINEST))


def _money(seconds: float, price: Decimal) -> Decimal:
    return Decimal(str(round(seconds, 3))) * price / SECONDS_PER_HOUR


def _with_accrued(cost: Cost) -> Cost:
    """A version that did not accrue wrote `spent`, or nothing where a price was missing."""
    if cost.accrued is not None:
        return cost
    if cost.spent is not None:
        return replace(cost, accrued=cost.spent.quantize(FINEST))
    return replace(
        cost,
        accrued=NOTHING,
        unpriced_spot_node_seconds=cost.spot_node_seconds,
        unpriced_on_demand_node_seconds=cost.on_demand_node_seconds,
    )


def sum_up(draft: Draft) -> Cost:
    """The cost with what people read: spent, saved and projected."""
    status = draft.status
    cost = _priced_later(_with_accrued(status.cost), draft.spec)
    on_demand = known_price(CapacityType.ON_DEMAND, draft.spec, status, draft.settings.prices)
    is_priced = not cost.unpriced_spot_node_seconds and not cost.unpriced_on_demand_node_seconds
    spent = cost.accrued if is_priced else None
    seconds = cost.spot_node_seconds + cost.on_demand_node_seconds
    alone = None if on_demand is None else _money(seconds, on_demand)
    ahead = NOTHING if is_finished(status) else _ahead(draft)
    return replace(
        cost,
        spent=_shown(spent),
        on_demand_only=_shown(alone),
        saved=None if spent is None or alone is None else _shown(alone - spent),
        projected=None if spent is None or ahead is None else _shown(spent + ahead),
    )


def _shown(money: Decimal | None) -> Decimal | None:
    return None if money is None else money.quantize(CENT_FRACTION)


def _priced_later(cost: Cost, spec: JobSpec) -> Cost:
    """Who names a price for a pool says what its nodes cost, also those of which nothing told it before."""
    spot, on_demand = spec.spot.price_per_node_hour, spec.on_demand.price_per_node_hour
    if spot is not None and cost.unpriced_spot_node_seconds:
        cost = _and_money(cost, cost.unpriced_spot_node_seconds, spot)
        cost = replace(cost, unpriced_spot_node_seconds=0.0)
    if on_demand is not None and cost.unpriced_on_demand_node_seconds:
        cost = _and_money(cost, cost.unpriced_on_demand_node_seconds, on_demand)
        cost = replace(cost, unpriced_on_demand_node_seconds=0.0)
    return cost


def _ahead(draft: Draft) -> Decimal | None:
    """What the node time that is still expected will cost; None: the work or a price is not known.

    It is the work left (by durable progress, at the measured rate: what is not saved yet is taken to be
    done again), and where no program works yet what a launch usually takes until it does, less what has
    passed of it; for each pod at the price of its node, or at what the capacity type in use costs. That is
    the type of the gang that works or is to work, and between two gangs the one that was chosen. Further
    interruptions, changes of capacity and the double time of a hand-over are not in it.
    """
    status = draft.status
    work = remaining_work_seconds(status, draft.spec)
    gang = working_gang(status)
    if gang is not None and gang.stop is not None:
        gang = None
    if gang is not None:
        capacity_type = gang.capacity_type
    elif status.capacity is not None:
        capacity_type = status.capacity.type
    else:
        return None
    if work is None or work > MAX_SECONDS_LEFT:
        return None
    seconds = work + _until_work(draft, gang, capacity_type)
    usual = known_price(capacity_type, draft.spec, status, draft.settings.prices)
    prices = [record.price_per_node_hour for record in gang.pods] if gang is not None else [None]
    found = [usual if price is None else price for price in prices]
    each = [_money(seconds, price) for price in found if price is not None]
    return sum(each, NOTHING) if len(each) == len(found) else None


def _until_work(draft: Draft, gang: Gang | None, capacity_type: CapacityType) -> float:
    if gang is not None and gang.pods[0].working_time is not None:
        return 0.0
    own, known = draft.status.overheads, draft.observation.known_overheads
    launches = (
        merged(own.spot, known.spot)
        if capacity_type is CapacityType.SPOT
        else merged(own.on_demand, known.on_demand)
    )
    expected = float(draft.settings.launch_seconds)
    usual = launches.mean_seconds(expected)
    if gang is None:
        return usual
    began = launch_began(gang, gang.pods[0].scheduled_time or draft.now, expected)
    return max(0.0, usual - (draft.now - began).total_seconds())


def cost_in_words(cost: Cost) -> str:
    """For people, at the end: "cost 4.1200, 8.1200 (66%) less than on on-demand alone"."""
    if cost.spent is None:
        seconds = cost.unpriced_spot_node_seconds + cost.unpriced_on_demand_node_seconds
        return f"cost not known: {seconds:.0f} s of node time have no price"
    text = f"cost {cost.spent}"
    if cost.saved is not None and cost.on_demand_only and cost.saved > 0:
        text += f", {cost.saved} ({cost.saved / cost.on_demand_only:.0%}) less than on on-demand alone"
    return text
