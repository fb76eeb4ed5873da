"""The loss of every step on top of the undisturbed run's, coloured by who computed it and where."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from demo.screen_parts import COLOURS
from demo.training import StepDone, Training


def plot_losses(
    reference: Training, run: Training, marks: Sequence[tuple[int, str]], path: Path, *, title: str
) -> None:
    """Write the picture; `marks` are (incarnation that ended, what ended it)."""
    figure, axes = pyplot.subplots(figsize=(11, 5), dpi=130, layout="constrained")
    expected = sorted(reference.kept_steps().values(), key=lambda done: done.step)
    axes.plot(
        [done.step for done in expected],
        [done.loss for done in expected],
        color="0.75",
        linewidth=5,
        label="never interrupted",
        zorder=1,
    )
    seen: set[str] = set()
    for incarnation, group in groupby(_in_order(run), key=lambda done: done.incarnation):
        _plot_life(axes, incarnation, list(group), seen)
    _plot_marks(axes, run, marks)
    # Room for the marks above the curve.
    axes.set_ylim(0, 1.3 * max(done.loss for done in expected))
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title(title)
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    pyplot.close(figure)


def _in_order(run: Training) -> list[StepDone]:
    return sorted(run.steps, key=lambda done: (done.incarnation, done.step))


def _plot_life(axes: Axes, incarnation: int, steps: list[StepDone], seen: set[str]) -> None:
    capacity = steps[0].capacity_type
    label = capacity if capacity not in seen else None
    seen.add(capacity)
    axes.plot(
        [done.step for done in steps],
        [done.loss for done in steps],
        color=COLOURS[capacity][incarnation % 2],
        linewidth=1.4,
        label=label,
        zorder=2,
    )
    middle = steps[len(steps) // 2].step
    axes.annotate(
        f"{incarnation}",
        (middle, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=COLOURS[capacity][incarnation % 2],
    )


def _plot_marks(axes: Axes, run: Training, marks: Sequence[tuple[int, str]]) -> None:
    for incarnation, text in marks:
        life = run.lives.get(incarnation)
        if life is None or life.last_step is None:
            continue
        axes.axvline(life.last_step.step, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(
            text,
            (life.last_step.step, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="0.35",
        )
