"""What `interval_seconds="auto"` costs a real training loop.

Two copies of one model take turns, step by step: one trains in a run that saves, the other
in a bare loop. While a save is in flight only the first one trains, and the run's clock
stands still while the other does, so that all of a save's cost falls on the loop that
saves. Counted are whole periods, from the beginning of one save to the beginning of a later
one. Nothing is waited for before the first save: the clock is put forward instead.

The overhead is what `step_done` takes, in all steps, and what the steps beside a save and some
after it take longer than the median of the bare loop. Comparing the two loops as wholes
would drown a hundredth in the noise of steps that have nothing to do with saving.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import spot_trainer as spot
from checkpoint.measure import Goal, Measure, say
from spot_trainer import cadence
from spot_trainer.clock import Clock

SECONDS = 30.0
"""Of the loop that saves, at least; the period that has begun is finished."""
MOST_SECONDS = 240.0
WIDTH, NUM_LAYERS, BATCH = 1024, 16, 128
WARM_UP_STEPS = 20
STEPS_AFTER_SAVE = 10
"""They still count as steps beside it: caches have to be filled again."""


class Trainee:
    """With AdamW about 200 MB of state."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        layers = [layer for _ in range(NUM_LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        self.model = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self._generator = torch.Generator().manual_seed(2)

    def step(self) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        inputs = torch.randn(BATCH, WIDTH, generator=self._generator)
        loss = nn.functional.cross_entropy(self.model(inputs), torch.arange(BATCH) % 10)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        loss.item()
        return time.perf_counter() - began


@dataclass
class OwnTime:
    """Monotonic seconds of the run, less what was spent on the other loop."""

    shift: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


@dataclass(frozen=True)
class Step:
    """One step of the loop that saves."""

    number: int
    training_seconds: float
    done_seconds: float
    """In `step_done`, stalls included."""
    is_beside_save: bool

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.done_seconds


def measure(folder: Path) -> Measure:
    saving, bare, own = Trainee(), Trainee(), OwnTime()
    run = spot.Run(
        checkpoint=folder / "overhead",
        interval_seconds="auto",
        clock=Clock(monotonic=own.monotonic),
        log_seconds=1e9,
        model=saving.model,
        optimizer=saving.optimizer,
    )
    session = run._session
    seconds, bare_seconds, steps = 0.0, list[float](), list[Step]()
    begins, stalls, quiet_after = list[int](), list[float](), -1
    with run:
        for step in run.steps(10**9):
            before = session._saver.in_flight
            training_seconds = saving.step()
            began = time.perf_counter()
            run.step_done()
            done_seconds = time.perf_counter() - began
            now = session._saver.in_flight
            if before is not None or now is not None:
                quiet_after = step + STEPS_AFTER_SAVE
            if now is not None and now is not before:
                # The step that took the snapshot belongs to the period that the save begins.
                begins.append(len(steps))
                stalls.append(now.stall_seconds)
                stall = f"{now.stall_seconds * 1e3:.0f} ms"
                say(f"overhead: save {len(begins)} after {seconds:.0f} s of training, stall {stall}")
            steps.append(
                Step(step, training_seconds, done_seconds, before is not None or step <= quiet_after)
            )
            seconds += steps[-1].seconds
            counted = sum(each.seconds for each in steps[begins[0] :]) if begins else 0.0
            ends_period = len(begins) > 1 and begins[-1] == len(steps) - 1
            if (ends_period and counted > SECONDS) or counted > MOST_SECONDS:
                break
            if now is None:
                other = bare.step()
                own.shift -= other
                if step >= WARM_UP_STEPS:
                    bare_seconds.append(other)
            if step == WARM_UP_STEPS + 10:
                own.shift += cadence.FIRST_AUTOMATIC_SECONDS
                session._last_step_end += cadence.FIRST_AUTOMATIC_SECONDS  # no step took that long
        # Leave the run only when nothing is written any more; what it saves at its end is not counted.
        session._saver.wait()
    name, goal = "overhead at auto cadence", Goal("<=", 1)
    if len(begins) < 2:
        return Measure(name=name, unit="%", goal=goal, skipped=f"no second save within {MOST_SECONDS:.0f} s")
    periods = steps[begins[0] : begins[-1]]
    bare_step = statistics.median(bare_seconds)
    # What the step before the snapshot took is training; the snapshot itself is in `done_seconds`.
    beside = [each.training_seconds - bare_step for each in periods[1:] if each.is_beside_save]
    done = [each.done_seconds for each in periods]
    return Measure(
        name=name,
        unit="%",
        value=100 * (sum(beside) + sum(done)) / (len(periods) * bare_step),
        goal=goal,
        against={"bare loop, ms per step": bare_step * 1e3},
        details={
            "windowSeconds": round(sum(each.seconds for each in periods), 1),
            "steps": len(periods),
            "saves": len(begins) - 1,
            "stepsBesideSaves": len(beside),
            "slowerBesideSavesSeconds": round(sum(beside), 3),
            "stepDoneSeconds": round(sum(done), 3),
            "stallMilliseconds": round(statistics.median(stalls) * 1e3, 1),
        },
    )
