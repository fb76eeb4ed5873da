"""Two training curves side by side: where they part, and how long after a resume. Pure.

Invariant: values are compared by all their digits; each execution of a step counts, so
that a step which was repeated must have repeated its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFERRED = ("loss", "train_loss", "training_loss")


@dataclass(frozen=True)
class Point:
    """What one execution of a step measured."""

    step: int
    incarnation: int
    values: Mapping[str, Any]
    samples: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Parting:
    """The first step whose values differ, in the order in which things happened."""

    step: int
    incarnation: int
    names: tuple[str, ...]
    expected: Mapping[str, Any]
    found: Mapping[str, Any]
    samples_differ: bool = False


def points(history: Iterable[Mapping[str, Any]]) -> list[Point]:
    """From the lines that the library keeps beside its checkpoints."""
    return [
        Point(
            line["step"],
            line["incarnation"],
            line.get("metrics", {}),
            tuple(line["samples"]) if "samples" in line else None,
        )
        for line in history
    ]


def parting(reference: Sequence[Point], run: Sequence[Point]) -> Parting | None:
    """Where the run leaves the reference; None: nowhere."""
    expected = {point.step: point for point in reference}
    for point in sorted(run, key=lambda each: (each.incarnation, each.step)):
        want = expected.get(point.step)
        before: Mapping[str, Any] = want.values if want else {}
        names = [n for n in {**before, **point.values} if repr(before.get(n)) != repr(point.values.get(n))]
        samples_differ = want is not None and want.samples != point.samples
        if want is None or names or samples_differ:
            return Parting(
                point.step,
                point.incarnation,
                tuple(names),
                before,
                point.values,
                samples_differ=samples_differ,
            )
    return None


def missing_steps(reference: Iterable[Point], run: Iterable[Point]) -> list[int]:
    """Steps that the run never did."""
    return sorted({point.step for point in reference} - {point.step for point in run})


def main_metric(points_: Iterable[Point]) -> str | None:
    """The one to draw: the loss, or the first that is a number."""
    names: dict[str, None] = {}
    for point in points_:
        names |= dict.fromkeys(n for n, v in point.values.items() if isinstance(v, int | float))
    return next((name for name in (*PREFERRED, *names) if name in names), None)


def series(points_: Iterable[Point], name: str) -> list[tuple[int, int, float]]:
    """(incarnation, step, value), in the order of events."""
    found = [
        (point.incarnation, point.step, float(point.values[name]))
        for point in points_
        if isinstance(point.values.get(name), int | float)
    ]
    return sorted(found)
