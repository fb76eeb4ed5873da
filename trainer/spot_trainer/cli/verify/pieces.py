"""Which pieces of a training program a checkpoint holds, and which its source speaks of. Pure.

Both are recognised by their form: an optimizer's state has `state` and `param_groups`,
whatever it is called. Invariant: a guess; it is used to explain a difference, never to
decide whether there is one.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import torch


class Piece(StrEnum):
    """What a training program consists of, in words."""

    MODEL = "model"
    OPTIMIZER = "optimizer"
    SCHEDULER = "learning rate scheduler"
    SCALER = "gradient scaler"
    DATA_ORDER = "data order"
    PYTHON_RNG = "Python's random generator"
    NUMPY_RNG = "NumPy's random generator"
    TORCH_RNG = "PyTorch's random generator"
    CUDA_RNG = "CUDA's random generator"
    OWN_RNG = "a random generator of its own"


GENERATORS = (Piece.PYTHON_RNG, Piece.NUMPY_RNG, Piece.TORCH_RNG, Piece.CUDA_RNG)
_BY_PATH = {
    "python": Piece.PYTHON_RNG,
    "numpy": Piece.NUMPY_RNG,
    "torch": Piece.TORCH_RNG,
    "cuda": Piece.CUDA_RNG,
}
_MAX_DEPTH = 4
_TORCH_STATE_BYTES = 5056


def kept(state: Any) -> dict[str, Piece]:
    """Pieces found in a checkpoint's state, by the path of each."""
    return dict(_find(state, "state", 0))


def _find(value: Any, path: str, depth: int) -> Iterator[tuple[str, Piece]]:
    piece = _recognise(value, path)
    if piece is not None:
        yield path, piece
    elif isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, item in value.items():
            yield from _find(item, f"{path}.{key}", depth + 1)


def _recognise(value: Any, path: str) -> Piece | None:
    if path.startswith("state.rng."):
        return _BY_PATH.get(path.removeprefix("state.rng."))
    if isinstance(value, dict):
        return _recognise_dict({str(key) for key in value}, value)
    if isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.numel() == _TORCH_STATE_BYTES:
        return Piece.TORCH_RNG
    if isinstance(value, tuple | list) and len(value) == 3 and value[0] == 3 and len(value[1] or ()) == 625:
        return Piece.PYTHON_RNG
    if isinstance(value, tuple | list) and len(value) == 5 and value[0] == "MT19937":
        return Piece.NUMPY_RNG
    return None


def _recognise_dict(keys: set[str], value: dict[Any, Any]) -> Piece | None:
    if {"state", "param_groups"} <= keys:
        return Piece.OPTIMIZER
    if "last_epoch" in keys:
        return Piece.SCHEDULER
    if {"scale", "growth_factor", "backoff_factor"} <= keys:
        return Piece.SCALER
    if "bit_generator" in keys:
        return Piece.NUMPY_RNG if value["bit_generator"] == "MT19937" else Piece.OWN_RNG
    if "position" in keys and ("epoch" in keys or "seed" in keys):
        return Piece.DATA_ORDER
    if value and all(isinstance(item, torch.Tensor | np.ndarray) for item in value.values()):
        return Piece.MODEL
    return None


_SPOKEN = {
    Piece.OPTIMIZER: r"\boptim\.\w+\(|\b(?:AdamW?|SGD|RMSprop|Adagrad|Lion|Muon)\(",
    Piece.SCHEDULER: r"lr_scheduler|\w+LR\(|[Ss]cheduler\(",
    Piece.SCALER: r"GradScaler\(",
    Piece.DATA_ORDER: r"shuffle\s*=\s*True|RandomSampler\(|randperm\(|\.shuffle\(|\.permutation\(|\biter\(",
    Piece.OWN_RNG: r"default_rng\(|torch\.Generator\(|random\.Random\(|RandomState\(|random\.Generator\(",
    Piece.PYTHON_RNG: r"(?<![.\w])random\.(?!Random\b|seed\b|getstate\b|setstate\b)[a-z]\w*\(",
    Piece.NUMPY_RNG: r"\b(?:np|numpy)\.random\.(?!default_rng|seed|get_state|set_state)[a-z]\w*\(",
    Piece.TORCH_RNG: r"[Dd]ropout|torch\.(?:rand\w*|normal|bernoulli|multinomial)\(|shuffle\s*=\s*True",
}


def spoken_of(source: str) -> frozenset[Piece]:
    """Pieces that a program's text makes use of; comments do not count."""
    # Where it cannot be parsed, a guess from the raw text is as good as we get.
    with contextlib.suppress(SyntaxError, ValueError):
        source = ast.unparse(ast.parse(source))
    return frozenset(piece for piece, pattern in _SPOKEN.items() if re.search(pattern, source))


def part_of(path: str, found: Mapping[str, Piece]) -> Piece | None:
    """The piece that a path of a difference lies in."""
    return next((piece for root, piece in found.items() if path == root or path.startswith(f"{root}.")), None)
