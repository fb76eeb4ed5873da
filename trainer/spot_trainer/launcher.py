"""The first process of a container: passes signals on, reaps orphans, and tells the true exit code.

A container's first process ignores signals that it has no handler for, inherits every
orphan, and its exit code is the container's. torchrun as first process turns each worker's
code into 1 and kills its workers 30 s after a SIGTERM, whatever the pod's grace period.
Invariant: the exit code is that of the outcome which the library wrote during this
run, if it wrote one, else the program's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from spot_trainer.contract import (
    HOPELESS,
    TERMINATION_LOG,
    ExitCode,
    Outcome,
    OutcomeKind,
    parse_outcome,
)
from spot_trainer.notice import LISTENER

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CANNOT_START = 127
_SHUTDOWN_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The program's environment: torchrun gives its workers the whole grace period."""
    grace = environ.get("SPOT_GRACE_SECONDS")
    if grace is None or _SHUTDOWN_VARIABLE in environ:
        return dict(environ)
    return {**environ, _SHUTDOWN_VARIABLE: grace}


def exit_code(program_code: int, outcome: Outcome | None) -> int:
    """The code for the kubelet; `program_code` is negative for a signal, as in subprocess."""
    plain = program_code if program_code >= 0 else 128 - program_code
    if outcome is None:
        return plain
    match outcome.kind:
        case OutcomeKind.COMPLETE:
            # What follows the training (an export, an upload) may still have failed.
            return plain
        case OutcomeKind.STOPPED:
            return ExitCode.STOPPED
        case OutcomeKind.FENCED:
            return ExitCode.FENCED
        case OutcomeKind.FAILED:
            return ExitCode.CONFIG if outcome.reason in HOPELESS else plain or ExitCode.FAILED


def run(command: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the program to its end and return the container's exit code. Main thread only."""
    log = Path(environ.get("SPOT_TERMINATION_LOG") or TERMINATION_LOG)
    before = _read(log)
    pending: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            pending.append(number)
        else:
            os.kill(child.pid, number)

    # Importing the package has begun to listen, for a program that trains in this process.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    LISTENER.remove()
    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    try:
        try:
            child = subprocess.Popen(list(command), env=child_environment(environ))
        except OSError as error:
            os.write(2, f"cannot start {command[0]!r}: {error.strerror}\n".encode())
            return CANNOT_START
        for number in pending:
            os.kill(child.pid, number)
        code = _wait(child)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    text = _read(log)
    return exit_code(code, parse_outcome(text) if text != before else None)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Reap whatever ends until the program itself does."""
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
