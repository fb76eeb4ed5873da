"""What a run consists of besides the program: registered objects and random generators.

Invariant: a restored state is complete. A name that the checkpoint lacks, or has too
much, is an error and never a silent fresh start of that piece.
"""

from __future__ import annotations

import copy
import platform
import random
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


@runtime_checkable
class Stateful(Protocol):
    """What PyTorch's modules, optimizers, schedulers and scalers all offer."""

    def state_dict(self) -> Any:
        """The state as plain data and tensors."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take over a state."""


class Incompatible(Exception):
    """The checkpoint does not fit this program; the message says where."""


class Values:
    """Plain values that belong to the checkpoint, as attributes: `best = Values(loss=1e9)`."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.__dict__)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.clear()
        self.__dict__.update(copy.deepcopy(state_dict))

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no value named {name!r} was set")

    def __repr__(self) -> str:
        return f"Values({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class PythonRandom:
    """The generator behind the `random` module."""

    def state_dict(self) -> Any:
        return random.getstate()

    def load_state_dict(self, state_dict: Any) -> None:
        random.setstate(state_dict)


class NumpyRandom:
    """NumPy's global (legacy) generator."""

    def state_dict(self) -> Any:
        return np.random.get_state(legacy=False)

    def load_state_dict(self, state_dict: Any) -> None:
        np.random.set_state(state_dict)


class TorchRandom:
    """PyTorch's CPU generator."""

    def state_dict(self) -> Any:
        return torch.get_rng_state()

    def load_state_dict(self, state_dict: Any) -> None:
        torch.set_rng_state(state_dict)


class CudaRandom:
    """PyTorch's generators of all visible CUDA devices; empty where there is none.

    Where there are more or fewer than at the save, those that both have are restored: like another
    kind of device, which `describe_environment` tells, it costs equality bit for bit and not the run.
    """

    def state_dict(self) -> Any:
        return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def load_state_dict(self, state_dict: Any) -> None:
        for device, saved in enumerate(state_dict[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(saved, device)


RNG_PREFIX = "rng."
_GENERATORS: Mapping[str, Stateful] = {
    "rng.python": PythonRandom(),
    "rng.numpy": NumpyRandom(),
    "rng.torch": TorchRandom(),
    "rng.cuda": CudaRandom(),
}


class State:
    """Everything that is saved, by name."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        for name, value in objects.items():
            if not isinstance(value, Stateful):
                raise TypeError(
                    f"{name}={type(value).__name__} has no state_dict() and load_state_dict(); wrap plain "
                    f"values as {name}=spot_trainer.Values(...)"
                )
        self.parts: dict[str, Stateful] = {**objects, **_GENERATORS}
        self._generator_states: dict[str, Any] = {}

    def capture(self) -> dict[str, Any]:
        """The live state, not copied."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state, generators last; raises Incompatible."""
        missing, unknown = sorted(self.parts.keys() - saved.keys()), sorted(saved.keys() - self.parts.keys())
        if missing or unknown:
            raise Incompatible(
                f"the checkpoint lacks {missing} and has {unknown} that this program does not register: pass "
                "the same names to Run, or start a new run"
            )
        for name, part in self.parts.items():
            try:
                part.load_state_dict(saved[name])
            # Third-party load_state_dict raises anything; whatever it is, the checkpoint does not fit.
            except Exception as error:
                raise Incompatible(f"{name}: {type(error).__name__}: {error}") from error
        self._generator_states = {n: saved[n] for n in self.parts if n.startswith(RNG_PREFIX)}

    def settle_generators(self) -> None:
        """Set the generators once more, just before the first step.

        What lies between restoring and stepping (building iterators, a first evaluation)
        may draw numbers that the interrupted run had not drawn at this point.
        """
        for name, saved in self._generator_states.items():
            self.parts[name].load_state_dict(saved)
        self._generator_states = {}


def describe_environment() -> dict[str, Any]:
    """What a bitwise resume depends on besides the state; a difference is worth a warning."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "device_count": torch.cuda.device_count(),
        "num_threads": torch.get_num_threads(),
        "world_size": 1,
    }
