"""torchrun behind the library's launcher: it hears the notice, and its exit code is not masked."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from training import EXAMPLE, pod_environ, training

from spot_trainer.contract import OutcomeKind

pytestmark = pytest.mark.faults

TORCHRUN = [
    "-m",
    "torch.distributed.run",
    "--nnodes",
    "1",
    "--nproc-per-node",
    "1",
    "--master-addr",
    "127.0.0.1",
]
STOPPED = 75
LAUNCHER = ["-m", "spot_trainer", "run", "--"]


@pytest.mark.parametrize(("launcher", "is_heard"), [(LAUNCHER, True), ([], False)])
def test_a_notice_through_torchrun(launcher: list[str], is_heard: bool, tmp_path: Path) -> None:
    """Without the launcher the code is masked: the day it is not, the launcher is no longer needed.

    torchrun then ends with 1 or, where the machine is busy, by SIGABRT.
    """
    environ = pod_environ(tmp_path, f"file://{tmp_path}/runs", OMP_NUM_THREADS="1")
    python = [sys.executable] if launcher else []
    command = [*launcher, *python, *TORCHRUN, str(EXAMPLE), "--epochs", "500", "--log-seconds", "0.5"]
    with training(command, environ) as process:
        process.wait_for_event("checkpoint")
        process.signal(signal.SIGTERM)
        assert (process.wait() == STOPPED) is is_heard
        outcome = process.outcome()
    assert outcome is not None
    assert outcome.kind is OutcomeKind.STOPPED
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.step == outcome.step > 0
