"""The termination message: how this process ended, once.

The kubelet bind-mounts the file, so it is rewritten in place; a rename would detach it.
Invariant: the first outcome wins, whichever thread writes it, and the exit code that
goes with it is the one the process must use.
"""

from __future__ import annotations

import os
import threading

from spot_trainer.contract import ExitCode, Outcome, OutcomeKind

_CODES = {
    OutcomeKind.COMPLETE: ExitCode.COMPLETE,
    OutcomeKind.STOPPED: ExitCode.STOPPED,
    OutcomeKind.FENCED: ExitCode.FENCED,
    OutcomeKind.FAILED: ExitCode.FAILED,
}


class OutcomeFile:
    """Written at most once per process; `path` None writes nowhere and still counts."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.written: Outcome | None = None
        self.exit_code: int = ExitCode.FAILED

    def write(self, outcome: Outcome, exit_code: int | None = None) -> bool:
        """Record the outcome; False if there was one already."""
        with self._lock:
            if self.written is not None:
                return False
            self.written = outcome
            self.exit_code = _CODES[outcome.kind] if exit_code is None else exit_code
            if self._path is not None:
                _write_in_place(self._path, outcome.to_json())
            return True


def is_writer(local_rank: str) -> bool:
    """Whether this process speaks for its pod."""
    return local_rank in ("", "0")


def _write_in_place(path: str, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:
        # Outside a container nobody reads it; the exit code still says the same.
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
