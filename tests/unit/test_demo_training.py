"""The trainer's lines become facts about a run; everything else that a program prints does not."""

import json

from demo.training import Training, parse_line, say

START = 1_795_478_400.0


def make_line(event: str, step: int, *, incarnation: int = 1, second: int = 0, **values: object) -> str:
    line = {
        "time": f"2026-11-24T00:{second // 60:02}:{second % 60:02}Z",
        "event": event,
        "step": step,
        "incarnation": incarnation,
        "capacityType": "spot",
        **values,
    }
    return json.dumps(line)


def make_training(*lines: str) -> Training:
    training = Training()
    for text in lines:
        line = parse_line(text)
        assert line is not None
        training.add(line)
    return training


def test_a_line_of_another_program_is_not_a_trainers_line() -> None:
    """Warnings of libraries, broken JSON and JSON of another shape are passed over."""
    for text in ("UserWarning: deprecated", "{", "[1, 2]", '{"event": "step"}', "3"):
        assert parse_line(text) is None


def test_a_step_that_is_done_again_is_kept_twice_and_counts_once() -> None:
    """Both executions can be compared; the later incarnation's is the one that holds."""
    training = make_training(
        make_line("step", 1, loss=2.0),
        make_line("step", 2, loss=1.5),
        make_line("step", 2, incarnation=2, loss=1.5),
    )
    assert [done.step for done in training.steps] == [1, 2, 2]
    assert {step: done.incarnation for step, done in training.kept_steps().items()} == {1: 1, 2: 2}


def test_a_notice_is_dated_when_it_was_received() -> None:
    """The loop says so only after the step in which it came."""
    training = make_training(make_line("notice", 7, second=10, ageSeconds=0.25))
    assert training.lives[1].notice_time == START + 9.75


def test_what_is_durable_is_the_newest_checkpoint_of_any_incarnation() -> None:
    training = make_training(
        make_line("checkpoint", 14),
        make_line("step", 16, loss=1.0),
        make_line("checkpoint", 15, incarnation=2),
    )
    assert training.durable_step == 15


def test_single_steps_are_not_worth_a_line_on_the_timeline() -> None:
    line = parse_line(make_line("step", 3, loss=0.5))
    assert line is not None
    assert say(line) == ""


def test_a_loss_keeps_every_bit_through_json() -> None:
    """Equality bit for bit is claimed of these floats."""
    loss = 0.1 + 0.2
    assert make_training(make_line("step", 1, loss=loss)).steps[0].loss.hex() == loss.hex()
