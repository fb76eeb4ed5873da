"""`fallback.policy: Auto`: the capacity policy, told what status says.

The policy itself (`spot_operator.policy`) knows seconds and prices only. Here a job's status becomes
such a situation, and the choice a capacity type with a reason. Invariants: what is not known makes the
situation worse, never better; without a way back (`returnToSpot: Never`) on-demand stays chosen.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Final

from spot_operator.decide.overheads import merged
from spot_operator.decide.prices import known_price
from spot_operator.decide.progress import remaining_work_seconds
from spot_operator.model import Gang, JobSpec, JobStatus, Overheads, PolicySettings
from spot_operator.names import CapacityType, ConditionType, Reason
from spot_operator.policy import Action, Running, Situation, Why, choose
from spot_operator.policy import Choice as PolicyChoice

REACTION_SECONDS: Final = 15.0
"""Events and timers make the operator look at once; a report waits for 10 s at most."""
SAVE_SECONDS: Final = 30.0
"""From asking for a checkpoint to its being durable: a report, and a save."""
PRICE_RATIO: Final = (Decimal("0.9731"), Decimal("3.06"))
"""Spot and on-demand where nothing tells what both cost: a V100 at AWS in 2022 (Wu et al., NSDI '24)."""
ENDLESS_WORK_SECONDS: Final = 1e9
"""Without a deadline there is nothing to be late for, however much work is left."""

REASONS: Final = {
    Why.FINISHED: Reason.SPOT_FIRST,
    Why.ON_SPOT: Reason.SPOT_FIRST,
    Why.SPOT_THERE: Reason.SPOT_FIRST,
    Why.SPOT_LASTS: Reason.SPOT_FIRST,
    Why.ONLY_SPOT_CAN: Reason.SPOT_FIRST,
    Why.SLACK_LEFT: Reason.WAITING_FOR_SPOT,
    Why.SLACK_USED: Reason.DEADLINE_NEAR,
    Why.GUARD: Reason.DEADLINE_NEAR,
    Why.NO_SPOT: Reason.DEADLINE_NEAR,
    Why.SPOT_TOO_YOUNG: Reason.DEADLINE_NEAR,
    Why.NOT_WORTH_IT: Reason.DEADLINE_NEAR,
    Why.NOT_CHEAPER: Reason.SPOT_NOT_CHEAPER,
    Why.INFEASIBLE: Reason.DEADLINE_INFEASIBLE,
}


def decide_capacity(
    spec: JobSpec, status: JobStatus, now: datetime, settings: PolicySettings, known: Overheads
) -> PolicyChoice | None:
    """The policy's choice; None: how much work is left is not known, and there is a deadline."""
    found = situation(spec, status, now, settings, known)
    if found is None:
        return None
    choice = choose(found)
    if found.running is not Running.NOTHING or not found.spot_available:
        return choice
    doubt = _seconds_until_doubt(status, now, spot_patience_seconds(status, settings, known))
    if doubt is None:
        return choice
    look = choice.next_decision_seconds
    return replace(choice, next_decision_seconds=doubt if look is None else min(look, doubt))


def type_of(choice: PolicyChoice) -> CapacityType:
    """Who waits for spot does so with a pod that asks for it."""
    return CapacityType.ON_DEMAND if choice.action is Action.ON_DEMAND else CapacityType.SPOT


def situation(
    spec: JobSpec, status: JobStatus, now: datetime, settings: PolicySettings, known: Overheads
) -> Situation | None:
    deadline = spec.deadline
    work = remaining_work_seconds(status, spec)
    if deadline is not None and work is None:
        return None
    time_left = inf if deadline is None else (deadline.finish_by - now).total_seconds()
    work_left = ENDLESS_WORK_SECONDS if work is None else work
    spot = merged(status.overheads.spot, known.spot)
    on_demand = merged(status.overheads.on_demand, known.on_demand)
    expected = float(settings.launch_seconds)
    launch = spot.mean_seconds(expected)
    holder = _holder(working_gang(status))
    running = _running(holder)
    starts = spot if running is Running.SPOT else on_demand
    spot_price, on_demand_price = _prices(spec, status, settings)
    return Situation(
        time_left=time_left,
        work_left=work_left,
        at_risk=min(at_risk_seconds(status), work_left),
        running=running,
        startup_left=_startup_left(holder, now, starts.mean_seconds(expected)),
        spot_available=running is not Running.ON_DEMAND
        and _may_be_available(status, now, spot_patience_seconds(status, settings, known)),
        spot_age=0.0,
        launch_seconds=launch,
        on_demand_seconds=on_demand.high_seconds(expected) + _reserve_seconds(status, settings),
        reaction_seconds=REACTION_SECONDS,
        checkpoint_interval=float(spec.checkpoint.interval_seconds),
        checkpoint_seconds=SAVE_SECONDS if status.claims else None,
        notice_reliability=status.notices.reliability() if status.claims else 0.0,
        spot_price=float(spot_price),
        on_demand_price=float(on_demand_price),
    )


def _reserve_seconds(status: JobStatus, settings: PolicySettings) -> float:
    """What launches on on-demand do not show: that it is not instant to get, and, for a container that is
    not known to claim its store, that a lost pod is waited for before it has a successor."""
    take_over = 0.0 if status.claims else settings.plain_take_over_seconds
    return float(settings.on_demand_reserve_seconds + take_over)


def working_gang(status: JobStatus) -> Gang | None:
    """Who does the work: the predecessor as long as it is not stopped, while its successor asks for spot."""
    predecessor = status.predecessor
    return predecessor if predecessor is not None and predecessor.stop is None else status.gang


def _holder(gang: Gang | None) -> Gang | None:
    """The gang if it goes on where it is. On on-demand, which always comes, a pending pod is as good."""
    if gang is None or gang.stop is not None:
        return None
    is_bound = gang.pods[0].node_name is not None
    return gang if is_bound or gang.capacity_type is CapacityType.ON_DEMAND else None


def _running(gang: Gang | None) -> Running:
    if gang is None:
        return Running.NOTHING
    return Running.SPOT if gang.capacity_type is CapacityType.SPOT else Running.ON_DEMAND


def _startup_left(gang: Gang | None, now: datetime, usual: float) -> float:
    if gang is None or gang.pods[0].working_time is not None:
        return 0.0
    return max(0.0, usual - (now - gang.created_time).total_seconds())


def at_risk_seconds(status: JobStatus) -> float:
    """Done since the last durable checkpoint, by who runs now."""
    progress, gang = status.progress, working_gang(status)
    if gang is None or not progress.steps_per_second or progress.step is None:
        return 0.0
    if progress.incarnation is not None and progress.incarnation != gang.incarnation:
        return 0.0
    return max(0.0, (progress.step - (progress.durable_step or 0)) / progress.steps_per_second)


def launch_seconds(status: JobStatus, settings: PolicySettings, known: Overheads) -> float:
    """What a launch on on-demand usually takes until useful work."""
    return merged(status.overheads.on_demand, known.on_demand).mean_seconds(float(settings.launch_seconds))


def spot_patience_seconds(status: JobStatus, settings: PolicySettings, known: Overheads) -> float:
    """A pod that has waited for longer than any launch took waits because there is no spot."""
    return merged(status.overheads.spot, known.spot).high_seconds(float(settings.launch_seconds))


def _seconds_until_doubt(status: JobStatus, now: datetime, patience_seconds: float) -> float | None:
    """Until the pod that asks for spot has waited so long that there is none: then the answer may change."""
    gang = status.gang
    if gang is None or gang.stop is not None or gang.pods[0].node_name is not None:
        return None
    left = patience_seconds - (now - gang.created_time).total_seconds()
    # Decision times are whole seconds, rounded down: a look just before would find nothing changed.
    return left + 1.0 if left > 0 else None


def _may_be_available(status: JobStatus, now: datetime, patience_seconds: float) -> bool:
    """Only trying tells: spot is there until a pod has waited for longer than a launch may take."""
    gang, capacity = status.gang, status.capacity
    if gang is None:
        # Spot was left because it did not come, or would not be worth it: not back at once.
        return capacity is None or capacity.type is CapacityType.SPOT
    if gang.pods[0].node_name is not None:
        return True
    waits = any(c.type is ConditionType.CAPACITY_AVAILABLE and c.status is False for c in status.conditions)
    return not waits or (now - gang.created_time).total_seconds() < patience_seconds


def _prices(spec: JobSpec, status: JobStatus, settings: PolicySettings) -> tuple[Decimal, Decimal]:
    spot = known_price(CapacityType.SPOT, spec, status, settings.prices)
    on_demand = known_price(CapacityType.ON_DEMAND, spec, status, settings.prices)
    if spot is None or on_demand is None or not spot:
        return PRICE_RATIO
    if spot < on_demand:
        return spot, on_demand
    told = known_price(CapacityType.SPOT, spec, status, settings.prices, is_memory_asked=False)
    # What the last spot node cost when it went says little of the next, and only that could correct it:
    # by memory alone spot would never be asked for again.
    return PRICE_RATIO if told is None else (spot, on_demand)
