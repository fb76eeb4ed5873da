"""What a trainer said about itself: its JSON lines, put together over all incarnations.

Pure: lines in, facts out. Invariant: a step that was done twice is kept twice, because a
step that is repeated after a loss has to come out the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class StepDone:
    step: int
    loss: float
    incarnation: int
    capacity_type: str
    time: float
    """Seconds since the epoch, by the trainer's clock."""


@dataclass
class Life:
    """One incarnation as its own lines tell it."""

    incarnation: int
    capacity_type: str
    began: float
    resumed_step: int | None = None
    first_step: StepDone | None = None
    last_step: StepDone | None = None
    notice_time: float | None = None
    checkpoints: list[tuple[int, float]] = field(default_factory=list)
    """Step and time of each publication."""
    outcome: str = ""
    warnings: list[str] = field(default_factory=list)


class Training:
    """All that is known of one job's run."""

    def __init__(self) -> None:
        self.steps: list[StepDone] = []
        self.lives: dict[int, Life] = {}
        self.total_steps: int | None = None

    def add(self, line: Line) -> None:
        """Take one line in; lines of kinds that are not known change nothing."""
        life = self._life(line)
        step, event, when = int(line["step"]), line["event"], seconds_of(line["time"])
        if event == "step" and "loss" in line:
            done = StepDone(step, float(line["loss"]), life.incarnation, life.capacity_type, when)
            self.steps.append(done)
            life.first_step = life.first_step or done
            life.last_step = done
            self.total_steps = line.get("totalSteps") or self.total_steps
        elif event == "resume":
            life.resumed_step = step
        elif event == "notice":
            # Received some milliseconds before the loop came round to say so.
            life.notice_time = when - float(line.get("ageSeconds", 0.0))
        elif event == "checkpoint":
            life.checkpoints.append((step, when))
        elif event == "outcome":
            life.outcome = f"{line.get('outcome')} ({line.get('reason')})"
        elif event == "warning":
            life.warnings.append(str(line.get("message", "")))

    def _life(self, line: Line) -> Life:
        incarnation = int(line["incarnation"])
        if incarnation not in self.lives:
            began = seconds_of(line["time"])
            self.lives[incarnation] = Life(incarnation, str(line["capacityType"]), began)
        return self.lives[incarnation]

    @property
    def last_step(self) -> int:
        """The step reached last; 0 before the first."""
        return self.steps[-1].step if self.steps else 0

    @property
    def incarnation(self) -> int:
        """The incarnation that spoke last; 0 before the first."""
        return max(self.lives, default=0)

    @property
    def durable_step(self) -> int:
        return max((step for life in self.lives.values() for step, _ in life.checkpoints), default=0)

    def kept_steps(self) -> dict[int, StepDone]:
        """Of each step the execution that counts: that of the latest incarnation."""
        kept: dict[int, StepDone] = {}
        for done in sorted(self.steps, key=lambda done: done.incarnation):
            kept[done.step] = done
        return kept


def parse_line(text: str | bytes) -> Line | None:
    """A line of the trainer, or None for anything else that a program prints."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    needed = ("event", "step", "incarnation", "time", "capacityType")
    if not isinstance(value, dict) or any(key not in value for key in needed):
        return None
    return value


def seconds_of(text: str) -> float:
    """RFC 3339 to seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def say(line: Line) -> str:
    """What the line means, for people; empty for single steps."""
    step, event = line["step"], line["event"]
    match event:
        case "start":
            return f"incarnation {line['incarnation']} starts ({line['capacityType']})"
        case "resume":
            return f"resumed at step {step} from checkpoint {line.get('checkpoint')}"
        case "checkpoint":
            return f"checkpoint of step {step} published in {float(line.get('seconds', 0)):.2f} s"
        case "notice":
            return f"notice at step {step} ({line.get('cause')})"
        case "outcome":
            return f"{line.get('outcome')}: {line.get('message')} (exit code {line.get('exitCode')})"
        case "warning" | "waiting":
            return f"{event}: {line.get('message')}"
        case _:
            return ""
