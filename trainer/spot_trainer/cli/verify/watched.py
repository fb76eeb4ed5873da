"""Files that a script leaves behind, compared piece by piece.

torch.save files are read without running code from them (weights_only); safetensors files
are read here, for their format is a page long; whatever cannot be read is compared as
bytes, and the report says which was done. Invariant: files are moved out of the script's
way, never deleted, so that the second run begins as empty as the first.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spot_trainer.cli.verify.schedule import Impossible
from spot_trainer.compare import differences

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_SAFE: list[Any] = [_RECONSTRUCT, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
"""What NumPy's own random state needs, which many scripts keep in their checkpoint."""


@dataclass(frozen=True)
class Content:
    """A file as it is compared."""

    how: str
    value: Any


@dataclass(frozen=True)
class FileDifference:
    """The first differing file: its name, and its differences as `path: what`."""

    name: str
    found: tuple[str, ...]
    value: Any
    """The state, if there is one, in which the paths lie."""


def refuse_existing(paths: Sequence[Path]) -> None:
    """Both runs have to begin without them; raises Impossible."""
    for path in paths:
        if path.exists():
            raise Impossible(
                f"{path} exists already, and a run that finds it would not begin afresh: move it away, or "
                "let the script write into {dir} and say --watch '{dir}/...'"
            )


def collect(paths: Sequence[Path], into: Path) -> dict[str, Path]:
    """Move what a run left out of the way; every file by its name. Raises Impossible."""
    into.mkdir()
    files: dict[str, Path] = {}
    for number, path in enumerate(paths):
        if not path.exists():
            raise Impossible(f"--watch {path}: the script left nothing there")
        kept = into / str(number)
        shutil.move(path, kept)
        if kept.is_file():
            files[path.name] = kept
            continue
        for file in sorted(kept.rglob("*")):
            if file.is_file():
                files[f"{path.name}/{file.relative_to(kept)}"] = file
    return files


def read(path: Path, name: str) -> Content:
    """The content in the best form that can be compared."""
    if name.endswith(".safetensors"):
        try:
            return Content("tensor by tensor", read_safetensors(path))
        except (ValueError, KeyError, TypeError):
            return Content("byte by byte (not a readable safetensors file)", path.read_bytes())
    if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".tar")):
        try:
            with torch.serialization.safe_globals(_SAFE):
                return Content("tensor by tensor", torch.load(path, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
            return Content("byte by byte (it cannot be read without running its code)", path.read_bytes())
    return Content("byte by byte", path.read_bytes())


def read_safetensors(path: Path) -> dict[str, Any]:
    """Tensors by name, as dtype, shape and bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    return {
        name: (about["dtype"], about["shape"], body[about["data_offsets"][0] : about["data_offsets"][1]])
        for name, about in sorted(header.items())
        if name != "__metadata__"
    }


def compare(reference: dict[str, Path], run: dict[str, Path]) -> tuple[list[str], FileDifference | None]:
    """A line on how each file was compared, and the first that differs."""
    said: list[str] = []
    first: FileDifference | None = None
    for name in dict.fromkeys([*reference, *run]):
        if name not in reference or name not in run:
            which = "uninterrupted" if name in reference else "interrupted"
            first = first or FileDifference(name, (f"state: only the {which} run left it",), None)
            continue
        left, right = read(reference[name], name), read(run[name], name)
        said.append(f"{name}, {left.how}")
        if first is None and (found := tuple(_differences(left, right))):
            first = FileDifference(name, found, left.value)
    return said, first


def _differences(left: Content, right: Content) -> Iterator[str]:
    if isinstance(left.value, bytes) or isinstance(right.value, bytes):
        if left.value != right.value:
            yield "state: the bytes differ"
        return
    for line in differences(left.value, right.value):
        # Raw tensors of safetensors would fill the screen.
        yield line if len(line) < 300 else f"{line.split(':', 1)[0]}: the values differ"
