"""State dictionaries as JSON plus tensors, without pickle.

Loading a pickle runs whatever its writer put there; a checkpoint is data and is read as
data. Invariant: decode(encode(x)) has the same types, the same bits and the same order
as x (a defaultdict becomes a dict); a type that cannot keep this promise is refused by
name when it is saved, never when it is needed.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Json = Any
Leaf = torch.Tensor

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.float8_e4m3fn, torch.float8_e5m2,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        torch.uint16, torch.uint32, torch.uint64,
        torch.complex64, torch.complex128,
    )
}  # fmt: skip


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    return _DTYPES[name]


class Encoder:
    """Turns a tree into JSON; tensors are collected in `tensors` in the order of their numbers."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def encode(self, value: Any, path: str) -> Json:
        """The JSON for value; raises TypeError naming the path of what cannot be kept."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"t": "float", "v": repr(value)}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if type(value) in (dict, OrderedDict, Counter, defaultdict):
            return self._dict(value, path)
        if type(value) in (list, tuple):
            kind = "list" if type(value) is list else "tuple"
            return {"t": kind, "v": [self.encode(item, f"{path}[{i}]") for i, item in enumerate(value)]}
        return self._special(value, path)

    def _tensor(self, value: torch.Tensor, path: str) -> Json:
        if value.layout != torch.strided or dtype_name(value.dtype) not in _DTYPES:
            raise TypeError(f"{path}: a {value.layout} tensor of {value.dtype} cannot be checkpointed")
        self.tensors.append(value)
        return {"t": "tensor", "i": len(self.tensors) - 1}

    def _dict(self, value: dict[Any, Any], path: str) -> Json:
        items = [
            [self.encode(key, f"{path} key"), self.encode(item, f"{path}.{key}")]
            for key, item in value.items()
        ]
        if not isinstance(value, OrderedDict):
            return {"t": "counter" if isinstance(value, Counter) else "dict", "v": items}
        encoded: dict[str, Json] = {"t": "odict", "v": items}
        # nn.Module keeps the version of each submodule here and needs it when loading.
        metadata = getattr(value, "_metadata", None)
        if metadata is not None:
            encoded["m"] = self.encode(metadata, f"{path}._metadata")
        return encoded

    def _special(self, value: Any, path: str) -> Json:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            copy = np.array(value, order="C")
            raw = torch.from_numpy(copy.reshape(-1).view(np.uint8))
            return {
                "t": "ndarray",
                "dtype": value.dtype.str,
                "shape": list(value.shape),
                "v": self._tensor(raw, path),
            }
        if isinstance(value, np.generic) and value.dtype.kind in "biufc":
            return {"t": "npscalar", "dtype": value.dtype.str, "v": value.tobytes().hex()}
        if type(value) is bytes:
            return {"t": "bytes", "v": value.hex()}
        if type(value) is torch.Size:
            return {"t": "size", "v": list(value)}
        if type(value) is torch.dtype:
            return {"t": "dtype", "v": dtype_name(value)}
        if type(value) is torch.device:
            return {"t": "device", "v": str(value)}
        if type(value) is set:
            return {"t": "set", "v": [self.encode(item, path) for item in sorted(value)]}
        raise TypeError(
            f"{path}: a {type(value).__module__}.{type(value).__qualname__} cannot be checkpointed; let "
            "state_dict() return numbers, strings, tensors, arrays, and lists and dicts of them"
        )


def decode(encoded: Json, tensors: Sequence[torch.Tensor]) -> Any:
    """The tree that was encoded, around the given tensors."""
    if not isinstance(encoded, dict):
        return encoded
    return _DECODERS[encoded["t"]](encoded, tensors)


def match(encoded: Json, live: Any) -> dict[int, torch.Tensor]:
    """The tensors of `live` that stand where an encoded tree has tensors, by their number."""
    found: dict[int, torch.Tensor] = {}
    _match(encoded, live, found)
    return found


def _match(encoded: Json, live: Any, found: dict[int, torch.Tensor]) -> None:
    if not isinstance(encoded, dict):
        return
    kind = encoded["t"]
    if kind == "tensor" and isinstance(live, torch.Tensor):
        found[encoded["i"]] = live
    elif kind in ("dict", "odict") and isinstance(live, dict):
        for key, item in encoded["v"]:
            _match(item, live.get(decode(key, ())), found)
    elif kind in ("list", "tuple") and isinstance(live, list | tuple):
        for item, value in zip(encoded["v"], live, strict=False):
            _match(item, value, found)


def _decode_odict(encoded: Json, tensors: Sequence[torch.Tensor]) -> Any:
    result = OrderedDict((decode(k, tensors), decode(v, tensors)) for k, v in encoded["v"])
    if "m" in encoded:
        result._metadata = decode(encoded["m"], tensors)  # type: ignore[attr-defined]
    return result


def _decode_array(encoded: Json, tensors: Sequence[torch.Tensor]) -> Any:
    raw = decode(encoded["v"], tensors).numpy().copy()
    return raw.view(np.dtype(encoded["dtype"])).reshape(encoded["shape"])


_DECODERS: dict[str, Callable[[Json, Sequence[torch.Tensor]], Any]] = {
    "float": lambda e, _: float(e["v"]),
    "tensor": lambda e, t: t[e["i"]],
    "dict": lambda e, t: {decode(k, t): decode(v, t) for k, v in e["v"]},
    "counter": lambda e, t: Counter({decode(k, t): decode(v, t) for k, v in e["v"]}),
    "odict": _decode_odict,
    "list": lambda e, t: [decode(item, t) for item in e["v"]],
    "tuple": lambda e, t: tuple(decode(item, t) for item in e["v"]),
    "ndarray": _decode_array,
    "npscalar": lambda e, _: np.frombuffer(bytes.fromhex(e["v"]), dtype=e["dtype"])[0],
    "bytes": lambda e, _: bytes.fromhex(e["v"]),
    "size": lambda e, _: torch.Size(e["v"]),
    "dtype": lambda e, _: dtype_of(e["v"]),
    "device": lambda e, _: torch.device(e["v"]),
    "set": lambda e, t: {decode(item, t) for item in e["v"]},
}
