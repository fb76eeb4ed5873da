"""Eight jobs under random disturbances on real kubelets, and then without an API server now and again;
every one ends as if there had been none."""

from __future__ import annotations

import os

import pytest

from demo.lab import Lab
from soak.cli import summary
from soak.plan import Options
from soak.run import Soak

pytestmark = pytest.mark.e2e


def test_every_job_ends_as_if_nothing_had_happened(lab: Lab) -> None:
    options = Options(jobs=8, torch=3, seconds=360, nodes=3, seed=int(os.environ.get("SOAK_SEED", "1")))
    soak = Soak(lab, options, lambda text: print(text, flush=True))
    rows = soak.run()
    print(summary(rows))
    assert soak.running_at_outages[0] > 0
    assert all(row.is_good for row in rows), f"seed {options.seed}\n{summary(rows)}"
