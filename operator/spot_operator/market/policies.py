"""The operator's own policies behind one interface: what is simulated is what will decide.

`Rules`, `SpotOnly` and `OnDemandOnly` are `decide.capacity.choose_capacity`, called with the job's own spec
and a status that holds what that function reads. `Auto` is `spot_operator.policy.choose`, called with a
`Situation` and fed with what the job has measured. Only the translation is in here; the rest of the operator
(verdicts, back-off, pods) is not played. Invariant: one object for one run.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf
from typing import Final

from spot_operator.decide.capacity import LOSSES, choose_capacity
from spot_operator.market.scenario import Decider, MarketView, Move, Scenario
from spot_operator.model import (
    CapacityStatus,
    Condition,
    DeadlineSpec,
    FallbackPolicy,
    Gang,
    JobSpec,
    JobStatus,
    PodRecord,
    PolicySettings,
    Progress,
    Restart,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Reason
from spot_operator.policy import Action, Launches, Notices, Running, Situation, choose

CREATED: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Where the clock of a simulated job begins; only differences matter."""
MAX_REMEMBERED_RESTARTS: Final = 50
assert Cause.INTERRUPTION in LOSSES


class Policy(StrEnum):
    """The words of `fallback.policy`."""

    AUTO = "Auto"
    RULES = "Rules"
    SPOT_ONLY = "SpotOnly"
    ON_DEMAND_ONLY = "OnDemandOnly"


def decider(policy: Policy, spec: JobSpec, scenario: Scenario, settings: PolicySettings) -> Decider:
    """A policy for one run of a job."""
    if policy is Policy.AUTO:
        return Auto(scenario)
    return Declared(FallbackPolicy(policy), spec, scenario, settings)


class Declared:
    """What `fallback` declares, by `choose_capacity`."""

    def __init__(
        self, policy: FallbackPolicy, spec: JobSpec, scenario: Scenario, settings: PolicySettings
    ) -> None:
        deadline = None
        if scenario.deadline_seconds < inf:
            deadline = DeadlineSpec(
                finish_by=CREATED + timedelta(seconds=scenario.deadline_seconds),
                expected_duration_seconds=round(scenario.work_seconds),
            )
        self._spec = replace(spec, fallback=replace(spec.fallback, policy=policy), deadline=deadline)
        self._settings = settings
        self._seconds_per_work = scenario.seconds_per_work
        self._capacity: CapacityStatus | None = None
        self._restarts: tuple[Restart, ...] = ()
        self._num_interruptions = 0

    def __call__(self, view: MarketView) -> Move:
        now = CREATED + timedelta(seconds=view.now)
        choice = choose_capacity(self._spec, self._status(view), now, self._settings)
        if self._capacity is None or self._capacity.type is not choice.type:
            self._capacity = CapacityStatus(type=choice.type, since=now, reason=choice.reason)
        action = Action.SPOT if choice.type is CapacityType.SPOT else Action.ON_DEMAND
        look = None
        if choice.next_decision_time is not None:
            look = (choice.next_decision_time - now).total_seconds()
        return Move(action, look)

    def _status(self, view: MarketView) -> JobStatus:
        for at in view.interruptions[self._num_interruptions :]:
            self._restarts = (*self._restarts, _interruption(at))[-MAX_REMEMBERED_RESTARTS:]
        self._num_interruptions = len(view.interruptions)
        gang: Gang | None = None
        conditions: tuple[Condition, ...] = ()
        if view.running is Running.NOTHING and not view.spot_available:
            # The pod that is created now waits from now on, unless it has been waiting already.
            since = view.now if view.pending_since is None else view.pending_since
            gang, conditions = _pending(CREATED + timedelta(seconds=since))
        return JobStatus(
            capacity=self._capacity,
            gang=gang,
            conditions=conditions,
            recent_restarts=self._restarts,
            progress=Progress(
                total_steps=round(view.work_total),
                durable_step=int(view.work_durable),
                steps_per_second=1 / self._seconds_per_work,
            ),
        )


def _interruption(at: float) -> Restart:
    return Restart(
        time=CREATED + timedelta(seconds=at),
        incarnation=1,
        capacity_type=CapacityType.SPOT,
        cause=Cause.INTERRUPTION,
        evidence="simulated",
        row="",
        pod_uid="",
        charged=False,
    )


def _pending(since: datetime) -> tuple[Gang, tuple[Condition, ...]]:
    record = PodRecord(name="simulated", rank=0, uid="simulated")
    gang = Gang(incarnation=1, capacity_type=CapacityType.SPOT, created_time=since, pods=(record,))
    condition = Condition(
        type=ConditionType.CAPACITY_AVAILABLE,
        status=False,
        reason=Reason.UNSCHEDULABLE,
        message="",
        last_transition_time=since,
        observed_generation=1,
    )
    return gang, (condition,)


class Auto:
    """The policy `Auto`, with overheads as told until they were measured."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._told_mean = scenario.overheads.mean(Running.SPOT)
        self._told_high = scenario.overheads.high(Running.ON_DEMAND)
        self._launches = Launches()
        self._on_demand_launches = Launches()
        self._notices = Notices()
        self._num_startups = self._num_notices = 0

    def __call__(self, view: MarketView) -> Move:
        self._learn(view)
        scenario, pace = self._scenario, self._scenario.seconds_per_work
        # On-demand is asked for at a look: half the time until the next one is lost on average.
        reserve = scenario.reaction_seconds / 2
        choice = choose(
            Situation(
                time_left=view.deadline - view.now,
                work_left=(view.work_total - view.work_durable) * pace,
                at_risk=(view.work_done - view.work_durable) * pace,
                running=view.running,
                startup_left=view.startup_left,
                spot_available=view.spot_available,
                spot_age=view.now - view.spot_since,
                launch_seconds=self._launches.mean_seconds(self._told_mean),
                on_demand_seconds=self._on_demand_launches.high_seconds(self._told_high) + reserve,
                reaction_seconds=scenario.reaction_seconds,
                checkpoint_interval=scenario.checkpoint_interval,
                checkpoint_seconds=scenario.checkpoint_seconds,
                notice_reliability=self._notices.reliability(),
                spot_price=view.spot_price,
                on_demand_price=view.on_demand_price,
            )
        )
        return Move(
            choice.action,
            choice.next_decision_seconds,
            checkpoint=choice.checkpoint_first and choice.action is Action.SPOT,
        )

    def _learn(self, view: MarketView) -> None:
        for running, seconds in view.startups[self._num_startups :]:
            self._launches = self._launches.and_one(seconds)
            if running is Running.ON_DEMAND:
                self._on_demand_launches = self._on_demand_launches.and_one(seconds)
        for landed in view.notices[self._num_notices :]:
            self._notices = self._notices.and_one(landed=landed)
        self._num_startups, self._num_notices = len(view.startups), len(view.notices)
