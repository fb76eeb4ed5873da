"""`make bench-trace` in small, on a market written down here: nobody late, at about the predicted cost.

A cluster of its own: the chart's values are those of compressed time.
"""

from __future__ import annotations

import os

import pytest

from spot_operator.market import Market
from trace_bench.plan import Options
from trace_bench.recording import Stretch
from trace_bench.report import table
from trace_bench.run import bring_up, run

pytestmark = pytest.mark.e2e

OPTIONS = Options(jobs=8, work_seconds=75.0)
BAND = 0.25
"""A second more or less may move a short job to the other capacity; of the bench it is 0.1."""


def market(zone: str, *changes: float) -> Stretch:
    """Spot is there at first, and then comes and goes at these times."""
    times = (0.0, *changes)
    available = tuple(number % 2 == 0 for number in range(len(times)))
    return Stretch(zone, Market(name=zone, times=times, available=available, length_seconds=1000.0), 0.0)


def test_deadlines_are_kept_at_the_predicted_cost() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces and cgroups need root")
    lab = bring_up("e2e-trace")
    try:
        found = run(lab, OPTIONS, [market("zone-a", 40.0, 50.0), market("zone-b", 25.0)], print)
    finally:
        lab.cluster.down()
    told = table(found.rows)
    print(told)
    assert not [row.job.name for row in found.rows if row.is_late], told
    assert sum(row.interruptions for row in found.rows) > 0
    cost, predicted = sum(r.cost for r in found.rows), sum(r.prediction.cost for r in found.rows)
    assert abs(cost / predicted - 1) <= BAND, told
