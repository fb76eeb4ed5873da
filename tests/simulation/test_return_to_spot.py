"""A job that went to on-demand for want of spot comes back when there is some, whatever happens meanwhile."""

from __future__ import annotations

import pytest

from simulation import run
from simulation.schedule import Disturbance, Job, Kind, Schedule

JOB = Job(
    steps=400,
    save_seconds=20.0,
    cost_seconds=1.5,
    is_plain=False,
    fallback={"policy": "Auto"},
    backoff_limit=6,
    window_seconds=3600,
    deadline_seconds=1000,
    has_volume=False,
    fails_on_sigterm_code=False,
    at_sigterm="dies",
)
DROUGHT = Disturbance(0.0, Kind.DROUGHT, 0, 330)
WHEN = (250.0, 332.0, 365.0)


def play(*more: Disturbance, operators: int = 1) -> run.Result:
    schedule = Schedule(
        seed=1,
        jobs=(JOB,),
        disturbances=(DROUGHT, *more),
        num_operators=operators,
        num_spot_nodes=0,
        skew_seconds=(0.0,) * operators,
    )
    return run.play(schedule)


def test_it_asks_for_spot_beside_on_demand_and_moves_when_it_comes() -> None:
    result = play()
    assert result.violation is None, "\n".join(result.log)
    pods = [line for line in result.log if " runs on " in line]
    assert ["(on-demand)" in line for line in pods] == [True, False], pods
    ended = [line for line in result.log if " ended with " in line]
    assert [line.split(" ended with ")[1].split()[0] for line in ended] == ["75", "0"]


@pytest.mark.parametrize("kind", list(Kind))
def test_nothing_that_happens_meanwhile_breaks_a_promise(kind: Kind) -> None:
    for when in WHEN:
        result = play(Disturbance(when, kind, 0, 60))
        assert result.violation is None, "\n".join([f"at {when} s", *result.log])
