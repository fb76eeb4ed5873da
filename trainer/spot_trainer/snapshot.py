"""From live state to a copy that training can no longer change.

This is the only part of a save that happens between two steps, and its cost is one copy
in memory: the buffers are allocated once and used again by every save, laid out as the
files will be, so that hashing and writing need no further copy. On CUDA they are pinned
and filled on a stream of their own. Invariant: when `take` has returned, no later change
to the model or optimizer is visible in the snapshot; a snapshot is valid until the next
`take` into the same buffers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spot_trainer import tree
from spot_trainer.layout import Layout, Place, lay_out


@dataclass(frozen=True)
class TensorRecord:
    """How to read one tensor back, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    place: Place


@dataclass(frozen=True)
class Snapshot:
    """Everything of a run at one step."""

    tree: str
    """JSON; tensors are referred to by number."""
    tensors: tuple[TensorRecord, ...]
    segments: tuple[memoryview, ...]
    """Bytes of each data file. Call `wait` before reading them."""
    copies: tuple[torch.cuda.Stream, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(record.place.num_bytes for record in self.tensors)

    def wait(self) -> None:
        """Block until copies from devices have arrived; on any thread."""
        for stream in self.copies:
            stream.synchronize()


class Buffers:
    """Host memory that is used again by each snapshot: at most 1.0 times the state."""

    def __init__(self) -> None:
        self._signature: tuple[object, ...] = ()
        self._layout = Layout((), ())
        self._records: tuple[TensorRecord, ...] = ()
        self._segments: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @property
    def num_bytes(self) -> int:
        """Host memory that is held."""
        return sum(self._layout.segment_sizes)

    def fit(self, tensors: Sequence[torch.Tensor]) -> None:
        """Allocate for tensors like these, unless the memory fits already."""
        is_pinned = any(tensor.is_cuda for tensor in tensors)
        signature = (is_pinned, *((tensor.dtype, tensor.shape) for tensor in tensors))
        if signature == self._signature:
            return
        layout = lay_out(tensor.numel() * tensor.element_size() for tensor in tensors)
        if (layout.segment_sizes, is_pinned) != (self._layout.segment_sizes, bool(self._is_pinned())):
            # What is no longer needed goes first: both together may not fit into the machine.
            self._targets, self._segments = [], []
            self._segments = [
                torch.zeros(size, dtype=torch.uint8, pin_memory=is_pinned) for size in layout.segment_sizes
            ]
        else:
            for segment in self._segments:
                segment.zero_()
        self._layout = layout
        self._records = tuple(
            TensorRecord(tree.dtype_name(tensor.dtype), tuple(tensor.shape), place)
            for tensor, place in zip(tensors, layout.places, strict=True)
        )
        self._targets = [
            self._segments[place.segment][place.offset : place.offset + place.num_bytes]
            .view(tensor.dtype)
            .view(tensor.shape)
            for tensor, place in zip(tensors, layout.places, strict=True)
        ]
        self._signature = signature

    def fill(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.cuda.Stream, ...]:
        """Copy the tensors in; copies from devices go on after this returns."""
        used: dict[torch.device, torch.cuda.Stream] = {}
        for source, target in zip(tensors, self._targets, strict=True):
            if not source.is_cuda:
                target.copy_(source.detach())
                continue
            stream = used.get(source.device)
            if stream is None:
                stream = used[source.device] = self._stream(source.device)
                stream.wait_stream(torch.cuda.current_stream(source.device))
            with torch.cuda.stream(stream):
                target.copy_(source.detach(), non_blocking=True)
            # A state_dict may hand out temporaries: their memory is not free before it was read.
            source.record_stream(stream)
        for device, stream in used.items():
            # Whatever training computes next waits on the device, not here, until it was copied.
            torch.cuda.current_stream(device).wait_stream(stream)
        return tuple(used.values())

    @property
    def records(self) -> tuple[TensorRecord, ...]:
        return self._records

    @property
    def segments(self) -> tuple[memoryview, ...]:
        return tuple(memory(segment) for segment in self._segments)

    def _is_pinned(self) -> bool:
        return bool(self._signature) and bool(self._signature[0])

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]


def check(state: dict[str, Any], buffers: Buffers | None = None) -> None:
    """Raise TypeError naming what cannot be kept, and allocate the buffers; copies nothing."""
    encoder = tree.Encoder()
    encoder.encode(state, "state")
    if buffers is not None:
        buffers.fit(encoder.tensors)


def take(state: dict[str, Any], buffers: Buffers | None = None) -> Snapshot:
    """Copy the state; raises TypeError naming what cannot be kept."""
    encoder = tree.Encoder()
    # As text it is out of reach of training, and it is known here that it can be written.
    encoded = json.dumps(encoder.encode(state, "state"), allow_nan=False, separators=(",", ":"))
    buffers = buffers or Buffers()
    buffers.fit(encoder.tensors)
    copies = buffers.fill(encoder.tensors)
    return Snapshot(encoded, buffers.records, buffers.segments, copies)


def memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it."""
    flat: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return memoryview(flat)
