"""ckpt-chaos, somebody else's referee, crashes a run at every file event of its saves and judges the resumes.

Its verdicts (see its documentation): HARD_FAIL, the resume raised; SILENT_DIVERGENCE, it ended with
other weights; LOST_WORK, it began before the newest complete checkpoint; PASS. Its modes: `before`
an event the process dies; `torn`, with the file cut in half; `term`, SIGTERM first; `unsynced`, what
was not flushed is rolled back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from training import ROOT

# A hundred processes that import torch: minutes, where other tests share the machine.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]

SCRIPT = ROOT / "tests" / "support" / "chaos_train.py"


def crash(work: Path, *, modes: str, max_points: int) -> list[dict[str, object]]:
    """ckpt-chaos's record of each crash point; fails unless all its verdicts are PASS."""
    command = [
        *(sys.executable, "-m", "ckpt_chaos", "run", f"--work={work}", f"--modes={modes}", "--jobs=2"),
        *(f"--max-points={max_points}", r"--step-regex=resumed from step (\d+)", "--grace=20"),
        *("--checkpoint-glob={out}/attempts/*", "--result-file={out}/result"),
        *("--fail-on=HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL", "--"),
        *(sys.executable, str(SCRIPT), "{out}"),
    ]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPOT_", "AWS_", "KUBEFLOW_"))}
    done = subprocess.run(
        command,
        env={**kept, "PYTHONPATH": str(ROOT / "trainer")},
        cwd=work.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    records = [json.loads(path.read_text()) for path in work.glob("pt_*/result.json")]
    points = [record for record in records if record["label"] != "no crash (control)"]
    assert "steps [1, 2]" in done.stdout
    assert not any(record["drift"] for record in points), done.stdout[-6000:]
    return points


def test_killed_or_torn_at_every_file_event_it_resumes_from_the_newest_checkpoint(tmp_path: Path) -> None:
    points = crash(tmp_path / "chaos", modes="before,torn", max_points=1000)
    events = (tmp_path / "chaos/reference/events.log.rank0").read_text().splitlines()
    modes = Counter(record["point"][1] for record in points)  # type: ignore[index]
    assert modes["before"] == len(events) > 20
    assert modes["torn"] > 8
    assert all(record["rc"] == 137 for record in points)


def test_told_to_stop_or_without_what_was_not_flushed_it_resumes_as_well(tmp_path: Path) -> None:
    points = crash(tmp_path / "chaos", modes="term,unsynced", max_points=12)
    assert len(points) == 12
    # Told to stop while the last checkpoint is written, a run ends as it would have.
    assert sum(record["rc"] == 0 for record in points) < 5
