"""What happened, as one JSON object per line on stdout, for people, log stores and the demo.

Keys that every line has: `time` (RFC 3339), `event`, `step`, `incarnation`,
`capacityType`. Invariant: the shape of a line depends on its event only; keys may be
added, never renamed.
"""

from __future__ import annotations

import json
import math
import sys
from enum import StrEnum
from typing import Any

from spot_trainer.clock import Clock
from spot_trainer.contract import format_time


class Event(StrEnum):
    """The closed set of lines."""

    START = "start"
    RESUME = "resume"
    STEP = "step"
    CHECKPOINT = "checkpoint"
    NOTICE = "notice"
    OUTCOME = "outcome"
    WARNING = "warning"
    WAITING = "waiting"


class EventLog:
    """Writes lines; never raises, because a closed pipe must not end a training run."""

    def __init__(self, clock: Clock, *, incarnation: int, capacity_type: str) -> None:
        self._clock = clock
        self._common = {"incarnation": incarnation, "capacityType": capacity_type}

    def emit(self, event: Event, step: int, **values: Any) -> None:
        line = {
            "time": format_time(self._clock.wall()),
            "event": str(event),
            "step": step,
            **self._common,
            **values,
        }
        try:
            sys.stdout.write(json.dumps(jsonable(line), separators=(",", ":")) + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            return


def jsonable(value: Any) -> Any:
    """JSON has no NaN: a loss that is not finite becomes its name."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
