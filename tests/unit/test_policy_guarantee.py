"""A feasible deadline is kept on every market, as far as the guarantee's own conditions hold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from spot_market import Harm, Job, Play

from spot_operator.policy import Action, Running


@st.composite
def jobs(draw: st.DrawFn, *, feasible: bool = True) -> Job:
    work = draw(st.floats(600.0, 40_000.0))
    launch = draw(st.floats(1.0, 2_000.0))
    on_demand = launch * draw(st.floats(1.0, 3.0))
    reaction = draw(st.floats(1.0, 600.0))
    spare = draw(st.floats(0.0, 30_000.0) | st.floats(0.0, 600.0))
    return Job(
        work=work,
        deadline=work + on_demand + reaction + spare if feasible else work + on_demand - spare - 1.0,
        launch=launch,
        on_demand=on_demand,
        reaction=reaction,
        interval=draw(st.floats(30.0, 7_200.0)),
        checkpoint_seconds=draw(st.none() | st.floats(1.0, 600.0)),
        price_ratio=draw(st.floats(0.8, 8.0)),
    )


SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5).map(tuple)

HARMS = st.builds(
    Harm,
    spells=st.lists(
        st.tuples(st.floats(60.0, 20_000.0) | st.floats(60.0, 600.0), st.booleans()), min_size=1, max_size=12
    ).map(tuple),
    lateness=SHARES,
    spot_startups=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=5).map(tuple),
    checkpoints_land=st.booleans(),
    planned_changes_save=st.booleans(),
    kills_before_checkpoint=st.booleans(),
)


@given(jobs(), HARMS)
@settings(max_examples=200, deadline=None)
def test_no_market_makes_a_feasible_deadline_late(job: Job, harm: Harm) -> None:
    assert Play(job, harm).finish() <= job.deadline + 1e-3


@given(jobs())
@settings(max_examples=100, deadline=None)
def test_spot_that_always_goes_just_before_a_checkpoint_is_left_in_time(job: Job) -> None:
    harm = Harm(spells=((1e9, True),), spot_startups=(0.0,), kills_before_checkpoint=True)
    assert Play(job, harm).finish() <= job.deadline + 1e-3


@given(jobs(feasible=False), HARMS)
@settings(max_examples=100, deadline=None)
def test_an_infeasible_deadline_gets_on_demand_at_once_and_is_told(job: Job, harm: Harm) -> None:
    play = Play(job, harm)
    play.finish()
    first = play.choices[0]
    assert first.action is Action.ON_DEMAND
    assert first.shortfall > 0


def test_without_harm_the_whole_job_runs_on_spot() -> None:
    job = Job(work=36_000, deadline=50_000, launch=360, on_demand=720, reaction=60, interval=900)
    play = Play(job, Harm(spells=((1e9, True),)))
    assert play.finish() == 36_000 + 360
    assert {choice.action for choice in play.choices} == {Action.SPOT}


def test_a_job_on_on_demand_goes_back_to_spot_that_has_lasted() -> None:
    job = Job(work=36_000, deadline=48_000, launch=360, on_demand=720, reaction=60, interval=900)
    play = Play(job, Harm(spells=((9_000, False), (1e9, True))))
    play.finish()
    assert [choice.action for choice in play.choices].count(Action.WAIT) >= 1
    assert play.running is Running.SPOT


def test_nothing_flaps_on_a_market_that_blinks() -> None:
    """Ten minutes up, ten down: no way back to spot pays for itself, so there are few launches."""
    job = Job(work=36_000, deadline=42_000, launch=360, on_demand=720, reaction=60, interval=900)
    play = Play(job, Harm(spells=((600, True), (600, False))))
    assert play.finish() <= job.deadline
    assert play.num_starts <= 6
