"""The state that every contender saves: about 1 GB, large tensors and a tail of small ones."""

from __future__ import annotations

import torch

LARGE_TENSORS = 64
LARGE_ELEMENTS = 4 * 1024 * 1024
SMALL_TENSORS = 128
SMALL_ELEMENTS = 1021
"""Odd on purpose: nothing is aligned by luck."""


def make(device: str = "cpu") -> dict[str, torch.Tensor]:
    """Noise, so that no layer in between can compress it."""
    generator = torch.Generator().manual_seed(7)
    sizes = [LARGE_ELEMENTS] * LARGE_TENSORS + [SMALL_ELEMENTS] * SMALL_TENSORS
    return {
        f"layer{number:03d}": torch.randn(size, generator=generator).to(device)
        for number, size in enumerate(sizes)
    }


def num_bytes(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
