"""How the plugin reads and writes durations, times and tables."""

from datetime import UTC, datetime, timedelta

import pytest

from spot_plugin.words import clean, duration, moment, parse_duration, parse_time, relative, table

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("48h", 172800), ("1h30m", 5400), ("90", 90), ("1.5h", 5400), (" 2D ", 172800), ("0s", 0)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3h", "3 hours", "h", "11y", "99999999d", "inf", "nan"])
def test_what_is_no_duration_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 48h|at most ten years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59.6, "1m"), (61, "1m1s"), (3599, "59m59s"), (3600, "1h"), (7199, "2h"), (90000, "1d1h"),
        (-300, "-5m"), (None, "-"), (float("inf"), "-"), (172800, "2d"), (86399, "1d"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_told_from_now() -> None:
    assert relative(NOW + timedelta(minutes=5), NOW) == "in 5m"
    assert relative(NOW - timedelta(hours=3), NOW) == "3h ago"
    assert relative(NOW, NOW) == "now"
    assert moment(NOW) == "2026-11-25 12:00:00Z"
    assert parse_time("2026-11-25T13:00:00+01:00") == NOW
    assert parse_time(None) is parse_time("soon") is None


def test_what_could_steer_a_terminal_is_left_out() -> None:
    assert clean("a\x1b[31mb\nc") == "a [31mb c"


def test_columns_are_as_wide_as_they_need() -> None:
    assert table(("A", "N"), [("long name", "1"), ("b", "22")], right=(1,)) == [
        "A           N",
        "long name   1",
        "b          22",
    ]
