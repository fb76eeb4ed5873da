"""Schedules written by hand, for what a seed meets too seldom."""

from __future__ import annotations

import os

import pytest

from simulation import run
from simulation.schedule import Disturbance, Job, Kind, Schedule


def play(*disturbances: Disturbance, num_spot_nodes: int = 1, **changes: object) -> run.Result:
    values = {
        "steps": 300,
        "save_seconds": 20.0,
        "cost_seconds": 1.5,
        "is_plain": False,
        "fallback": {"policy": "SpotOnly"},
        "backoff_limit": 6,
        "window_seconds": 3600,
        "deadline_seconds": None,
        "has_volume": False,
        "fails_on_sigterm_code": False,
        "at_sigterm": "dies",
    }
    job = Job(**(values | changes))  # type: ignore[arg-type]
    return run.play(Schedule(3, (job,), disturbances, 1, num_spot_nodes, (0.0,)))


def num_runs(result: run.Result) -> int:
    return sum(" runs on " in line for line in result.log)


def assert_kept(result: run.Result) -> None:
    assert result.violation is None, "\n".join(result.log)


def test_a_signal_that_was_withdrawn_before_a_slow_watch_told_of_it_stops_nothing() -> None:
    slow = Disturbance(50.0, Kind.SLOW_WATCHES, 0, 100)
    for at in (60.0, 75.0, 90.0):
        result = play(slow, Disturbance(at, Kind.WITHDRAWN, 0, 1))
        assert_kept(result)
        assert num_runs(result) == 1, "\n".join(result.log)


def test_a_stop_that_the_api_server_refused_is_asked_for_again() -> None:
    refused = Disturbance(60.0, Kind.WRITES_REFUSED, 0, 1)
    assert_kept(play(refused, Disturbance(61.0, Kind.WITHDRAWN, 0, 100), is_plain=True))


def test_a_reclaim_that_could_not_be_read_is_found_out_later() -> None:
    unreadable = Disturbance(51.0, Kind.NODE_READS_FAIL, 0, 60)
    assert_kept(play(unreadable, Disturbance(71.0, Kind.RECLAIM_NTH, 0, 60)))


def test_a_hint_is_in_the_answer_to_the_next_report() -> None:
    for at in range(60, 71):
        assert_kept(play(Disturbance(float(at), Kind.CORDON, 0, 1), save_seconds=500.0))


EVERY = int(os.environ.get("EVERY_CALL", "4"))


@pytest.mark.parametrize("where", ["before", "after"])
def test_the_operator_may_die_at_any_call_of_a_launch_a_reclaim_and_an_end(where: str) -> None:
    """One life for each call; each has to end as if nothing had happened. EVERY_CALL=1 leaves none out."""
    reclaim = Disturbance(20.0, Kind.RECLAIM_NTH, 0, 20)
    num_deaths = 0
    for call in range(1 + 2 * (where == "after"), 1000, EVERY):
        death = Disturbance(0.2, Kind.OPERATOR_DIES_AT_CALL, 0, call, where)
        result = play(death, reclaim, num_spot_nodes=2, steps=40, save_seconds=10.0)
        assert_kept(result)
        has_died = any(f"is dead ({where} its call" in line for line in result.log)
        if not has_died:
            break
        num_deaths += 1
        assert num_runs(result) == 2, "\n".join(result.log)
    assert num_deaths > 60 / EVERY
