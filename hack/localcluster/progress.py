"""What is running and for how long: silence of more than ten seconds looks like a hang.

On a terminal one line is rewritten in place; elsewhere (CI logs) each step
prints a line when it starts and ends, and all running steps are named every
ten seconds. Everything goes to standard error, so that standard output stays
free for results.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

_TTY_PERIOD_SECONDS = 0.5
_LOG_PERIOD_SECONDS = 10.0


class Progress:
    """Reports the steps of one run; safe to use from several threads."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._is_tty = self._stream.isatty()
        self._running: dict[str, float] = {}
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._wake = threading.Event()
        self._reporter: threading.Thread | None = None

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show the step while the body runs, and how long it took once it is over."""
        began = time.monotonic()
        with self._lock:
            self._running[title] = began
        self._ensure_reporter()
        if not self._is_tty:
            self._line(f"{title} ...")
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            with self._lock:
                self._running.pop(title, None)
            self._line(f"{title}: {outcome} in {time.monotonic() - began:.1f} s")

    def say(self, text: str) -> None:
        """Print one line now."""
        self._line(text)

    def _ensure_reporter(self) -> None:
        with self._lock:
            if self._reporter is None and not self._quiet:
                self._reporter = threading.Thread(target=self._report, daemon=True)
                self._reporter.start()

    def _report(self) -> None:
        period = _TTY_PERIOD_SECONDS if self._is_tty else _LOG_PERIOD_SECONDS
        while not self._wake.wait(period):
            if text := self.status():
                if self._is_tty:
                    self._stream.write(f"\r\x1b[K{text[:150]}")
                    self._stream.flush()
                else:
                    self._line(text)

    def status(self) -> str:
        """The running steps with their seconds, or nothing."""
        now = time.monotonic()
        with self._lock:
            return "; ".join(f"{title} {now - began:.0f} s" for title, began in self._running.items())

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        clear = "\r\x1b[K" if self._is_tty else ""
        self._stream.write(f"{clear}[{time.monotonic() - self._begin:6.1f}] {text}\n")
        self._stream.flush()
