"""Checkpoint and resume for PyTorch training on capacity that can vanish.

The names below are imported on first use, so that `import spot_trainer.contract` (which
the operator does, in an image without torch) costs nothing but the standard library.

In a pod of the operator, importing this package starts listening for SIGTERM: a container's
first process ignores the signal by default, and importing torch takes seconds in which a
notice would otherwise be lost. Put this import first.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spot_trainer.data import ShuffledSampler
    from spot_trainer.loop import Run
    from spot_trainer.state import Values

_EXPORTS = {
    "Run": "spot_trainer.loop",
    "ShuffledSampler": "spot_trainer.data",
    "Values": "spot_trainer.state",
}

__all__ = ["Run", "ShuffledSampler", "Values"]


if "SPOT_CONTRACT_VERSION" in os.environ:
    from spot_trainer.startup import listen

    listen(os.environ)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
