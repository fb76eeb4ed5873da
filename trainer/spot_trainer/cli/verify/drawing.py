"""The two training curves as a picture.

Invariant: without matplotlib there is no picture and no error; the verdict never depends
on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Series = Sequence[tuple[int, int, float]]
"""(process, step, value)"""

_INK, _GREY, _BLUE, _RED, _ORANGE = "#222222", "#9aa0a6", "#1f5fbf", "#c62828", "#d98200"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is to be seen."""

    title: str
    metric: str
    reference: Series
    run: Series
    interruptions: Sequence[tuple[int, str]]
    """Step and signal."""
    parting_step: int | None = None


def draw(picture: Picture, path: Path) -> bool:
    """Write a PNG; False if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    expected = {step: value for _, step, value in picture.reference}
    above.plot(
        list(expected), list(expected.values()), color=_GREY, linewidth=5, alpha=0.6, label="uninterrupted"
    )
    for number in sorted({process for process, _, _ in picture.run}):
        part = [(step, value) for process, step, value in picture.run if process == number]
        label = "interrupted" if number == min(process for process, _, _ in picture.run) else None
        above.plot(*zip(*part, strict=True), color=_BLUE, linewidth=1.4, label=label)
    gaps = [(step, value - expected[step]) for _, step, value in picture.run if step in expected]
    below.plot(*zip(*gaps, strict=True) if gaps else ([], []), ".", color=_BLUE, markersize=3)
    if all(gap == 0 for _, gap in gaps):
        below.set_ylim(-1, 1)
        below.set_yticks([0])
    for axes in (above, below):
        for step, name in picture.interruptions:
            axes.axvline(step, color=_ORANGE if name == "SIGTERM" else _RED, linewidth=1, linestyle=":")
        if picture.parting_step is not None:
            axes.axvline(picture.parting_step, color=_INK, linewidth=1.2)
        axes.spines[["top", "right"]].set_visible(False)
    for step, name in picture.interruptions:
        above.annotate(
            name.removeprefix("SIG"), (step, 1), (3, -10), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color=_ORANGE if name == "SIGTERM" else _RED,
        )  # fmt: skip
    if picture.parting_step is not None:
        above.annotate(
            f"parts at step {picture.parting_step}", (picture.parting_step, 0.5), (5, 0), fontsize=9,
            xycoords=("data", "axes fraction"), textcoords="offset points", color=_INK,
        )  # fmt: skip
    above.set_ylabel(picture.metric)
    above.set_title(picture.title, loc="left", color=_INK)
    above.legend(loc="upper right", frameon=False)
    below.set_ylabel("difference")
    below.set_xlabel("step")
    figure.savefig(path)
    return True
