"""Which sample comes next, as a function of a seed, an epoch and a position.

A resume in the middle of an epoch then needs no replay: the order is computed again and
entered at the position. Invariant: the position counts samples that a finished step has
consumed, never what a loader has fetched ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
import xxhash
from torch.utils.data import Sampler


class ShuffledSampler(Sampler[int]):
    """Every sample once per epoch, in an order that depends on seed and epoch only.

    Give it to the DataLoader (`sampler=`) and to the Run (`sampler=`); the run moves it.
    """

    def __init__(self, dataset: Sized | int, *, seed: int = 0, shuffle: bool = True) -> None:
        self._num_samples = dataset if isinstance(dataset, int) else len(dataset)
        self.seed = seed
        self._shuffle = shuffle
        self.epoch = 0
        self.position = 0
        self.digest = ""
        """Hash over all sample indices consumed so far, in order, since step 0."""

    def __len__(self) -> int:
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        """The rest of the current epoch."""
        return iter(self._order()[self.position :])

    def consume(self, num_samples: int, *, drop_last: bool = False) -> list[int]:
        """Move past the samples of one step and return their indices.

        The last step of an epoch moves on to the next one, so that a position is written
        in one way only, whether a checkpoint falls before or after the end of an epoch.
        """
        indices = self._order()[self.position : self.position + num_samples]
        self.position += len(indices)
        text = ",".join(map(str, indices))
        self.digest = xxhash.xxh3_128_hexdigest(f"{self.digest}/{self.epoch}:{text}".encode())
        remaining = self._num_samples - self.position
        if remaining == 0 or (drop_last and remaining < num_samples):
            self.start_epoch(self.epoch + 1)
        return indices

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.position = epoch, 0

    def generator(self) -> torch.Generator:
        """A generator for the DataLoader, so that it leaves the global one alone."""
        return torch.Generator().manual_seed(self._epoch_seed("loader"))

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_samples": self._num_samples,
            "seed": self.seed,
            "shuffle": self._shuffle,
            "epoch": self.epoch,
            "position": self.position,
            "digest": self.digest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, now in (
            ("num_samples", self._num_samples),
            ("seed", self.seed),
            ("shuffle", self._shuffle),
        ):
            if state_dict[name] != now:
                raise ValueError(f"{name} was {state_dict[name]} and is {now}: the order would change")
        self.epoch = state_dict["epoch"]
        self.position = state_dict["position"]
        self.digest = state_dict["digest"]

    def _order(self) -> list[int]:
        if getattr(self, "_cached_epoch", None) != self.epoch:
            if self._shuffle:
                source = torch.Generator().manual_seed(self._epoch_seed("order"))
                self._cached = torch.randperm(self._num_samples, generator=source).tolist()
            else:
                self._cached = list(range(self._num_samples))
            self._cached_epoch = self.epoch
        return self._cached

    def _epoch_seed(self, purpose: str) -> int:
        return xxhash.xxh3_64_intdigest(f"{purpose}/{self.seed}/{self.epoch}".encode()) >> 1
