"""The manifests that the unit tests and the API tests share, and how one is made from another."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[1] / "api" / "manifests"
BASE: dict[str, Any] = yaml.safe_load((MANIFESTS / "base.yaml").read_text())
BAD: list[dict[str, Any]] = yaml.safe_load((MANIFESTS / "bad.yaml").read_text())


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386): null removes."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
