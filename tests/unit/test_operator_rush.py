"""When many pods are launched at one time."""

from __future__ import annotations

from spot_operator.rush import (
    RUSH_LAUNCHES,
    RUSH_SETTLING_SECONDS,
    SETTLING_SECONDS,
    WINDOW_SECONDS,
    Rush,
)


def test_a_rush_is_as_many_launches_within_the_window_and_ends_with_it() -> None:
    now = 100.0
    rush = Rush(lambda: now)
    for _ in range(RUSH_LAUNCHES - 1):
        rush.note_launch()
    assert rush.settling_seconds() == SETTLING_SECONDS
    now += WINDOW_SECONDS / 2
    rush.note_launch()
    assert rush.settling_seconds() == RUSH_SETTLING_SECONDS
    assert rush.ending_seconds() > 0
    now += WINDOW_SECONDS / 2
    assert rush.settling_seconds() == SETTLING_SECONDS
    rush.note_launch()
    assert (rush.settling_seconds(), rush.ending_seconds()) == (SETTLING_SECONDS, 0)


def test_launches_one_after_the_other_are_no_rush() -> None:
    now = 0.0
    rush = Rush(lambda: now)
    for _ in range(3 * RUSH_LAUNCHES):
        now += WINDOW_SECONDS / (RUSH_LAUNCHES - 1) * 1.01
        rush.note_launch()
        assert rush.settling_seconds() == SETTLING_SECONDS
