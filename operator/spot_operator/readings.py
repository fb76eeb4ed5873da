"""Lists that are being read, and of what more became known meanwhile: of that, they say nothing.

A watch and the lists of several looks run at one time, and none of them waits for another.
"""

import contextlib
import itertools
from collections.abc import Hashable, Iterator


class Reading:
    """A list that is being read, or was."""

    def __init__(self, number: int) -> None:
        self.number = number
        """In the order in which they were asked for."""
        self.newer: set[Hashable] = set()
        """Of these objects more became known while it was read: it may be older than that."""


class Readings:
    """The lists of one kind of object that are being read."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._open: list[Reading] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Reading]:
        """The list is asked for, and its answer is there, in the block."""
        reading = Reading(next(self._numbers))
        self._open.append(reading)
        try:
            yield reading
        finally:
            self._open.remove(reading)

    def note(self, what: Hashable, *, read_by: Reading | None = None) -> None:
        """Something became known of an object, by a watch or a list; a list only corrects earlier ones."""
        for reading in self._open:
            if read_by is None or reading.number < read_by.number:
                reading.newer.add(what)
