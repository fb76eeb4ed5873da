"""Where each tensor of a checkpoint lies. Pure.

A checkpoint's bytes are a few segments, each of which is one data file and one stretch of
memory with the same layout: what is copied into memory in one go is hashed, written and
read in one go. Invariant: tensors keep their order, never overlap, are never split over
two segments, and begin at a multiple of `ALIGNMENT_BYTES`; the gaps between them are zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ALIGNMENT_BYTES = 64
"""A cache line, and the largest vector register: views of any dtype are aligned."""

SEGMENT_BYTES = 256 * 1024 * 1024
"""A segment is closed when it has reached this size."""

MAX_BUFFERS = 512
"""Of one read; Linux takes at most 1024 (IOV_MAX)."""


@dataclass(frozen=True)
class Place:
    """A stretch of one segment."""

    segment: int
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Layout:
    """Places in the order of the tensors, and the size of each segment in bytes."""

    places: tuple[Place, ...]
    segment_sizes: tuple[int, ...]


def lay_out(sizes: Iterable[int], *, segment_bytes: int = SEGMENT_BYTES) -> Layout:
    """Put tensors of these sizes in bytes one after the other."""
    places: list[Place] = []
    segment_sizes: list[int] = []
    end = segment_bytes
    for size in sizes:
        if end >= segment_bytes:
            segment_sizes.append(0)
            end = 0
        offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        places.append(Place(len(segment_sizes) - 1, offset, size))
        end = segment_sizes[-1] = offset + size
    return Layout(tuple(places), tuple(segment_sizes))


@dataclass(frozen=True)
class Stretch:
    """Consecutive bytes of a file, and the memory that takes them."""

    offset: int
    buffers: tuple[memoryview, ...]

    @property
    def num_bytes(self) -> int:
        return sum(len(buffer) for buffer in self.buffers)


def stretches(buffers: Iterable[memoryview], *, chunk_bytes: int) -> Iterator[Stretch]:
    """Cut what lies one after the other from the start of a file into reads of a bounded size."""
    offset = held = 0
    group: list[memoryview] = []
    for buffer in buffers:
        while buffer:
            piece = buffer[: chunk_bytes - held]
            group.append(piece)
            held += len(piece)
            buffer = buffer[len(piece) :]
            if held == chunk_bytes or len(group) == MAX_BUFFERS:
                yield Stretch(offset, tuple(group))
                offset, held, group = offset + held, 0, []
    if group:
        yield Stretch(offset, tuple(group))
