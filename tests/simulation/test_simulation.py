"""Thousands of schedules of the operator's core against the model, and the seeds that once found one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation import mutants

ROOT = Path(__file__).parents[2]
SEEDS_AT_A_TIME = 125
"""A test of its own each, so that a slow machine has the time for one, and several are played at once."""


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "tests"), str(ROOT / "operator"), str(ROOT / "trainer")]
    return subprocess.run(
        [sys.executable, "-m", "simulation", *options],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "first", range(mutants.FIRST_SEED, mutants.FIRST_SEED + mutants.MAX_SEEDS, SEEDS_AT_A_TIME)
)
def test_no_schedule_breaks_a_promise(first: int) -> None:
    done = simulate(f"--first={first}", f"--seeds={SEEDS_AT_A_TIME}", "--workers=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS_AT_A_TIME} seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("mutant", mutants.read(), ids=lambda each: each.name)
def test_a_mistake_put_in_on_purpose_is_caught(mutant: mutants.Mutant) -> None:
    assert mutants.catch(mutant)


def test_a_seed_repeats_itself_to_the_last_call() -> None:
    first, second = simulate("--seed=7"), simulate("--seed=7")
    assert first.stdout == second.stdout
    assert "pod job0-" in first.stdout
