"""Is the interrupted run the run that was never interrupted? Losses as exact floats, step by step.

Pure. The checkpoints themselves are compared by the trainer library, in a pod of the image
that wrote them (see `checkpoints`); this module says what differs in words.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from demo.training import StepDone

SHOWN_DIFFERENCES = 5


@dataclass(frozen=True)
class Difference:
    step: int
    expected: float | None
    """The uninterrupted run's loss; None: it has no such step."""
    found: float | None
    incarnation: int | None = None

    def __str__(self) -> str:
        by = f" (incarnation {self.incarnation})" if self.incarnation is not None else ""
        return f"step {self.step}{by}: expected loss {_show(self.expected)}, found {_show(self.found)}"


def _show(loss: float | None) -> str:
    return "none" if loss is None else f"{loss!r} = {loss.hex()}"


def loss_differences(reference: Iterable[StepDone], run: Iterable[StepDone]) -> list[Difference]:
    """Every execution of every step must equal the reference bit for bit, and none may be missing."""
    expected = {done.step: done.loss for done in reference}
    run = list(run)
    differences = [
        Difference(done.step, expected.get(done.step), done.loss, done.incarnation)
        for done in run
        if not _same(expected.get(done.step), done.loss)
    ]
    missing = expected.keys() - {done.step for done in run}
    differences += [Difference(step, expected[step], None) for step in missing]
    return sorted(differences, key=lambda difference: (difference.step, difference.incarnation or 0))


def _same(expected: float | None, found: float) -> bool:
    # By their digits: 0.0 and -0.0 differ, and NaN equals itself.
    return expected is not None and expected.hex() == found.hex()


def describe(differences: list[Difference]) -> str:
    """The first differences, one a line."""
    lines = [str(difference) for difference in differences[:SHOWN_DIFFERENCES]]
    if len(differences) > SHOWN_DIFFERENCES:
        lines.append(f"... and {len(differences) - SHOWN_DIFFERENCES} more")
    return "\n".join(lines)
