"""Real training processes for tests: start one, wait for a line of its log, end it, look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spot_trainer import contract

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits" / "train.py"
TIMEOUT_SECONDS = 120.0


def pod_environ(folder: Path, uri: str, *, incarnation: int = 1, **changes: str) -> dict[str, str]:
    """What the operator would set; the termination message goes to a file in folder."""
    log = folder / f"termination-{incarnation}"
    log.touch()
    return {
        "SPOT_CONTRACT_VERSION": "1",
        "SPOT_JOB_NAME": "digits",
        "SPOT_JOB_NAMESPACE": "team-a",
        "SPOT_JOB_UID": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
        "SPOT_JOB_CREATED": "2026-12-01T06:00:00Z",
        "SPOT_POD_NAME": f"digits-6f961-{incarnation}-0",
        "SPOT_POD_UID": f"pod-{incarnation}",
        "SPOT_INCARNATION": str(incarnation),
        "SPOT_CAPACITY_TYPE": "spot",
        "SPOT_RUN_ID": "team-a/digits",
        "SPOT_CHECKPOINT_URI": uri,
        "SPOT_CHECKPOINT_INTERVAL_SECONDS": "1",
        "SPOT_GRACE_SECONDS": "20",
        "SPOT_TERMINATION_LOG": str(log),
        **changes,
    }


class Training:
    """One process; its stdout is read as it comes."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPOT_", "AWS_", "KUBEFLOW_"))}
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env={**kept, "PYTHONPATH": str(ROOT / "trainer"), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._log = Path(environ["SPOT_TERMINATION_LOG"]) if "SPOT_TERMINATION_LOG" in environ else None

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def wait_for(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is what we wait for."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        with self._news:
            while True:
                for event in self.events:
                    if what(event):
                        return event
                if self._process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"ended with {self._process.returncode}: {self.report()}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"did not come: {self.report()}")
                self._news.wait(0.2)

    def wait_for_event(self, kind: str, *, count: int = 1) -> dict[str, Any]:
        """The count-th event of a kind."""
        return self.wait_for(
            lambda event: (
                event["event"] == kind and len([e for e in self.events if e["event"] == kind]) >= count
            )
        )

    def wait_for_text(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        with self._news:
            while text not in "".join(self.lines):
                assert time.monotonic() < deadline, self.report()
                assert self._process.poll() is None or self._reader.is_alive(), self.report()
                self._news.wait(0.2)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code; -9 for a killed process."""
        code = self._process.wait(TIMEOUT_SECONDS)
        self._reader.join(10)
        return code

    def outcome(self) -> contract.Outcome | None:
        assert self._log is not None
        return contract.parse_outcome(self._log.read_bytes())

    def report(self) -> str:
        self._process.kill()
        stderr = self._process.stderr.read() if self._process.stderr else ""
        return "".join(self.lines)[-3000:] + stderr[-3000:]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()


@contextmanager
def training(command: list[str], environ: dict[str, str]) -> Iterator[Training]:
    """A training process that does not outlive the test."""
    process = Training(command, environ)
    try:
        yield process
    finally:
        process.close()


def spot_trainer_command(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `python -m spot_trainer`; exit code and output."""
    result = subprocess.run(
        [sys.executable, "-m", "spot_trainer", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "trainer"), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr
