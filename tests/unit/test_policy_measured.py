"""What the policy plans with is learned from few values, and from none."""

from hypothesis import given
from hypothesis import strategies as st

from spot_operator.policy import Launches, Notices

durations = st.lists(st.floats(1.0, 10_000.0), min_size=1, max_size=30)


def launches(values: list[float]) -> Launches:
    seen = Launches()
    for value in values:
        seen = seen.and_one(value)
    return seen


def test_before_the_first_launch_what_was_told_is_planned_with() -> None:
    assert Launches().mean_seconds(600.0) == 600.0
    assert Launches().high_seconds(600.0) == 600.0


def test_launches_that_always_take_the_same_keep_no_reserve() -> None:
    assert launches([600.0] * 5).high_seconds(600.0) == 600.0


def test_a_surprise_keeps_a_reserve_that_experience_lowers() -> None:
    assert launches([900.0]).high_seconds(600.0) == 1200.0
    assert launches([900.0, 900.0, 900.0]).high_seconds(600.0) == 1000.0


@given(durations, st.floats(1.0, 10_000.0))
def test_no_launch_seen_so_far_passes_the_high_value(values: list[float], told: float) -> None:
    assert launches(values).high_seconds(told) >= max([*values, told])


def test_notices_are_believed_by_experience() -> None:
    assert Notices().reliability() == 0.5
    seen = Notices()
    for _ in range(18):
        seen = seen.and_one(landed=True)
    assert seen.reliability() == 0.95
    assert Notices().and_one(landed=False).reliability() < 0.5
