"""Thousands of schedules of the operator's core against the model, and the seeds that once found one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation import mutants

ROOT = Path(__file__).parents[2]

FOUND = {
    58: "evicted from a node that was out of reach and is back: called a voluntary eviction",
    343: "a withdrawn stop taint, seen in a watch that lagged, stopped the replacement as well",
    449: "a pod was created twice: the first had gone while the operator was away",
    918: "an exit 0 was forgotten when the operator died within the hold and the pod was removed",
    1123: "a graceful node shutdown behind slow watches: called a stop on purpose",
    1163: "a pod was created twice: the first was deleted before anybody looked",
}


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "tests"), str(ROOT / "operator"), str(ROOT / "trainer")]
    return subprocess.run(
        [sys.executable, "-m", "simulation", *options],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_schedule_breaks_a_promise() -> None:
    done = simulate(f"--seeds={mutants.MAX_SEEDS}", f"--first={mutants.FIRST_SEED}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{mutants.MAX_SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    done = simulate(f"--seed={seed}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", mutants.read(), ids=lambda each: each.name)
def test_a_mistake_put_in_on_purpose_is_caught(mutant: mutants.Mutant) -> None:
    assert mutants.catch(mutant)


def test_a_seed_repeats_itself_to_the_last_call() -> None:
    first, second = simulate("--seed=7"), simulate("--seed=7")
    assert first.stdout == second.stdout
    assert "pod job0-" in first.stdout
