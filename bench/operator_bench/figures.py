"""The arithmetic of the report, apart from everything that runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values, so no percentile")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """What a series of seconds looks like, for the details of a measure."""
    return {
        "count": len(values),
        "median": rounded(statistics.median(values)),
        "p90": rounded(percentile(values, 90)),
        "p99": rounded(percentile(values, 99)),
        "max": rounded(max(values)),
    }


def rounded(number: float) -> float:
    return float(f"{number:.4g}")


def share(seconds: Mapping[str, float], name: str) -> float:
    """The part, in percent, that one process has in the processor time of all."""
    return 100 * seconds[name] / sum(seconds.values())


def ratio_of_medians(own: Sequence[float], peer: Sequence[float]) -> float:
    return statistics.median(own) / statistics.median(peer)
