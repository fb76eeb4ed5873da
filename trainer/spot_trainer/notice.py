"""SIGTERM, seen within milliseconds and acted on within the grace period.

A Python signal handler runs only when the main thread returns to the interpreter, which
may be long after the signal if it sits in one C call. The wake-up descriptor is written
by the C handler at once, so that a reader thread knows the time of the notice and can
hold the deadline even while the main thread computes.

Before training starts there is nothing to save: the reader thread ends the process
itself. While training, the run looks at `received_at` between steps; if it has not ended
by the deadline, the thread ends the process with what is durable. Invariant: a child
process (a loader worker) has the default action for SIGTERM and does not write to our
descriptor.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

Leave = Callable[[str], int]
"""Write the outcome, with this message, and return the exit code. Called on the reader thread."""


def _leave_silently(_: str) -> int:
    return 75


def _keep(_signal: int, _frame: FrameType | None) -> None:
    """Without a Python handler the signal would end the process before anybody looked."""


class Listener:
    """One per process; `install` and `remove` only on the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received_at: float | None = None
        self._leave: Leave = _leave_silently
        self._grace_seconds: float | None = None
        self._left_seconds: float | None = None
        self._is_early = False
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None
        self._previous: object = None
        self._held: set[signal.Signals] | set[int] | None = None

    @property
    def received_at(self) -> float | None:
        """Monotonic time of the first notice; None: there was none."""
        return self._received_at

    @property
    def is_installed(self) -> bool:
        return self._reader is not None

    def install(self, *, is_early: bool = False) -> None:
        """Start listening in start-up mode: a notice ends the process at once. Idempotent.

        `is_early`: for the whole life of the process, not only for that of a run.
        """
        if self._reader is not None or threading.current_thread() is not threading.main_thread():
            return
        self._received_at, self._left_seconds, self._is_early = None, None, is_early
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous = signal.signal(signal.SIGTERM, _keep)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # A system call that was interrupted by the signal goes on: nobody has to expect EINTR.
        signal.siginterrupt(signal.SIGTERM, False)
        threading.Thread(target=self._watch, args=(self._reader,), name="spot-notice", daemon=True).start()

    def remove(self) -> None:
        """Restore what was there before; the thread ends."""
        if self._reader is None or self._writer is None:
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, self._previous)  # type: ignore[arg-type]
        self._writer.close()
        self._reader = self._writer = None
        self._grace_seconds, self._leave = None, _leave_silently

    def on_leave(self, leave: Leave) -> None:
        """Who writes the outcome if the process must be ended from the reader thread."""
        with self._lock:
            self._leave = leave

    def start_polling(self, grace_seconds: float) -> None:
        """Training begins: from now on the run looks at `received_at` and ends by itself."""
        with self._lock:
            self._grace_seconds = grace_seconds

    def stop_polling(self) -> None:
        """The outcome is written: in a pod a further notice ends the process at once, elsewhere as before."""
        with self._lock:
            # The notice that led here is dealt with; a later one is a new one.
            self._grace_seconds = self._received_at = self._left_seconds = None
        if not self._is_early:
            self.remove()

    def request(self, left_seconds: float | None = None) -> None:
        """Act as if SIGTERM had arrived now: a directive asks for it, or the cloud's notice endpoint.

        `left_seconds`: what the cloud says is left; a longer grace period counts for nothing then.
        """
        with self._lock:
            if self._received_at is None:
                self._received_at, self._left_seconds = time.monotonic(), left_seconds
            writer = self._writer
        if writer is not None:
            with contextlib.suppress(OSError):  # full: it is readable; closed: nobody listens any more
                writer.send(b"\0")

    def deadline(self) -> float | None:
        """Monotonic time by which the process must be gone; None: no notice, or not training."""
        if self._received_at is None or self._grace_seconds is None:
            return None
        left = self._left_seconds
        grace = self._grace_seconds if left is None else max(0.0, min(left, self._grace_seconds))
        # The last second belongs to the kernel, the kubelet and the write of the outcome.
        return self._received_at + max(grace - 1.0, grace * 0.8)

    def before_fork(self) -> None:
        """Hold SIGTERM back: in its first instant a child would still write to our descriptor."""
        if self._reader is not None:
            self._held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after_fork_in_parent(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def after_fork_in_child(self) -> None:
        """Default action, nothing written to the parent's descriptor, then what was held back."""
        held = self._held
        if self._reader is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.__init__()  # type: ignore[misc]
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _watch(self, reader: socket.socket) -> None:
        with contextlib.closing(reader):
            while True:
                deadline = self.deadline()
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                if select.select([reader], [], [], wait)[0]:
                    data = reader.recv(4096)
                    if not data:
                        return
                    self._note(data)
                self._leave_if_due()

    def _note(self, data: bytes) -> None:
        if signal.SIGTERM in data:
            with self._lock:
                self._received_at = self._received_at or time.monotonic()

    def _leave_if_due(self) -> None:
        with self._lock:
            deadline, leave, started = self.deadline(), self._leave, self._grace_seconds is not None
        if self._received_at is None or (started and deadline is not None and time.monotonic() < deadline):
            return
        text = (
            "the step or save in progress did not end in time" if started else "told to stop during start-up"
        )
        code = leave(text)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        # Not sys.exit: the main thread is in the middle of something that does not end in time.
        os._exit(code)


LISTENER = Listener()
"""Signals belong to the process, and so does the one that listens for them."""

os.register_at_fork(
    before=LISTENER.before_fork,
    after_in_parent=LISTENER.after_fork_in_parent,
    after_in_child=LISTENER.after_fork_in_child,
)
