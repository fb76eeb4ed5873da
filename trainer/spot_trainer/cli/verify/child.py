"""One process of the user's script, and everything that it starts.

Invariant: it lives in a session of its own, and when the block that started it is left,
for whatever reason, neither it nor anything it started is alive.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_LAST_WORDS_SECONDS = 1.0
"""How long output is awaited of children that outlive the script and hold its stdout."""
_POLL_SECONDS = 0.1


class Child:
    """A running script; its stdout is read as it comes."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with open(errors, "wb") as stderr:
            self._process = subprocess.Popen(
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="spot-verify", daemon=True)
        self._reader.start()

    def lines(self, seconds: float) -> Iterator[str | None]:
        """Lines until it has ended, None now and then; raises TimeoutError after so long a silence."""
        quiet_since = time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
                if line is None:
                    return
                quiet_since = time.monotonic()
                yield line
                continue
            except queue.Empty:
                quiet = time.monotonic() - quiet_since
            if self._process.poll() is not None and quiet > _LAST_WORDS_SECONDS:
                return
            if quiet > seconds:
                raise TimeoutError(f"nothing was printed for {seconds:.0f} s")
            yield None

    def interrupt(self, number: signal.Signals) -> None:
        """SIGTERM goes to the script, as from a kubelet; SIGKILL takes everything, as a lost machine does."""
        if number is signal.SIGKILL:
            self._kill_all()
        elif self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code; -9 for a killed process."""
        return self._process.wait()

    def last_words(self, num_lines: int = 12) -> str:
        """The end of stderr."""
        return "\n".join(self._errors.read_text(errors="replace").splitlines()[-num_lines:])

    def close(self) -> None:
        self._kill_all()
        self._process.wait()
        self._reader.join(2 * _LAST_WORDS_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _kill_all(self) -> None:
        # The group carries the id of the script, also after the script itself has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextlib.contextmanager
def child(command: Sequence[str], environ: Mapping[str, str], errors: Path) -> Iterator[Child]:
    """A script that does not outlive the block; raises OSError if it cannot be started."""
    process = Child(command, environ, errors)
    try:
        yield process
    finally:
        process.close()
