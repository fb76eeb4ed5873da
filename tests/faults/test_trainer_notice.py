"""SIGTERM at every stage of a process: in time, with an outcome, and never from a child."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from training import pod_environ, training

from spot_trainer.contract import OutcomeKind

pytestmark = pytest.mark.faults

START_UP = "import spot_trainer, time; print('up', flush=True); time.sleep(60)"
BUSY_IN_C = (
    "import spot_trainer, hashlib; print('up', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
)
LOOP = """
import spot_trainer as spot, time, sys
print("up", flush=True)
run = spot.Run(values=spot.Values(x=0), log_seconds=0)
with run:
    for step in run.steps(1000):
        time.sleep({step_seconds})
        run.step_done(loss=1.0)
"""
CHILD = """
import spot_trainer as spot, os, signal, time
run = spot.Run(values=spot.Values(x=0), log_seconds=0)
with run:
    for step in run.steps(3):
        if step == 1:
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(9)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            time.sleep(0.3)
        run.step_done()
"""


@pytest.mark.parametrize("script", [START_UP, BUSY_IN_C], ids=["sleeping", "inside one C call"])
def test_a_notice_during_start_up_ends_the_process_at_once(script: str, tmp_path: Path) -> None:
    with training(["-c", script], pod_environ(tmp_path, f"file://{tmp_path}/ckpt")) as process:
        process.wait_for_text("up")
        time.sleep(0.2)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait() == 75
        assert time.monotonic() - began < 6
        outcome = process.outcome()
    assert outcome is not None
    assert (outcome.kind, outcome.reason, outcome.step) == (OutcomeKind.STOPPED, "Notice", 0)


def test_a_second_notice_changes_nothing(tmp_path: Path) -> None:
    script = LOOP.format(step_seconds=0.5)
    with training(["-c", script], pod_environ(tmp_path, f"file://{tmp_path}/ckpt")) as process:
        process.wait_for_event("step", count=2)
        process.signal(signal.SIGTERM)
        time.sleep(0.05)
        process.signal(signal.SIGTERM)
        assert process.wait() == 75
        outcome = process.outcome()
    assert outcome is not None
    assert outcome.reason == "Notice"
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.step == outcome.step >= 2


def test_a_step_that_does_not_end_in_time_leaves_with_what_is_durable(tmp_path: Path) -> None:
    environ = pod_environ(tmp_path, f"file://{tmp_path}/ckpt", SPOT_GRACE_SECONDS="6")
    script = LOOP.replace("time.sleep({step_seconds})", "time.sleep(60 if step == 5 else 0.4)")
    with training(["-c", script], environ) as process:
        process.wait_for(lambda event: event["event"] == "step" and event["step"] == 5)
        time.sleep(0.2)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait() == 75
        took = time.monotonic() - began
        assert 2 < took < 6
        outcome = process.outcome()
    assert outcome is not None
    assert (outcome.reason, outcome.step) == ("NoticeWithoutCheckpoint", 5)
    assert outcome.checkpoint is not None
    assert 0 < outcome.checkpoint.step <= 5


def test_the_notice_of_a_child_is_not_ours(tmp_path: Path) -> None:
    with training(["-c", CHILD], pod_environ(tmp_path, f"file://{tmp_path}/ckpt")) as process:
        assert process.wait() == 0, process.report()
        outcome = process.outcome()
    assert outcome is not None
    assert outcome.kind is OutcomeKind.COMPLETE


def test_an_exit_inside_the_run_is_not_completion(tmp_path: Path) -> None:
    script = LOOP.replace("time.sleep({step_seconds})", "step == 2 and sys.exit(0)")
    with training(["-c", script], pod_environ(tmp_path, f"file://{tmp_path}/ckpt")) as process:
        assert process.wait() == 0
        outcome = process.outcome()
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "Exited")
