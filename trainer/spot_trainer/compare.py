"""Whether two runs ended in the same state, bit for bit, and if not, where they part.

The referee of every claim that a resume changes nothing. Invariant: it ignores nothing
but who wrote a checkpoint and when; a tensor is equal if dtype, shape and all its bytes
are, so that NaN equals itself and 0.0 differs from -0.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from spot_trainer import writer
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import MANIFEST, Damaged
from spot_trainer.store import Store
from spot_trainer.writer import Loaded

ABSENT = object()


def published(store: Store) -> list[AttemptName]:
    """All published attempts, by step, the latest last."""
    keys = [entry.key.split("/") for entry in store.list("attempts/")]
    names = (AttemptName.parse(key[1]) for key in keys if key[2:] == [MANIFEST])
    return sorted(name for name in names if name is not None)


def final_checkpoint(store: Store) -> Loaded:
    """What final.json names; raises StoreError or Damaged."""
    name = AttemptName.parse(json.loads(store.read("final.json"))["checkpoint"])
    if name is None:
        raise Damaged("final.json names no checkpoint")
    return writer.load(store, name)


def differences(a: Any, b: Any, path: str = "state") -> Iterator[str]:
    """Each difference as `path: what`, in the order of the state."""
    if type(a) is not type(b):
        yield f"{path}: {_describe(a)} and {_describe(b)}"
    elif isinstance(a, torch.Tensor):
        yield from _tensor_differences(a, b, path)
    elif isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape) or a.tobytes() != b.tobytes():
            yield f"{path}: the arrays differ"
    elif isinstance(a, dict):
        if list(a) != list(b) and set(a) == set(b):
            yield f"{path}: the order of the keys differs"
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key, ABSENT), b.get(key, ABSENT), f"{path}.{key}")
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield f"{path}: {len(a)} and {len(b)} elements"
        for number, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from differences(left, right, f"{path}[{number}]")
    elif not _is_same(a, b):
        yield f"{path}: {a!r} and {b!r}"


def _tensor_differences(a: torch.Tensor, b: torch.Tensor, path: str) -> Iterator[str]:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{path}: {_describe(a)} and {_describe(b)}"
    elif a.numel():
        left, right = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
        if not torch.equal(left, right):
            elements = (left != right).reshape(a.numel(), -1).any(dim=1)
            first = int(elements.nonzero()[0])
            yield f"{path}: {int(elements.sum())} of {a.numel()} elements differ, the first is number {first}"


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, float):
        return a.hex() == b.hex() and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


def _describe(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    if isinstance(value, torch.Tensor):
        return f"tensor {value.dtype} {list(value.shape)}"
    return type(value).__name__


def history(store: Store) -> list[dict[str, Any]]:
    """The metrics of every step of every incarnation, by incarnation and step."""
    lines: list[dict[str, Any]] = []
    for key in sorted(entry.key for entry in store.list("metrics/")):
        lines.extend(json.loads(line) for line in store.read(key).decode().splitlines())
    return sorted(lines, key=lambda line: (line["incarnation"], line["step"]))
