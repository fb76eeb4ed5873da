"""Random numbers in the workers of a DataLoader, as a function of the sample.

A worker begins with fresh generators and uses them for whatever samples come its way, so
that an epoch that is entered in the middle would augment them differently. Here each
sample is loaded with generators that were seeded from the run's seed, the epoch and its
index. Invariant: what a worker returns for a sample does not depend on what it, or
another worker, has loaded before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import get_worker_info


class SeededBySample:
    """A `worker_init_fn` that also calls the one that was there before; picklable, for spawned workers."""

    def __init__(self, seed: int, epoch: int, previous: Callable[[int], Any] | None) -> None:
        self._seed, self._epoch = seed, epoch
        # The one of the epoch before gives way to this one.
        self.previous: Callable[[int], Any] | None = (
            previous.previous if isinstance(previous, SeededBySample) else previous
        )

    def __call__(self, worker: int) -> None:
        if self.previous is not None:
            self.previous(worker)
        info = get_worker_info()
        assert info is not None
        _seed_before_each(info.dataset, self._reseed)

    def _reseed(self, index: int) -> None:
        seed = xxhash.xxh3_64_intdigest(f"sample/{self._seed}/{self._epoch}/{index}".encode()) >> 1
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)


def _seed_before_each(dataset: Any, reseed: Callable[[int], None]) -> None:
    """Change the worker's own copy of the dataset; the loader holds on to the object itself."""
    kind = type(dataset)

    def get_item(self: Any, index: int) -> Any:
        reseed(index)
        return kind.__getitem__(self, index)

    def get_items(self: Any, indices: Sequence[int]) -> list[Any]:
        # Many at once would share what they draw; a batch is entered in the middle all the same.
        return [self[index] for index in indices]

    methods: dict[str, Any] = {"__getitem__": get_item}
    if hasattr(kind, "__getitems__"):
        methods["__getitems__"] = get_items
    try:
        dataset.__class__ = type(kind.__name__, (kind,), methods)
    except TypeError as error:
        raise TypeError(
            f"a dataset of type {kind.__name__} cannot be seeded by sample in loader workers: derive it from "
            "torch.utils.data.Dataset, or use num_workers=0"
        ) from error
