"""The policy behind the referee's interface, on recorded markets where they are at hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
REFEREE = next(
    (
        parent / "shared/traces/referee.py"
        for parent in REPOSITORY.parents[:2]
        if (parent / "shared/traces/referee.py").is_file()
    ),
    None,
)


@pytest.mark.skipif(REFEREE is None, reason="the recorded markets (../shared/traces) are not here")
@pytest.mark.parametrize(
    ("options", "best"),
    [
        ((), 56.75),
        (("--mode", "lost", "--tau", "3600"), 63.08),
        (
            ("--mode", "lost", "--tau", "900", "--p-notice", "0.5", "--jitter", "1", "--od-refuse", "0.1"),
            59.38,
        ),
    ],
    ids=["nothing lost", "an hour at risk", "stress"],
)
def test_no_recorded_deadline_is_missed_and_no_safe_rule_is_cheaper_by_a_hundredth(
    options: tuple[str, ...], best: float, tmp_path: Path
) -> None:
    """`best`: the cheapest rule without a miss in the referee's RESULTS.md, in dollars per job."""
    report = tmp_path / "jobs.json"
    command = [
        "--policy",
        "referee_policy:Policy",
        "--reference",
        "none",
        "--no-optimum",
        "--json",
        str(report),
    ]
    subprocess.run(
        [sys.executable, str(REFEREE), "--suite", "multi-instance", *command, *options],
        cwd=REPOSITORY / "bench",
        check=True,
        capture_output=True,
    )
    jobs = json.loads(report.read_text())
    assert [job for job in jobs if job["missed"]] == []
    assert sum(job["cost"] for job in jobs) / len(jobs) <= 1.01 * best
