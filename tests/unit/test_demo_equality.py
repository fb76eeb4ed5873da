"""A run equals the undisturbed one if every execution of every step has the same loss, bit for bit."""

import math

from demo.equality import Difference, describe, loss_differences
from demo.result import sample_differences
from demo.training import StepDone


def done(step: int, loss: float, incarnation: int = 1) -> StepDone:
    return StepDone(step, loss, incarnation, "spot", 0.0)


REFERENCE = [done(1, 2.0), done(2, 1.5), done(3, 1.25)]


def test_equal_runs_have_no_differences_even_where_steps_were_repeated() -> None:
    assert loss_differences(REFERENCE, [*REFERENCE, done(2, 1.5, 2), done(3, 1.25, 2)]) == []


def test_a_repeated_step_that_comes_out_otherwise_is_a_difference() -> None:
    """Also if the last execution is right: something in between was not restored."""
    wrong = math.nextafter(1.5, 2.0)
    assert loss_differences(REFERENCE, [done(1, 2.0), done(2, wrong), done(2, 1.5, 2), done(3, 1.25, 2)]) == [
        Difference(2, 1.5, wrong, 1)
    ]


def test_a_missing_step_is_a_difference() -> None:
    assert loss_differences(REFERENCE, REFERENCE[:2]) == [Difference(3, 1.25, None)]


def test_a_step_that_the_reference_does_not_have_is_a_difference() -> None:
    assert loss_differences(REFERENCE, [*REFERENCE, done(4, 1.0)]) == [Difference(4, None, 1.0, 1)]


def test_zero_and_minus_zero_differ_and_nan_equals_itself() -> None:
    nan = float("nan")
    assert loss_differences([done(1, nan)], [done(1, nan)]) == []
    assert len(loss_differences([done(1, 0.0)], [done(1, -0.0)])) == 1


def test_a_description_names_step_and_digits_and_is_short() -> None:
    differences = [Difference(step, 1.0, 2.0, 3) for step in range(1, 9)]
    text = describe(differences)
    assert text.splitlines()[0].startswith("step 1 (incarnation 3): expected loss 1.0")
    assert text.splitlines()[-1] == "... and 3 more"


def test_samples_must_be_the_same_in_every_execution_and_none_may_lack_a_record() -> None:
    expected = [{"step": step, "samples": [step, step + 1]} for step in (1, 2, 3)]
    assert sample_differences(expected, [*expected, expected[1]]) == []
    assert sample_differences(expected, [*expected, {"step": 2, "samples": [9]}]) == [2]
    assert sample_differences(expected, expected[:2]) == [3]
