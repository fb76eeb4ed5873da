"""Runs a script to its end, uninterrupted or interrupted, and notes what happened.

Invariant: each run has a place for checkpoints of its own that was empty before; a process
is started again with the next incarnation until the script has ended by itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spot_trainer.cli.verify import printed
from spot_trainer.cli.verify.child import Child, child
from spot_trainer.cli.verify.printed import Line
from spot_trainer.cli.verify.schedule import Impossible, Interruption
from spot_trainer.contract import CapacityType, Environment, ExitCode
from spot_trainer.settings import VERIFY_INTERVAL_SECONDS, VERIFY_LOG_SECONDS

GRACE_SECONDS = 30
PLACE = "SPOT_VERIFY_DIR"
PLACEHOLDER = "{dir}"
MAX_RELAUNCHES = 20
"""Beyond the interruptions of our own: a script that stops again and again makes no progress."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What is run, and how long it may be silent."""

    command: tuple[str, ...]
    patience_seconds: float = 600.0

    def in_place(self, place: Path) -> list[str]:
        return [word.replace(PLACEHOLDER, str(place)) for word in self.command]


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one process did."""

    incarnation: int
    exit_code: int
    seconds: float
    events: tuple[dict[str, Any], ...]
    lines: tuple[Line, ...]
    """Printed lines with numbers that are no events."""
    last_words: str = ""
    interruption: Interruption | None = None
    last_step: int = 0
    """The last step it was seen to have done."""

    @property
    def resumed_at(self) -> int:
        """The step of the checkpoint that it went on from; 0: it began afresh."""
        return next((event["step"] for event in self.events if event["event"] == "resume"), 0)

    def messages(self) -> list[str]:
        return [str(e.get("message", "")) for e in self.events if e["event"] in ("outcome", "warning")]


@dataclass(frozen=True)
class Trial:
    """A run, from its first process to its last."""

    uri: str
    place: Path
    processes: tuple[Process, ...] = field(default=())

    @property
    def uses_library(self) -> bool:
        return any(process.events for process in self.processes)

    @property
    def last(self) -> Process:
        return self.processes[-1]


class Failed(Exception):
    """A process ended by itself, and not well."""

    def __init__(self, trial: Trial) -> None:
        last = trial.last
        text = "; ".join(message for message in last.messages()[-1:] if message)
        words = "\n".join(part for part in (text, last.last_words) if part)
        super().__init__(f"it ended with exit code {last.exit_code}\n{words}".rstrip())
        self.trial = trial


@dataclass
class _Position:
    """Where a process is, as seen from its output."""

    places: Mapping[printed.Key, int]
    num_lines: int = 0
    step: int = 0
    total: int | None = None
    has_checkpoint: bool = False

    def see(self, event: dict[str, Any] | None, line: Line | None) -> None:
        if event is not None:
            self.step = max(self.step, event["step"]) if event["event"] in ("step", "resume") else self.step
            self.total = event.get("totalSteps") or self.total
            self.has_checkpoint |= event["event"] in ("checkpoint", "resume")
        elif line is not None and line.key:
            self.num_lines += 1
            self.step = self.places.get(line.key, self.num_lines)


def run(
    script: Script,
    place: Path,
    *,
    interruptions: Sequence[Interruption] = (),
    interval_seconds: float = 1.0,
    places: Mapping[printed.Key, int] | None = None,
    show: Callable[[int, int | None], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _text: None,
) -> Trial:
    """Run it to its end; raises Failed or Impossible."""
    place.mkdir()
    trial, left = Trial((place / "checkpoints").as_uri(), place), list(interruptions)
    num_idle = 0
    while True:
        incarnation = len(trial.processes) + 1
        environ = make_environ(os.environ, place, trial.uri, incarnation, interval_seconds)
        process = _run_process(
            script, place, environ, incarnation, left[0] if left else None, places or {}, show
        )
        trial = replace(trial, processes=(*trial.processes, process))
        if process.interruption is not None:
            left.pop(0)
            say(f"  {describe(process)}")
            if process.exit_code == ExitCode.COMPLETE:  # it finished before the signal had an effect
                return trial
            continue
        if process.exit_code == ExitCode.COMPLETE:
            return trial
        num_idle += 1
        if process.exit_code != ExitCode.STOPPED or num_idle > MAX_RELAUNCHES:
            raise Failed(trial)


def describe(process: Process) -> str:
    """One interrupted process in words."""
    assert process.interruption is not None
    begin = "began afresh" if not process.resumed_at else f"went on from step {process.resumed_at}"
    saved = [event["step"] for event in process.events if event["event"] == "checkpoint"]
    kept = f", newest checkpoint at step {saved[-1]}" if saved else ""
    at = process.interruption.step
    return (
        f"process {process.incarnation} {begin if process.events else 'ran'}; "
        f"{process.interruption.signal.name} at step {process.last_step} (asked for {at}){kept}; "
        f"exit code {process.exit_code}"
    )


def make_environ(
    inherited: Mapping[str, str], place: Path, uri: str, incarnation: int, interval_seconds: float
) -> dict[str, str]:
    """What the operator would set, and nothing of another run."""
    log = place / f"termination-{incarnation}"
    log.touch()
    told = Environment(
        job_name="verify",
        job_namespace="local",
        job_uid="spot-trainer-verify",
        job_created=datetime(2020, 1, 1, tzinfo=UTC),
        pod_name=f"verify-{incarnation}",
        pod_uid=f"verify-{incarnation}",
        incarnation=incarnation,
        capacity_type=CapacityType.SPOT,
        run_id="local/verify",
        checkpoint_uri=uri,
        checkpoint_interval_seconds=1,
        grace_seconds=GRACE_SECONDS,
        termination_log=str(log),
    )
    kept = {name: value for name, value in inherited.items() if not name.startswith(("SPOT_", "KUBEFLOW_"))}
    return {
        **kept,
        **told.to_environ(),
        # A line that waits in a buffer is lost with a killed process and could not be compared.
        "PYTHONUNBUFFERED": "1",
        PLACE: str(place),
        VERIFY_LOG_SECONDS: "0",
        VERIFY_INTERVAL_SECONDS: f"{interval_seconds:.4f}",
    }


def _run_process(
    script: Script,
    place: Path,
    environ: Mapping[str, str],
    incarnation: int,
    planned: Interruption | None,
    places: Mapping[printed.Key, int],
    show: Callable[[int, int | None], None],
) -> Process:
    began, position = time.monotonic(), _Position(places)
    events: list[dict[str, Any]] = []
    lines: list[Line] = []
    sent: Interruption | None = None
    sent_at = 0.0
    try:
        with child(script.in_place(place), environ, place / f"stderr-{incarnation}") as process:
            for text in process.lines(script.patience_seconds):
                event = printed.event_of(text) if text is not None else None
                line = printed.parse(text) if text is not None and event is None else None
                if event is not None:
                    events.append(event)
                elif line is not None:
                    lines.append(line)
                position.see(event, line)
                show(position.step, position.total)
                if planned is not None and sent is None and _is_due(planned, position, event is not None):
                    process.interrupt(planned.signal)
                    sent, sent_at = planned, time.monotonic()
                _kill_if_overdue(process, sent, sent_at)
            code = process.wait()
            words = process.last_words()
    except TimeoutError as error:
        raise Impossible(f"process {incarnation} hangs: {error}; see --patience") from None
    except OSError as error:
        raise Impossible(
            f"{script.command[0]!r} cannot be run: {error.strerror or error}; write the command after --, "
            "for example: spot-trainer verify -- python train.py"
        ) from None
    return Process(
        incarnation=incarnation,
        exit_code=code,
        seconds=time.monotonic() - began,
        events=tuple(events),
        lines=tuple(lines),
        last_words=words,
        interruption=sent,
        last_step=position.step,
    )


def _is_due(planned: Interruption, position: _Position, uses_library: bool) -> bool:
    """A kill waits for a checkpoint, or its resume would be a fresh start that proves nothing."""
    if position.step < planned.step:
        return False
    is_too_early = uses_library and planned.signal is signal.SIGKILL and not position.has_checkpoint
    return not is_too_early


def _kill_if_overdue(process: Child, sent: Interruption | None, sent_at: float) -> None:
    """As a kubelet does when the grace period is over."""
    if sent is not None and time.monotonic() - sent_at > GRACE_SECONDS:
        process.interrupt(signal.SIGKILL)
