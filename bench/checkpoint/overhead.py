"""What `interval_seconds="auto"` costs a real training loop.

Two copies of one model take turns, step by step: one trains in a run that saves, the other
in a bare loop. While a save is in flight only the first one trains, and the run's clock
stands still while the other does, so that all of a save's cost falls on the loop that
saves. Counted are whole periods, from the beginning of one save to the beginning of a later
one. Nothing is waited for before the first save: the clock is put forward instead.
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
class Mark:
    """Where the loops stood when a save began."""

    step: int
    seconds: float


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
    seconds, bare_seconds, marks, stalls = 0.0, list[float](), list[Mark](), list[float]()
    with run:
        for step in run.steps(10**9):
            before = session._saver.in_flight
            began = time.perf_counter()
            saving.step()
            run.step_done()
            took = time.perf_counter() - began
            now = session._saver.in_flight
            if now is not None and now is not before:
                # The step that took the snapshot belongs to the period that the save begins.
                marks.append(Mark(step, seconds))
                stalls.append(now.stall_seconds)
                stall = f"{now.stall_seconds * 1e3:.0f} ms"
                say(f"overhead: save {len(marks)} after {seconds:.0f} s of training, stall {stall}")
            seconds += took
            counted = seconds - marks[0].seconds if marks else 0.0
            ends_period = len(marks) > 1 and marks[-1].step == step
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
    if len(marks) < 2:
        return Measure(name=name, unit="%", goal=goal, skipped=f"no second save within {MOST_SECONDS:.0f} s")
    num_steps = marks[-1].step - marks[0].step
    bare_total = num_steps * statistics.fmean(bare_seconds)
    window = marks[-1].seconds - marks[0].seconds
    return Measure(
        name=name,
        unit="%",
        value=(window / bare_total - 1) * 100,
        goal=goal,
        against={"bare loop, ms per step": statistics.fmean(bare_seconds) * 1e3},
        details={
            "windowSeconds": round(window, 1),
            "steps": num_steps,
            "saves": len(marks) - 1,
            "intervalSeconds": round(window / (len(marks) - 1), 1),
            "stallMilliseconds": round(statistics.median(stalls) * 1e3, 1),
            "standardErrorPercent": round(
                100
                * statistics.stdev(bare_seconds)
                / statistics.fmean(bare_seconds)
                * (2 / num_steps) ** 0.5,
                2,
            ),
        },
    )
