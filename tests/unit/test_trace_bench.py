"""The pure parts of `make bench-trace`: what is replayed is what is simulated."""

from dataclasses import replace

import pytest

from localcluster.s3 import make_access
from spot_operator.api.effective import parse_spec
from spot_operator.market import Market
from spot_operator.model import FallbackPolicy, JobSpec
from spot_operator.testing import NOW, make_spec
from trace_bench import plan
from trace_bench.plan import Options
from trace_bench.predict import Measured, predict
from trace_bench.recording import Stretch, draw_stretch

MARKET = Market(
    name="zone",
    times=(0.0, 100.0, 150.0, 300.0),
    available=(True, True, False, True),
    length_seconds=400.0,
)
MEASURED = Measured(
    spot_seconds=4.0,
    on_demand_seconds=4.0,
    num_spot=1,
    num_on_demand=1,
    spread=0.0,
    save_seconds=0.1,
    notice_reliability=1.0,
    num_notices=1,
)


def test_a_stretch_tells_its_changes_from_its_own_beginning_and_over_the_end() -> None:
    stretch = Stretch("zone", MARKET, 120.0)
    assert list(stretch.changes(500.0)) == [(0.0, True), (30.0, False), (180.0, True), (430.0, False)]
    assert stretch.share(200.0) == pytest.approx(50 / 200)


def test_a_stretch_is_the_same_for_the_same_seed_and_has_enough_in_it() -> None:
    busy = Market(
        name="busy",
        times=tuple(10.0 * n for n in range(100)),
        available=tuple(n % 2 == 0 for n in range(100)),
        length_seconds=1000.0,
    )
    first, again = (draw_stretch(busy, seconds=100.0, seed="7") for _ in range(2))
    assert first == again
    assert sum(1 for _ in first.changes(100.0)) >= 5
    with pytest.raises(ValueError, match="no stretch"):
        draw_stretch(MARKET, seconds=50.0, seed="7")


def test_jobs_take_turns_in_the_zones_and_their_deadlines_go_from_tight_to_loose() -> None:
    jobs = plan.jobs(Options(jobs=4, work_seconds=100.0), ["a", "b"])
    assert [job.name for job in jobs] == ["a-1", "b-1", "a-2", "b-2"]
    assert [job.deadline_seconds for job in jobs] == [135, 135, 160, 160]


def test_a_manifest_is_one_that_the_operator_takes_with_a_policy_that_comes_back_to_spot() -> None:
    job = plan.jobs(Options(), ["a"])[0]
    made = plan.manifest(job, make_access("KEY", "SECRET", 1))
    spec = parse_spec(made["spec"], namespace="trace", name=job.name, created=NOW)
    assert isinstance(spec, JobSpec), spec
    assert spec.fallback.policy is FallbackPolicy.AUTO
    assert spec.checkpoint.interval_seconds == plan.INTERVAL_SECONDS


def test_the_prediction_is_the_simulators_on_the_very_market() -> None:
    job = plan.jobs(Options(jobs=1, work_seconds=100.0), ["zone"])[0]
    quiet = replace(MARKET, available=(True, True, True, True))
    told = predict(
        replace(job, deadline_seconds=1000), Stretch("zone", quiet, 0.0), 0.0, MEASURED, make_spec()
    )
    assert told.cost == pytest.approx(104.0 / 3600 * plan.SPOT_PRICE)
    assert (told.interruptions, told.on_demand_share, told.late) == (0, 0, 0)
