"""What of a run's work is done and what of it is durable, at any time and without an event for it."""

import random

import pytest

from spot_operator.market.work import Work


def test_checkpoints_are_durable_some_time_after_they_began() -> None:
    work = Work(1000, interval=100, save=30)
    work.begin(at=50)
    assert (work.done(50), work.durable(50)) == (0, 0)
    assert (work.done(179), work.durable(179)) == (129, 0)
    assert (work.done(180), work.durable(180)) == (130, 100)
    assert work.durable(10_000) <= work.done(10_000) == 1000


def test_checkpoints_hold_training_up() -> None:
    work = Work(1000, interval=100, stall=10)
    work.begin(at=0)
    assert [work.done(t) for t in (100, 105, 110, 120, 220)] == [100, 100, 100, 110, 200]
    # Nine checkpoints fall within the work; the tenth would be its end.
    assert work.finish_time() == 1090


def test_an_end_without_notice_loses_what_is_not_durable() -> None:
    work = Work(1000, interval=100)
    work.begin(at=0)
    assert work.lose(250) == 50
    assert work.done(9999) == 200
    work.begin(at=300)
    assert work.finish_time() == 1100


def test_an_end_with_a_last_checkpoint_loses_nothing() -> None:
    work = Work(1000, interval=100)
    work.begin(at=0)
    assert work.keep(250) == 50
    assert work.durable(251) == 250


def test_a_checkpoint_that_was_asked_for_becomes_durable_and_the_rhythm_starts_anew() -> None:
    work = Work(1000, interval=100, save=20)
    work.begin(at=0)
    work.ask_for_checkpoint(50)
    assert work.durable(69) == 0
    assert work.durable(70) == 50
    assert work.durable(169) == 50
    assert work.durable(170) == 150


def test_without_an_interval_everything_is_durable_at_once() -> None:
    work = Work(1000, interval=0)
    work.begin(at=0)
    assert work.durable(123) == 123
    assert work.lose(123) == 0


@pytest.mark.parametrize("seed", range(20))
def test_durable_never_exceeds_done_and_neither_goes_back(seed: int) -> None:
    dice = random.Random(seed)
    work = Work(
        5000, interval=dice.choice([0, 60, 300]), stall=dice.choice([0, 3]), save=dice.choice([0, 20])
    )
    work.begin(at=0)
    now, done, durable = 0.0, 0.0, 0.0
    for _ in range(300):
        now += dice.expovariate(1 / 40)
        assert done <= work.done(now)
        assert durable <= work.durable(now) <= work.done(now) <= 5000
        match dice.randrange(12):
            case 0:
                work.ask_for_checkpoint(now)
            case 1:
                work.keep(now)
                work.begin(at=now + 10)
            case 2:
                work.lose(now)
                work.begin(at=now + 10)
        done, durable = work.done(now), work.durable(now)
