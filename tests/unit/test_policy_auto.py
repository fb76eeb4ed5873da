"""What the policy answers to one situation, and how answers to two situations compare."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_operator.policy import Action, Running, Situation, Why, choose, explain

HOUR = 3600.0

AT_EASE = Situation(
    time_left=70 * HOUR,
    work_left=48 * HOUR,
    running=Running.NOTHING,
    spot_available=True,
    spot_age=0.0,
    launch_seconds=360.0,
    on_demand_seconds=720.0,
    reaction_seconds=60.0,
    checkpoint_interval=900.0,
    notice_reliability=0.5,
    spot_price=1.0,
    on_demand_price=3.0,
)

seconds = st.floats(0.0, 300_000.0)


@st.composite
def situations(draw: st.DrawFn, running: Running | None = None) -> Situation:
    work = draw(st.floats(1.0, 200_000.0))
    launch = draw(st.floats(1.0, 4_000.0))
    return Situation(
        time_left=work + draw(st.floats(-10_000.0, 100_000.0)),
        work_left=work,
        at_risk=work * draw(st.floats(0.0, 0.99)) if running is not Running.NOTHING else 0.0,
        running=running or draw(st.sampled_from(Running)),
        startup_left=draw(st.just(0.0) | st.floats(0.0, 2_000.0)),
        spot_available=draw(st.booleans()),
        spot_age=draw(st.floats(0.0, 100_000.0)),
        launch_seconds=launch,
        on_demand_seconds=launch * draw(st.floats(1.0, 3.0)),
        reaction_seconds=draw(st.floats(1.0, 600.0)),
        checkpoint_interval=draw(st.just(0.0) | st.floats(30.0, 7_200.0)),
        checkpoint_seconds=draw(st.none() | st.floats(1.0, 600.0)),
        notice_reliability=draw(st.floats(0.0, 1.0)),
        spot_price=1.0,
        on_demand_price=draw(st.floats(0.5, 10.0)),
    )


def feasible(now: Situation) -> bool:
    return now.time_left >= now.work_left + now.on_demand_seconds


@given(situations(), seconds)
def test_more_time_left_never_turns_spot_or_wait_into_on_demand(now: Situation, more: float) -> None:
    if not (feasible(now) and choose(now).action is not Action.ON_DEMAND):
        return
    assert choose(replace(now, time_left=now.time_left + more)).action is not Action.ON_DEMAND


@given(situations(running=Running.NOTHING), seconds)
def test_more_work_left_never_turns_on_demand_into_spot_or_wait(now: Situation, more: float) -> None:
    if choose(now).action is not Action.ON_DEMAND:
        return
    assert choose(replace(now, work_left=now.work_left + more)).action is Action.ON_DEMAND


@given(situations(running=Running.SPOT), seconds)
def test_more_work_left_never_keeps_a_job_on_spot_that_left_it(now: Situation, more: float) -> None:
    if choose(now).action is not Action.ON_DEMAND:
        return
    choice = choose(replace(now, work_left=now.work_left + more))
    assert choice.action is Action.ON_DEMAND or choice.why is Why.ONLY_SPOT_CAN


@given(situations(running=Running.ON_DEMAND), st.floats(0.0, 100_000.0))
def test_spot_that_has_been_up_for_longer_is_never_less_welcome(now: Situation, more: float) -> None:
    if choose(now).action is not Action.SPOT:
        return
    assert choose(replace(now, spot_age=now.spot_age + more)).action is Action.SPOT


@given(situations())
def test_it_never_waits_when_it_cannot_afford_to(now: Situation) -> None:
    choice = choose(now)
    if choice.action is Action.WAIT and choice.why is not Why.FINISHED:
        assert choice.next_decision_seconds is not None
        later = now.time_left - choice.next_decision_seconds - now.reaction_seconds
        assert later >= now.work_left + now.on_demand_seconds - 2.0


@given(situations(running=Running.ON_DEMAND))
def test_it_never_leaves_on_demand_when_it_could_not_come_back_in_time(now: Situation) -> None:
    if choose(now).action is Action.SPOT:
        burned = min(now.reaction_seconds, now.on_demand_seconds) if now.checkpoint_interval <= 0 else 0.0
        burned = max(burned, now.launch_seconds)
        assert now.time_left - burned >= now.work_left + now.on_demand_seconds


@given(situations(running=Running.ON_DEMAND))
def test_it_never_gives_up_on_demand_for_nothing(now: Situation) -> None:
    assert choose(now).action is not Action.WAIT


@given(situations(running=Running.SPOT))
def test_spot_is_kept_only_while_its_loss_can_be_afforded(now: Situation) -> None:
    choice = choose(now)
    if not (now.checkpoint_interval > 0 and choice.why is not Why.ONLY_SPOT_CAN):
        return
    if choice.action is Action.SPOT:
        assert now.time_left - now.reaction_seconds >= now.work_left + now.on_demand_seconds


@given(situations())
def test_it_looks_again_no_sooner_than_in_a_second_and_always_says_why(now: Situation) -> None:
    choice = choose(now)
    assert choice.next_decision_seconds is None or choice.next_decision_seconds >= 1.0
    assert explain(choice)


def test_before_a_loss_would_be_too_dear_a_checkpoint_is_asked_for() -> None:
    now = replace(
        AT_EASE,
        running=Running.SPOT,
        at_risk=800.0,
        checkpoint_seconds=30.0,
        time_left=48 * HOUR + 720.0 + 140.0,
    )
    choice = choose(now)
    assert (choice.action, choice.checkpoint_first) == (Action.SPOT, True)
    assert "800 s of work are at risk" in explain(choice)


def test_a_loss_that_is_too_dear_makes_it_leave_with_a_checkpoint() -> None:
    now = replace(AT_EASE, running=Running.SPOT, at_risk=800.0, time_left=48 * HOUR + 720.0 + 59.0)
    choice = choose(now)
    assert (choice.action, choice.why, choice.checkpoint_first) == (Action.ON_DEMAND, Why.GUARD, True)
    assert choice.shortfall == 0


def test_a_spot_node_that_alone_can_make_it_is_not_left() -> None:
    now = replace(AT_EASE, running=Running.SPOT, work_left=1_000.0, time_left=1_100.0)
    choice = choose(now)
    assert (choice.action, choice.why) == (Action.SPOT, Why.ONLY_SPOT_CAN)
    assert "only this spot node can still make it" in explain(choice)


def test_an_infeasible_deadline_is_told_with_the_numbers() -> None:
    choice = choose(replace(AT_EASE, work_left=10_000.0, time_left=9_000.0))
    assert choice.action is Action.ON_DEMAND
    assert choice.shortfall == 1_720.0
    assert explain(choice) == (
        "the deadline is out of reach by 1720 s: 10000 s of work, 9000 s left, 720 s to start on on-demand; "
        "a later deadline, more nodes or faster starts would help"
    )


def test_without_a_deadline_it_waits_for_spot_as_long_as_it_takes() -> None:
    choice = choose(replace(AT_EASE, time_left=inf, spot_available=False, spot_age=1e6))
    assert (choice.action, choice.next_decision_seconds) == (Action.WAIT, None)
    assert "no deadline" in explain(choice)


def test_waiting_ends_when_what_is_to_be_kept_in_hand_is_reached() -> None:
    choice = choose(replace(AT_EASE, spot_available=False))
    in_hand = 0.16 * 48 * HOUR + 360 + 900 / 2 * 0.5
    assert choice.action is Action.WAIT
    assert choice.next_decision_seconds == pytest.approx(22 * HOUR - 720 - in_hand)


def test_a_spell_of_spot_that_is_too_young_is_looked_at_again_when_it_is_not() -> None:
    tight = replace(AT_EASE, time_left=50 * HOUR, launch_seconds=1_080.0, running=Running.ON_DEMAND)
    young = choose(tight)
    assert (young.action, young.why) == (Action.ON_DEMAND, Why.SPOT_TOO_YOUNG)
    assert young.next_decision_seconds is not None
    assert choose(replace(tight, spot_age=young.next_decision_seconds)).action is Action.SPOT


def test_spot_that_costs_as_much_is_not_worth_its_interruptions() -> None:
    choice = choose(replace(AT_EASE, spot_price=3.0))
    assert (choice.action, choice.why) == (Action.ON_DEMAND, Why.NOT_CHEAPER)


def test_spot_for_nothing_is_taken() -> None:
    assert choose(replace(AT_EASE, spot_price=0.0, running=Running.ON_DEMAND)).action is Action.SPOT


def test_no_work_left_starts_nothing_and_stops_nothing() -> None:
    done = replace(AT_EASE, work_left=100.0, at_risk=100.0)
    assert choose(done).action is Action.WAIT
    assert choose(replace(done, running=Running.SPOT)).action is Action.SPOT
    assert choose(replace(done, running=Running.ON_DEMAND)).action is Action.ON_DEMAND
    assert choose(done).why is Why.FINISHED
