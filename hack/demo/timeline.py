"""What happened, in order: one list that nodes, operator, trainer and the demo itself write to.

Invariant: entries are kept by the time at which they happened, not by the time at which
they were heard of; a trainer's line that arrives late stands where it belongs.
"""

import bisect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Who did it."""

    DEMO = "demo"
    NODE = "node"
    OPERATOR = "operator"
    TRAINER = "trainer"


@dataclass(frozen=True, order=True)
class Entry:
    time: float
    """Seconds since the epoch."""
    source: Source
    text: str
    job: str = ""
    is_minor: bool = False
    """Not shown on the screen, where room is scarce."""


class Timeline:
    """Safe to use from several threads."""

    def __init__(self, start: float, *, on_entry: Callable[[Entry], None] | None = None) -> None:
        self.start = start
        self._entries: list[Entry] = []
        self._lock = threading.Lock()
        self._on_entry = on_entry

    def add(self, entry: Entry) -> None:
        with self._lock:
            bisect.insort(self._entries, entry, key=lambda known: known.time)
        if self._on_entry is not None:
            self._on_entry(entry)

    def entries(self, *, with_minor: bool = True) -> list[Entry]:
        with self._lock:
            return [entry for entry in self._entries if with_minor or not entry.is_minor]


def line(entry: Entry, start: float) -> str:
    """One line of text: seconds since the start, who, what."""
    job = f"[{entry.job}] " if entry.job else ""
    return f"{entry.time - start:7.1f} s  {entry.source:<8}  {job}{entry.text}"


def as_text(entries: list[Entry], start: float) -> str:
    return "".join(f"{line(entry, start)}\n" for entry in entries)
