"""fallback.policy Auto: what status says becomes a situation, and the choice a capacity type."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from spot_operator.decide import auto, decide
from spot_operator.model import (
    Condition,
    DeadlineSpec,
    Decision,
    FallbackPolicy,
    FallbackSpec,
    JobSpec,
    JobStatus,
    Observation,
    Overheads,
    PolicySettings,
    Pool,
    Progress,
    Report,
)
from spot_operator.names import CapacityType, ConditionType, Reason
from spot_operator.policy import Launches, Notices, Running
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_observation,
    make_spec,
    make_status,
    seconds,
)

SETTINGS = PolicySettings()
NOTHING = Overheads()
HOUR = 3600.0
D = SETTINGS.launch_seconds + SETTINGS.on_demand_reserve_seconds


def auto_spec(finish_in: float | None, *, expected: int | None = None, **changes: Any) -> JobSpec:
    deadline = None
    if finish_in is not None:
        deadline = DeadlineSpec(finish_by=NOW + seconds(finish_in), expected_duration_seconds=expected)
    return make_spec(deadline=deadline, fallback=FallbackSpec(policy=FallbackPolicy.AUTO), **changes)


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


def test_spot_that_costs_as_much_is_not_taken() -> None:
    dear = auto_spec(100 * HOUR, expected=60, spot=Pool(price_per_node_hour=Decimal("3.06")))
    decision = look(dear, JobStatus(), pods=())
    assert chosen(decision) == (CapacityType.ON_DEMAND, Reason.SPOT_NOT_CHEAPER)


def test_a_deadline_that_cannot_be_kept_is_said_at_admission_with_its_numbers() -> None:
    decision = look(auto_spec(HOUR, expected=3500), JobStatus(), pods=())
    assert chosen(decision) == (CapacityType.ON_DEMAND, Reason.DEADLINE_INFEASIBLE)
    found = risk(decision)
    assert (found.status, found.reason) == (True, Reason.DEADLINE_NEAR)
    assert found.message.startswith("3500 s of work left, 180 s to start, 3600 s to the deadline; a later")


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


def test_a_trainer_that_waits_for_its_predecessor_does_not_work_yet() -> None:
    status = look(auto_spec(None), make_status(), report=report(step=None)).status
    assert status.overheads == NOTHING


def test_a_container_that_never_reports_works_when_it_has_started() -> None:
    early = look(auto_spec(None), make_status(claims=False)).status
    assert early.overheads.spot == Launches(1, 5.0, 5.0, 5.0)  # it has run for 95 s


def test_a_loss_with_nothing_to_repeat_speaks_for_the_notice() -> None:
    progress = Progress(step=100, durable_step=100, total_steps=200, steps_per_second=1.0)
    status = make_status(progress=progress)
    gone = make_observation(status=status, pods=(make_ended_pod(143),), nodes={"spot-a": None})
    assert step(gone).status.notices == Notices(landed=1, seen=1)
    behind = replace(status, progress=replace(progress, step=150))
    gone = make_observation(status=behind, pods=(make_ended_pod(143),), nodes={"spot-a": None})
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


@pytest.mark.parametrize("finish_in", [7200.0 + D + 400, 10 * HOUR])
def test_a_look_is_due_before_the_answer_changes(finish_in: float) -> None:
    decision = look(auto_spec(finish_in), working())
    assert decision.next_look is not None
    later = decision.next_look.total_seconds()
    assert later <= finish_in - 7200 - D
