"""The container's first process: signals, orphans and the true exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import pod_environ

from spot_trainer import cli, launcher
from spot_trainer.contract import Outcome, OutcomeKind, OutcomeReason

RUN = "import sys; from spot_trainer.cli import main; sys.exit(main(['run', '--', *sys.argv[1:]]))"


def outcome(kind: OutcomeKind, reason: str = "Notice") -> Outcome:
    return Outcome(kind=kind, reason=reason, incarnation=1, step=5, message="")


def start(*command: str, log: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ, "SPOT_TERMINATION_LOG": str(log)},
    )


@pytest.mark.parametrize(
    ("program", "said", "want"),
    [
        (0, None, 0),
        (3, None, 3),
        (-9, None, 137),
        (1, OutcomeKind.STOPPED, 75),
        (-15, OutcomeKind.STOPPED, 75),
        (1, OutcomeKind.FENCED, 76),
        (0, OutcomeKind.COMPLETE, 0),
        (4, OutcomeKind.COMPLETE, 4),
        (1, OutcomeKind.FAILED, 1),
        (0, OutcomeKind.FAILED, 1),
    ],
)
def test_the_outcome_outranks_a_code_that_torchrun_masks(
    program: int, said: OutcomeKind | None, want: int
) -> None:
    assert launcher.exit_code(program, outcome(said) if said else None) == want


def test_what_no_restart_can_heal_is_78() -> None:
    assert launcher.exit_code(1, outcome(OutcomeKind.FAILED, OutcomeReason.NO_SUCH_BUCKET)) == 78
    assert launcher.exit_code(1, outcome(OutcomeKind.FAILED, OutcomeReason.STORE_UNREACHABLE)) == 1


def test_workers_of_torchrun_get_the_whole_grace_period() -> None:
    assert launcher.child_environment({"SPOT_GRACE_SECONDS": "90"})["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "90"
    told = {"SPOT_GRACE_SECONDS": "90", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5"}
    assert launcher.child_environment(told) == told
    assert launcher.child_environment({"A": "b"}) == {"A": "b"}


def test_a_signal_reaches_the_program_and_its_outcome_gives_the_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(outcome(OutcomeKind.FAILED).to_json())  # of an earlier container
    said = outcome(OutcomeKind.STOPPED).to_json()
    (tmp_path / "said").write_text(said)
    heard = f"echo heard; cp {tmp_path}/said {log}; exit 1"
    script = f"trap '{heard}' TERM; echo ready; while :; do sleep 0.05; done"
    process = start("sh", "-c", script, log=log)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("heard\n", 75)


def test_an_outcome_that_was_there_before_is_not_believed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(outcome(OutcomeKind.STOPPED).to_json())
    process = start("sh", "-c", "exit 3", log=log)
    process.communicate(timeout=20)
    assert process.returncode == 3


def test_orphans_that_end_first_are_not_taken_for_the_program(tmp_path: Path) -> None:
    reaper = (
        "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0);"  # adopt orphans, as a first process does
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", reaper + RUN, "sh", "-c", "(sh -c 'exit 9' &) ; sleep 0.5; exit 4"],
        timeout=20,
        env={**os.environ, "SPOT_TERMINATION_LOG": str(tmp_path / "log")},
        check=False,
    )
    assert done.returncode == 4
    assert time.monotonic() - began >= 0.5


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    process = start("/no/such/program", log=tmp_path / "log")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 127
    assert err == "cannot start '/no/such/program': No such file or directory\n"


def test_what_stays_beside_the_training_is_small(tmp_path: Path) -> None:
    process = start("sh", "-c", "grep -c -e libtorch -e typer /proc/$PPID/maps", log=tmp_path / "log")
    out, _ = process.communicate(timeout=20)
    assert out == "0\n"


def test_in_a_pod_a_notice_is_passed_on_and_not_answered(tmp_path: Path) -> None:
    environ = pod_environ(tmp_path, f"file://{tmp_path}/runs")
    log = Path(environ["SPOT_TERMINATION_LOG"])
    script = "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    process = start("sh", "-c", script, log=log, **environ)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("heard\n", 7)
    assert log.read_text() == ""


def test_help_and_a_missing_command_are_those_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--help"]) == 0
    assert "first process" in capsys.readouterr().out
    assert cli.main(["run"]) == 2
    assert cli.main(["run", "--", "sh", "-c", "exit 4"]) == 4
