"""fallback.policy Auto: what status says becomes a situation, and the choice a capacity type."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from spot_operator.decide import auto, decide
from spot_operator.decide.directives import directives
from spot_operator.model import (
    CapacityStatus,
    Condition,
    ContainerView,
    Cost,
    CreatePod,
    DeadlineSpec,
    Decision,
    DeletePod,
    FallbackPolicy,
    FallbackSpec,
    JobSpec,
    JobStatus,
    LaunchPhases,
    Observation,
    Overheads,
    PolicySettings,
    Pool,
    Progress,
    Report,
    ReturnToSpot,
    Taint,
)
from spot_operator.names import (
    LABEL_INSTANCE_TYPE,
    CapacityType,
    Cause,
    ConditionType,
    Phase,
    Reason,
    StopReason,
)
from spot_operator.policy import Launches, Notices, Running
from spot_operator.prices import NodePrices
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_outcome,
    make_pod,
    make_spec,
    make_status,
    seconds,
)
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()
NOTHING = Overheads()
HOUR = 3600.0
D = SETTINGS.launch_seconds + SETTINGS.on_demand_reserve_seconds


def auto_spec(finish_in: float | None, *, expected: int | None = None, **changes: Any) -> JobSpec:
    deadline = None
    if finish_in is not None:
        deadline = DeadlineSpec(finish_by=NOW + seconds(finish_in), expected_duration_seconds=expected)
    never_back = FallbackSpec(policy=FallbackPolicy.AUTO)
    return make_spec(**({"deadline": deadline, "fallback": never_back} | changes))


BACK_AND_FORTH = FallbackSpec(policy=FallbackPolicy.AUTO, return_to_spot=ReturnToSpot.AUTO)


def working(**changes: Any) -> JobStatus:
    """Runs on spot and is known to work; 7200 of 10,000 steps to do, at one a second, 300 not saved."""
    gang = make_gang()
    record = replace(gang.pods[0], working_time=NOW - seconds(60))
    progress = Progress(
        step=3100, total_steps=10_000, durable_step=2800, steps_per_second=1.0, reported_time=NOW
    )
    return make_status(**({"gang": replace(gang, pods=(record,)), "progress": progress} | changes))


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def look(spec: JobSpec, status: JobStatus, **changes: Any) -> Decision:
    return step(make_observation(spec=spec, status=status, **changes))


def chosen(decision: Decision) -> tuple[CapacityType, Reason]:
    capacity = decision.status.capacity
    assert capacity is not None
    return capacity.type, capacity.reason


def risk(decision: Decision) -> Condition:
    return next(c for c in decision.status.conditions if c.type is ConditionType.DEADLINE_AT_RISK)


def test_with_time_in_hand_spot_goes_on_and_says_when_it_will_be_asked_again() -> None:
    decision = look(auto_spec(10 * HOUR), working())
    assert chosen(decision) == (CapacityType.SPOT, Reason.SPOT_FIRST)
    assert decision.status.capacity is not None
    decides = decision.status.capacity.next_decision_time
    assert decides is not None
    # Work that is not saved counts as left, and on-demand needs its launch and its reserve.
    assert decides <= NOW + seconds(10 * HOUR - 7200 - D)
    assert decision.actions == ()


def test_a_container_that_may_not_claim_keeps_the_time_for_which_its_lost_pod_is_waited_for() -> None:
    def slack(status: JobStatus) -> float:
        found = auto.situation(auto_spec(10 * HOUR), status, NOW, SETTINGS, NOTHING)
        assert found is not None
        return found.time_left - found.work_left - found.on_demand_seconds

    assert slack(working()) - slack(working(claims=False)) == SETTINGS.plain_take_over_seconds


def test_spot_is_left_when_the_loss_of_the_node_would_make_the_deadline_unreachable() -> None:
    decision = look(auto_spec(7200 + D + 5), working())
    assert chosen(decision) == (CapacityType.ON_DEMAND, Reason.DEADLINE_NEAR)
    assert "DeletePod" in [type(action).__name__ for action in decision.actions]


def test_a_checkpoint_is_asked_for_before_spot_is_left_for_what_is_not_saved() -> None:
    decision = look(auto_spec(7200 + D + 40), working())
    assert chosen(decision)[0] is CapacityType.SPOT
    assert decision.status.capacity is not None
    assert decision.status.capacity.checkpoint_wish_time == NOW
    again = look(auto_spec(7200 + D + 40), decision.status)
    assert again.status.capacity is not None
    assert again.status.capacity.checkpoint_wish_time == NOW


def test_a_wish_that_was_answered_may_be_followed_by_another() -> None:
    wished = look(auto_spec(7200 + D + 40), working()).status
    saved = replace(wished, progress=replace(wished.progress, durable_time=NOW + seconds(1)))
    later = step(make_observation(spec=auto_spec(7200 + D + 40), status=saved), after=5).status
    assert later.capacity is not None
    assert later.capacity.checkpoint_wish_time == NOW + seconds(5)


def test_without_a_deadline_nothing_is_bought() -> None:
    decision = look(auto_spec(None), working())
    assert chosen(decision) == (CapacityType.SPOT, Reason.SPOT_FIRST)
    assert decision.status.capacity is not None
    assert decision.status.capacity.next_decision_time is None


def test_work_that_nobody_knows_is_said_and_runs_on_spot() -> None:
    decision = look(auto_spec(HOUR), make_status())
    assert chosen(decision) == (CapacityType.SPOT, Reason.WORK_UNKNOWN)
    assert (risk(decision).status, risk(decision).reason) == (None, Reason.WORK_UNKNOWN)
    assert "expectedDurationSeconds" in risk(decision).message


def test_on_demand_stays_chosen_where_there_is_no_way_back() -> None:
    moved = look(auto_spec(7200 + D + 5), working()).status
    later = look(auto_spec(100 * HOUR), moved)
    assert chosen(later) == (CapacityType.ON_DEMAND, Reason.DEADLINE_NEAR)


BARE = {"spot": Pool(), "on_demand": Pool()}
DEAR = {"big": NodePrices(spot=Decimal(5), on_demand=Decimal(5))}


def prices(status: JobStatus, settings: PolicySettings = SETTINGS, **pools: Pool) -> tuple[float, float]:
    found = auto.situation(auto_spec(10 * HOUR, **(BARE | pools)), status, NOW, settings, NOTHING)
    assert found is not None
    return found.spot_price, found.on_demand_price


def test_the_policy_plans_with_the_best_prices_that_are_known() -> None:
    table = PolicySettings(prices={"big": NodePrices(spot=Decimal(2), on_demand=Decimal(9))})
    named = Pool(node_selector={LABEL_INSTANCE_TYPE: "big"})
    assert prices(working()) == (0.9731, 3.06)
    assert prices(working(cost=Cost(spot_price=Decimal(2)))) == (0.9731, 3.06)  # one alone is no ratio
    assert prices(working(cost=Cost(spot_price=Decimal(0), on_demand_price=Decimal(9)))) == (0.9731, 3.06)
    assert prices(working(cost=Cost(spot_price=Decimal(3), on_demand_price=Decimal(4)))) == (3.0, 4.0)
    assert prices(working(), table, spot=named, on_demand=named) == (2.0, 9.0)
    own = Pool(price_per_node_hour=Decimal(1))
    assert prices(working(), table, spot=own, on_demand=named) == (1.0, 9.0)


def test_spot_that_is_not_cheaper_by_the_table_is_not_taken() -> None:
    named = Pool(node_selector={LABEL_INSTANCE_TYPE: "big"})
    spec = auto_spec(10 * HOUR, expected=7200, spot=named, on_demand=named)
    waiting = make_observation(spec=spec, status=JobStatus(), pods=())
    assert chosen(decide(waiting, NOW, PolicySettings(prices=DEAR))) == (
        CapacityType.ON_DEMAND, Reason.SPOT_NOT_CHEAPER,
    )  # fmt: skip
    assert chosen(decide(waiting, NOW, SETTINGS)) == (CapacityType.SPOT, Reason.SPOT_FIRST)


def test_what_the_last_spot_node_cost_does_not_keep_a_job_off_spot_for_ever() -> None:
    peak = Cost(spot_price=Decimal("3.20"), on_demand_price=Decimal("3.06"))
    spec = auto_spec(10 * HOUR, expected=3600, **BARE)
    remembered = make_status(gang=None, cost=peak)
    assert chosen(look(spec, remembered, pods=()))[0] is CapacityType.SPOT
    told = replace(spec, spot=replace(spec.spot, price_per_node_hour=Decimal("3.20")))
    assert chosen(look(told, remembered, pods=()))[0] is CapacityType.ON_DEMAND


def test_spot_that_costs_as_much_is_not_taken() -> None:
    dear = auto_spec(100 * HOUR, expected=60, spot=Pool(price_per_node_hour=Decimal("3.06")))
    decision = look(dear, JobStatus(), pods=())
    assert chosen(decision) == (CapacityType.ON_DEMAND, Reason.SPOT_NOT_CHEAPER)


def test_a_deadline_that_cannot_be_kept_is_said_at_admission_with_its_numbers() -> None:
    decision = look(auto_spec(HOUR, expected=3500), JobStatus(), pods=())
    assert chosen(decision) == (CapacityType.ON_DEMAND, Reason.DEADLINE_INFEASIBLE)
    found = risk(decision)
    assert (found.status, found.reason) == (True, Reason.DEADLINE_NEAR)
    assert found.message.startswith(
        "by the expected duration alone: 3500 s of work left, 180 s to start, 3600 s to the deadline; a later"
    )


def test_what_was_measured_takes_the_place_of_what_was_assumed() -> None:
    slow = Overheads(spot=Launches().and_one(50.0), on_demand=Launches().and_one(900.0).and_one(1000.0))
    status = working(overheads=slow)
    found = auto.situation(auto_spec(10 * HOUR), status, NOW, SETTINGS, NOTHING)
    assert found is not None
    assert found.launch_seconds == 50.0
    assert found.on_demand_seconds >= 1000.0 + SETTINGS.on_demand_reserve_seconds


def test_what_other_jobs_have_measured_counts_as_well() -> None:
    known = Overheads(on_demand=Launches().and_one(2000.0))
    own = auto.situation(auto_spec(10 * HOUR), working(), NOW, SETTINGS, NOTHING)
    shared = auto.situation(auto_spec(10 * HOUR), working(), NOW, SETTINGS, known)
    assert own is not None
    assert shared is not None
    assert shared.on_demand_seconds > own.on_demand_seconds + 1500


def test_a_pod_that_waits_is_no_node_and_spot_counts_as_absent_after_a_while() -> None:
    gang = make_gang(created_time=NOW - seconds(30))
    record = replace(gang.pods[0], node_name=None, scheduled_time=None, started_time=None)
    waiting = Condition(
        type=ConditionType.CAPACITY_AVAILABLE,
        status=False,
        reason=Reason.UNSCHEDULABLE,
        message="",
        last_transition_time=NOW,
        observed_generation=1,
    )
    status = make_status(gang=replace(gang, pods=(record,)), conditions=(waiting,))
    for age, is_there in ((30, True), (181, False)):
        aged = replace(status, gang=replace(status.gang, created_time=NOW - seconds(age)))  # type: ignore[type-var]
        found = auto.situation(auto_spec(HOUR, expected=60), aged, NOW, SETTINGS, NOTHING)
        assert found is not None
        assert (found.running, found.spot_available) == (Running.NOTHING, is_there)


def test_who_waits_for_spot_is_asked_again_when_it_counts_as_absent() -> None:
    """Else a job with slack for a try, and none for waiting, would wait until only on-demand will do."""
    gang = make_gang(created_time=NOW)
    record = replace(gang.pods[0], node_name=None, scheduled_time=None, started_time=None)
    status = make_status(gang=replace(gang, pods=(record,)))
    spec = auto_spec(HOUR + 1000, expected=3600)
    decision = look(spec, status, pods=(make_pod(node_name=None, phase="Pending"),))
    assert chosen(decision) == (CapacityType.SPOT, Reason.SPOT_FIRST)
    assert decision.next_look is not None
    assert decision.next_look <= seconds(SETTINGS.launch_seconds + 1)


# --- what is learned -------------------------------------------------------------------------


def report(**changes: Any) -> Report:
    return replace(Report(pod_uid=POD_UID, received=NOW, incarnation=1, step=1), **changes)


def test_the_first_step_that_is_reported_ends_the_launch() -> None:
    status = look(auto_spec(None), make_status(), report=report()).status
    assert status.overheads.spot == Launches(1, 100.0, 100.0, 100.0)
    assert status.gang is not None
    assert status.gang.pods[0].working_time == NOW
    again = look(auto_spec(None), status, report=report(received=NOW + seconds(1), step=2)).status
    assert again.overheads == status.overheads


def test_a_wait_for_spot_is_no_part_of_its_launch() -> None:
    """A drought of hours would make each launch look as long, and no later one worth waiting for."""
    drought = timedelta(hours=3)

    def measured(capacity_type: CapacityType) -> Overheads:
        gang = make_gang(capacity_type, created_time=NOW - seconds(30) - drought)
        record = replace(gang.pods[0], scheduled_time=NOW - seconds(30), started_time=NOW - seconds(20))
        status = make_status(gang=replace(gang, pods=(record,)))
        return look(auto_spec(None), status, report=report()).status.overheads

    assert measured(CapacityType.SPOT).spot == Launches().and_one(30.0)
    assert measured(CapacityType.ON_DEMAND).on_demand == Launches().and_one(30.0 + drought.total_seconds())


def test_what_a_launch_went_into_is_kept_by_capacity_type() -> None:
    gang = make_gang(created_time=NOW - seconds(100))
    record = replace(gang.pods[0], scheduled_time=NOW - seconds(70), started_time=NOW - seconds(20))
    status = make_status(gang=replace(gang, pods=(record,)))
    found = look(auto_spec(None), status, report=report()).status
    expected = LaunchPhases(count=1, scheduling_seconds=30, starting_seconds=50, restoring_seconds=20)
    assert (found.overheads.spot_phases, found.overheads.on_demand_phases) == (expected, LaunchPhases())

    on_demand = make_gang(CapacityType.ON_DEMAND, created_time=NOW - seconds(100), pods=(record,))
    again = make_status(gang=on_demand, overheads=found.overheads)
    both = look(auto_spec(None), again, report=report()).status.overheads
    assert (both.spot_phases, both.on_demand_phases) == (expected, expected)

    third = make_status(gang=replace(gang, pods=(record,)), overheads=both)
    seen = look(auto_spec(None), third, report=report()).status.overheads.spot_phases
    assert seen == LaunchPhases(count=2, scheduling_seconds=60, starting_seconds=100, restoring_seconds=40)


def test_of_a_launch_whose_times_contradict_each_other_no_phase_is_negative() -> None:
    gang = make_gang(created_time=NOW - seconds(100))
    record = replace(gang.pods[0], scheduled_time=NOW - seconds(101), started_time=NOW + seconds(1))
    status = make_status(gang=replace(gang, pods=(record,)))
    found = look(auto_spec(None), status, report=report()).status.overheads.spot_phases
    assert (found.scheduling_seconds, found.restoring_seconds) == (0, 0)


def test_a_trainer_that_waits_for_its_predecessor_does_not_work_yet() -> None:
    status = look(auto_spec(None), make_status(), report=report(step=None)).status
    assert status.overheads == NOTHING


def test_a_container_that_never_reports_works_when_it_has_started() -> None:
    early = look(auto_spec(None), make_status(claims=False)).status
    assert early.overheads.spot == Launches(1, 5.0, 5.0, 5.0)  # it has run for 95 s


def test_long_launches_do_not_make_longer_waits_pass_for_launches() -> None:
    gang = make_gang(created_time=NOW - seconds(400))
    record = replace(gang.pods[0], scheduled_time=NOW - seconds(30), started_time=NOW - seconds(20))
    slow = Overheads(spot=Launches().and_one(600.0))
    status = make_status(gang=replace(gang, pods=(record,)), overheads=slow)
    found = look(auto_spec(None), status, report=report(), known_overheads=slow).status.overheads
    assert found.spot == slow.spot.and_one(30.0)


def test_a_launch_that_nobody_could_hear_the_end_of_is_not_measured() -> None:
    """The operator was away for two hours, in which the program began."""
    gang = make_gang(created_time=NOW - seconds(7200))
    record = replace(gang.pods[0], scheduled_time=NOW - seconds(7190), started_time=NOW - seconds(7180))
    status = make_status(gang=replace(gang, pods=(record,)))
    found = look(auto_spec(None), status, report=report(), reports_since=NOW - seconds(5)).status
    assert found.overheads == NOTHING
    assert found.gang is not None
    assert found.gang.pods[0].working_time is not None
    heard = look(auto_spec(None), status, report=report(), reports_since=NOW - seconds(7200)).status
    assert heard.overheads.spot.count == 1


def test_a_container_whose_node_went_at_once_never_worked() -> None:
    gang = make_gang()
    record = replace(gang.pods[0], node_gone_time=NOW - seconds(90))  # it had run for 5 s
    status = make_status(claims=False, gang=replace(gang, pods=(record,)))
    assert look(auto_spec(None), status, nodes={"spot-a": None}).status.overheads == NOTHING


def test_a_loss_with_nothing_to_repeat_speaks_for_the_notice() -> None:
    progress = Progress(step=100, durable_step=100, total_steps=200, steps_per_second=1.0, incarnation=1)
    status = make_status(progress=progress)
    gone = make_observation(status=status, pods=(make_ended_pod(143),), nodes={"spot-a": None})
    assert step(gone).status.notices == Notices(landed=1, seen=1)
    behind = replace(status, progress=replace(progress, step=150))
    gone = make_observation(status=behind, pods=(make_ended_pod(143),), nodes={"spot-a": None})
    assert step(gone).status.notices == Notices(landed=0, seen=1)


def test_a_program_that_vanished_with_its_node_had_no_time_for_a_checkpoint() -> None:
    """Its last report may have come right after a checkpoint; what it did since then is lost all the same."""
    progress = Progress(step=100, durable_step=100, total_steps=200, steps_per_second=1.0, incarnation=1)
    status = make_status(progress=progress)
    gone = make_observation(status=status, pods=(), nodes={"spot-a": None})
    assert step(gone).status.notices == Notices(landed=0, seen=1)


# --- each precondition of the guarantee, broken: it is said before the deadline is missed --------


def first_warning(spec: JobSpec, status: JobStatus, **changes: Any) -> float | None:
    """Seconds from now at which the deadline is first called at risk, looking every ten seconds."""
    for after in range(0, 8 * 3600, 10):
        decision = step(make_observation(spec=spec, status=status, **changes), after=after)
        if risk(decision).status:
            return float(after)
    return None


def on_demand_pending() -> JobStatus:
    gang = make_gang(CapacityType.ON_DEMAND, created_time=NOW)
    record = replace(gang.pods[0], node_name=None, node_uid=None, scheduled_time=None, started_time=None)
    return working(gang=replace(gang, pods=(record,)))


def test_on_demand_that_does_not_come() -> None:
    warned = first_warning(auto_spec(8000), on_demand_pending(), pods=())
    assert warned is not None
    assert warned < 8000 - 7200 + 10


def test_a_program_that_gets_slower_than_it_was() -> None:
    status = working(gang=replace(make_gang(CapacityType.ON_DEMAND)))
    slower = replace(status, progress=replace(status.progress, steps_per_second=0.5))
    assert not risk(look(auto_spec(8000), status)).status
    assert risk(look(auto_spec(8000), slower)).status


def test_durable_progress_that_was_lost() -> None:
    status = working(gang=replace(make_gang(CapacityType.ON_DEMAND)))
    back = replace(status, progress=replace(status.progress, durable_step=0, step=0))
    assert not risk(look(auto_spec(8000), status)).status
    assert risk(look(auto_spec(8000), back)).status


def test_a_program_that_crashes_on_on_demand() -> None:
    status = working(gang=None, next_launch_time=NOW + seconds(7 * HOUR))
    warned = first_warning(auto_spec(8000), status, pods=())
    assert warned is not None
    assert warned <= 8000 - 7200


def test_on_demand_that_is_taken_away() -> None:
    gang = make_gang(CapacityType.ON_DEMAND)
    record = replace(gang.pods[0], working_time=NOW - seconds(60))
    status = working(gang=replace(gang, pods=(record,)))
    spec = auto_spec(7200 - 300 + 60)  # enough for it to go on, and not to begin again elsewhere
    assert not risk(look(spec, status)).status
    lost = look(spec, status, pods=(make_ended_pod(143),), nodes={"spot-a": None})
    assert [found.cause for found in lost.status.recent_restarts] == [Cause.NODE_LOST]
    assert risk(lost).status
    assert f"{7200 - 300 + 60} s to the deadline" in risk(lost).message


@pytest.mark.parametrize(("late", "is_told"), [(300.0, False), (3600.0, True)])
def test_an_operator_that_was_away_while_spot_went(late: float, is_told: bool) -> None:
    """The slack that a look in time would have kept is gone; what is left is told by the first look."""
    finish_in = 7200 + D + 400
    status = working()
    spec = auto_spec(finish_in)
    assert not risk(look(spec, status)).status
    lost = make_observation(spec=spec, status=status, pods=(make_ended_pod(143),), nodes={"spot-a": None})
    found = step(lost, after=late)
    assert chosen(found)[0] is CapacityType.ON_DEMAND
    assert risk(found).status is is_told
    if is_told:
        assert f"{finish_in - late:.0f} s to the deadline" in risk(found).message


@pytest.mark.parametrize("finish_in", [7200.0 + D + 400, 10 * HOUR])
def test_a_look_is_due_before_the_answer_changes(finish_in: float) -> None:
    decision = look(auto_spec(finish_in), working())
    assert decision.next_look is not None
    later = decision.next_look.total_seconds()
    assert later <= finish_in - 7200 - D


# --- back to spot ------------------------------------------------------------------------------


def on_demand(**changes: Any) -> JobStatus:
    """Works on on-demand, since spot did not come a while ago."""
    gang = make_gang(CapacityType.ON_DEMAND)
    record = replace(gang.pods[0], working_time=NOW - seconds(60))
    capacity = CapacityStatus(
        type=CapacityType.ON_DEMAND, since=NOW - seconds(100), reason=Reason.DEADLINE_NEAR, message=""
    )
    return working(**({"gang": replace(gang, pods=(record,)), "capacity": capacity} | changes))


def created(decision: Decision) -> list[str]:
    return [a.name for a in decision.actions if isinstance(a, CreatePod)]


def deleted(decision: Decision) -> list[str]:
    return [a.name for a in decision.actions if isinstance(a, DeletePod)]


PLENTY = auto_spec(10 * HOUR, fallback=BACK_AND_FORTH)
CANDIDATE = "digits-0c5e1-2-0"


def asking() -> JobStatus:
    return look(PLENTY, on_demand()).status


def candidate_pod(**changes: Any) -> Any:
    return replace(make_pod(name=CANDIDATE, uid="uid-2", incarnation=2, node_name="spot-b"), **changes)


def test_spot_is_asked_for_beside_on_demand_which_goes_on() -> None:
    decision = look(PLENTY, on_demand())
    assert (created(decision), deleted(decision)) == ([CANDIDATE], [])
    status = decision.status
    assert status.predecessor is not None
    assert status.gang is not None
    assert (status.predecessor.incarnation, status.predecessor.stop) == (1, None)
    assert (status.gang.capacity_type, status.gang.hands_over_from) == (CapacityType.SPOT, 1)
    assert chosen(decision)[0] is CapacityType.ON_DEMAND
    assert status.phase is Phase.RUNNING
    assert status.message.endswith("asks for spot")


def test_spot_that_would_not_be_wanted_before_the_next_report_is_not_asked_for() -> None:
    def asked(finish_in: float) -> bool:
        return created(look(auto_spec(finish_in, fallback=BACK_AND_FORTH), on_demand())) != []

    enough = next(each for each in range(7200, 36_000, 5) if asked(each))
    pending = candidate_pod(node_name=None, phase="Pending", trainer=ContainerView(), conditions=())
    barely = auto_spec(enough, fallback=BACK_AND_FORTH)
    waiting = make_observation(spec=barely, status=asking(), pods=(make_pod(), pending))
    assert deleted(step(waiting, after=2 * auto.REACTION_SECONDS - 5)) == []
    assert deleted(step(waiting, after=2 * auto.REACTION_SECONDS + 5)) == [CANDIDATE]


SLOW = Overheads(spot=Launches().and_one(1800.0), on_demand=Launches().and_one(1800.0))


def test_spot_that_would_have_to_prove_itself_for_long_is_not_asked_for() -> None:
    """Its node would be paid for all that time, beside the one that works."""
    six_hours = auto_spec(6 * HOUR, fallback=BACK_AND_FORTH)
    assert created(look(six_hours, on_demand())) == [CANDIDATE]
    assert created(look(six_hours, on_demand(overheads=SLOW))) == []
    assert created(look(PLENTY, on_demand(overheads=SLOW))) == [CANDIDATE]


def test_nor_is_it_kept_until_its_trainer_would_claim_by_itself() -> None:
    six_hours = auto_spec(6 * HOUR, fallback=BACK_AND_FORTH)
    pods = (make_pod(), candidate_pod())
    assert deleted(look(six_hours, replace(asking(), overheads=SLOW), pods=pods)) == [CANDIDATE]


def test_what_hints_at_the_loss_of_the_node_that_works_is_worth_a_checkpoint() -> None:
    cordoned = {"spot-a": make_node(unschedulable=True), "spot-b": make_node(name="spot-b")}
    pending = candidate_pod(node_name=None, phase="Pending", trainer=ContainerView(), conditions=())
    decision = look(PLENTY, asking(), pods=(make_pod(), pending), nodes=cordoned)
    assert Reason.NODE_HINT in [event.reason for event in decision.events]
    wish = directives(make_observation(spec=PLENTY, status=decision.status), 1).checkpoint_now
    assert wish is not None
    assert wish.startswith("hint-")


def test_it_is_taken_when_its_container_runs() -> None:
    waiting = make_observation(spec=PLENTY, status=asking(), pods=(make_pod(), candidate_pod()))
    decision = step(waiting, after=30)
    assert deleted(decision) == ["digits-0c5e1-1-0"]
    assert chosen(decision)[0] is CapacityType.SPOT
    assert decision.status.predecessor is not None
    assert decision.status.predecessor.stop is not None
    assert decision.status.predecessor.stop.reason is StopReason.CAPACITY_CHANGE


def test_it_is_not_taken_while_it_only_waits() -> None:
    pending = candidate_pod(node_name=None, phase="Pending", trainer=ContainerView(), conditions=())
    waiting = make_observation(spec=PLENTY, status=asking(), pods=(make_pod(), pending))
    decision = step(waiting, after=30)
    assert (decision.actions, chosen(decision)[0]) == ((), CapacityType.ON_DEMAND)


def test_it_is_withdrawn_when_it_does_not_pay_any_more() -> None:
    pending = candidate_pod(node_name=None, phase="Pending", trainer=ContainerView(), conditions=())
    late = auto_spec(7200 + D + 5, fallback=BACK_AND_FORTH)
    decision = look(late, asking(), pods=(make_pod(), pending))
    assert deleted(decision) == [CANDIDATE]
    gone = look(late, decision.status, pods=(make_pod(),))
    assert gone.status.predecessor is None
    assert gone.status.gang is not None
    assert (gone.status.gang.incarnation, gone.status.gang.stop) == (1, None)
    assert gone.status.recent_restarts[-1].cause is Cause.CAPACITY_CHANGE
    assert gone.actions == ()


def test_spot_that_was_lost_again_is_not_asked_for_for_a_while() -> None:
    ended = candidate_pod(phase="Failed", trainer=make_ended_pod(143).trainer)
    lost = look(PLENTY, asking(), pods=(make_pod(), ended), nodes={"spot-a": make_node(), "spot-b": None})
    assert lost.status.gang is not None
    assert lost.status.gang.incarnation == 1
    assert created(lost) == []
    pause = make_observation(spec=PLENTY, status=lost.status, pods=(make_pod(),))
    assert created(step(pause, after=14 * 60)) == []
    assert created(step(pause, after=15 * 60 + 1)) == ["digits-0c5e1-3-0"]


@pytest.mark.parametrize(
    "status",
    [
        on_demand(claims=False),
        on_demand(gang=make_gang(CapacityType.ON_DEMAND)),
    ],
    ids=["a container that does not claim", "one that does not work yet"],
)
def test_who_cannot_hand_over_stays(status: JobStatus) -> None:
    assert created(look(PLENTY, status)) == []


def test_near_the_end_nothing_moves() -> None:
    near = on_demand()
    near = replace(near, progress=replace(near.progress, durable_step=9900, step=9900))
    assert created(look(PLENTY, near)) == []


def test_a_suspension_stops_both() -> None:
    suspended = auto_spec(10 * HOUR, fallback=BACK_AND_FORTH, suspend=True)
    decision = look(suspended, asking(), pods=(make_pod(), candidate_pod()))
    assert sorted(deleted(decision)) == ["digits-0c5e1-1-0", CANDIDATE]


def test_a_reclaim_of_the_one_that_works_leaves_the_other_as_its_successor() -> None:
    going = make_node(taints=(Taint(key="karpenter.sh/disrupted", effect="NoSchedule"),))
    pending = candidate_pod(node_name=None, phase="Pending", trainer=ContainerView(), conditions=())
    decision = look(PLENTY, asking(), pods=(make_pod(), pending), nodes={"spot-a": going})
    assert deleted(decision) == ["digits-0c5e1-1-0"]
    assert decision.status.gang is not None
    assert (decision.status.gang.incarnation, decision.status.gang.stop) == (2, None)


def test_completion_of_the_one_that_works_ends_the_other() -> None:
    done = make_ended_pod(0, outcome=make_outcome(OutcomeKind.COMPLETE, "Completed"))
    decision = look(PLENTY, asking(), pods=(done, candidate_pod()))
    assert decision.status.phase is Phase.COMPLETE
    assert CANDIDATE in deleted(decision)
