"""One save in flight, behind the back of the training thread.

The training thread takes the snapshot and hands it over; hashing, writing and publishing
happen on a thread of their own, in few large calls that release the interpreter.
Invariant: a result is handed out exactly once, whatever it is, so that no error of the
background is lost; while a save is in flight nobody else uses the store protocol or the
snapshot's buffers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from spot_trainer.lineage import AttemptName

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Save:
    """A save that was begun."""

    step: int
    began: float
    """Monotonic seconds, before the snapshot."""
    stall_seconds: float
    """How long training stood still for the snapshot."""
    num_bytes: int
    request: str | None = None
    """The id of the directive that asked for it."""
    lines: tuple[str, ...] = ()
    """Metrics of the steps since the save before, as JSON lines."""
    first_line_step: int = 0


@dataclass(frozen=True)
class Saved:
    """How a save ended: with a name or with an error."""

    save: Save
    name: AttemptName | None
    error: BaseException | None
    ended: float
    """Monotonic seconds."""

    @property
    def seconds(self) -> float:
        """From the beginning of the snapshot until it was durable, or given up."""
        return self.ended - self.save.began


class Saver:
    """Used by one thread, the training thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._thread: threading.Thread | None = None
        self._result: Saved | None = None
        self.in_flight: Save | None = None

    def begin(self, save: Save, publish: Callable[[], AttemptName], *, in_background: bool = True) -> None:
        """Run `publish` on another thread (or here); the result is for `poll` or `wait`."""
        assert self.in_flight is None, "one save at a time"
        self.in_flight = save

        def run() -> None:
            name, error = None, None
            try:
                name = publish()
            except BaseException as caught:  # noqa: BLE001  it is handed to the training thread
                error = caught
            self._result = Saved(save, name, error, self._monotonic())

        if not in_background:
            run()
            return
        self._thread = threading.Thread(target=run, name="spot-save", daemon=True)
        self._thread.start()

    def poll(self) -> Saved | None:
        """The result of the save in flight if there is one; never blocks."""
        if self._result is None:
            return None
        result, self._result, self.in_flight, self._thread = self._result, None, None, None
        return result

    def wait(self, timeout_seconds: float | None = None) -> Saved | None:
        """As `poll`, after waiting for the end; None: nothing in flight, or still going on."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        return self.poll()
