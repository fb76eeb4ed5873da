"""From live state to a copy that training can no longer change.

This is the only part of a save that must happen between two steps; `writer` works on the
copy alone, on whatever thread. Invariant: when `take` has returned, no later change to
the model or optimizer is visible in the snapshot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from spot_trainer import tree


@dataclass(frozen=True)
class HostTensor:
    """The bytes of one tensor in host memory, and how to read them."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True)
class Snapshot:
    """Everything of a run at one step."""

    tree: Any
    """JSON; tensors are referred to by number."""
    tensors: tuple[HostTensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.data.nbytes for tensor in self.tensors)


def check(state: dict[str, Any]) -> None:
    """Raise TypeError naming what cannot be kept; copies nothing."""
    tree.Encoder().encode(state, "state")


def take(state: dict[str, Any]) -> Snapshot:
    """Copy the state; raises TypeError naming what cannot be kept."""
    encoder = tree.Encoder()
    encoded = encoder.encode(state, "state")
    # The round trip through text proves here, while training still runs, that it can be read back.
    encoded = json.loads(json.dumps(encoded, allow_nan=False))
    return Snapshot(encoded, tuple(_to_host(tensor) for tensor in encoder.tensors))


def _to_host(tensor: torch.Tensor) -> HostTensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    copy.copy_(tensor.detach())
    raw: Any = copy.reshape(-1).view(torch.uint8).numpy() if copy.numel() else b""
    return HostTensor(tree.dtype_name(tensor.dtype), tuple(tensor.shape), memoryview(raw))
