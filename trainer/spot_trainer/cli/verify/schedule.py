"""Where a run is interrupted, and with which signal. Pure.

Invariant: steps are distinct, ascending and lie strictly inside the run, so that each
interruption meets a run that has begun and is not over.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class SignalChoice(StrEnum):
    """What `--signal` takes."""

    TERM = "TERM"
    KILL = "KILL"
    BOTH = "both"


@dataclass(frozen=True)
class Interruption:
    """Send the signal as soon as the step is seen to be done."""

    step: int
    signal: signal.Signals


class Impossible(Exception):
    """It could not be tried; the message says why, and what to do."""


def choose(
    num_steps: int,
    *,
    times: int,
    signals: SignalChoice,
    at_steps: Sequence[int] = (),
    seed: int | None = None,
) -> tuple[Interruption, ...]:
    """Interruptions at the steps given, at random ones, or evenly spread; raises Impossible."""
    steps = _steps(num_steps, times, at_steps, seed)
    order = {
        SignalChoice.TERM: (signal.SIGTERM,),
        SignalChoice.KILL: (signal.SIGKILL,),
        SignalChoice.BOTH: (signal.SIGTERM, signal.SIGKILL),
    }[signals]
    return tuple(Interruption(step, order[number % len(order)]) for number, step in enumerate(steps))


def _steps(num_steps: int, times: int, at_steps: Sequence[int], seed: int | None) -> list[int]:
    if at_steps:
        wrong = [step for step in at_steps if not 0 < step < num_steps]
        if wrong:
            raise Impossible(
                f"--at-step {wrong[0]} does not lie inside the run, which has {num_steps} steps: choose from "
                f"1 to {num_steps - 1}"
            )
        return sorted(set(at_steps))
    if num_steps - 1 < times:
        raise Impossible(
            f"the run has {num_steps} steps, too few for {times} interruptions: train longer, or use --times"
        )
    if seed is not None:
        return sorted(random.Random(seed).sample(range(1, num_steps), times))
    return [(number * num_steps) // (times + 1) or number for number in range(1, times + 1)]
