"""The distributions of a simulation as one picture. matplotlib is loaded here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spot_operator.market import Outcome, Policy
from spot_operator.market.summary import quantile
from spot_plugin.errors import PluginError
from spot_plugin.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    Policy.AUTO: "#1f6feb",
    Policy.RULES: "#e08a00",
    Policy.SPOT_ONLY: "#1a9850",
    Policy.ON_DEMAND_ONLY: "#6e7781",
}
LATE, GRID = "#d1242f", "#e6e8eb"


def check(path: Path) -> None:
    """Say what is missing before anything is computed."""
    if not path.parent.is_dir():
        raise PluginError(f"{path}: there is no folder {path.parent} to write the plot to")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PluginError(
            "a plot needs matplotlib, which is not installed",
            do='pip install "spot-training-operator[plugin]", or leave --plot out',
        ) from error


def draw(report: Report, outcomes: Mapping[Policy, Sequence[Outcome]], path: Path) -> None:
    """Write the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (finish, cost, interruptions) = pyplot.subplots(
        1, 3, figsize=(14, 4.9), gridspec_kw={"width_ratios": [1.2, 1.2, 1]}
    )
    for policy, runs in outcomes.items():
        is_chosen = policy is report.manifest.chosen
        label = f"{policy} (manifest)" if is_chosen else str(policy)
        style = {"color": COLOURS[policy], "linewidth": 2.6 if is_chosen else 1.6, "label": label}
        _steps(
            finish, [inf if run.finish_seconds is None else run.finish_seconds / 3600 for run in runs], style
        )
        _steps(cost, [run.cost for run in runs], style)
    _finish_axes(finish, report)
    cost.set_title("Cost", loc="left", fontweight="bold")
    cost.set_xlabel("cost of a run")
    cost.set_xlim(left=0)
    _interruptions(interruptions, outcomes)
    for axes in (finish, cost):
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylabel("share of runs up to here")
        axes.grid(color=GRID)
    for axes in (finish, cost, interruptions):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    handles, labels = cost.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    scenario = report.plan.scenario
    figure.suptitle(
        f"{report.manifest.name}: {scenario.work_seconds / 3600:.4g} h of work, {report.num_runs} runs",
        x=0.01,
        ha="left",
    )
    figure.tight_layout(rect=(0, 0.07, 1, 0.98))
    try:
        figure.savefig(path, dpi=120, format="png")
    except (OSError, ValueError) as error:
        raise PluginError(
            f"{path}: the plot cannot be written: {error}", do="name another file with --plot"
        ) from error
    finally:
        pyplot.close(figure)


def _steps(axes: Axes, values: Sequence[float], style: dict[str, Any]) -> None:
    """The empirical distribution; what never ended only keeps the curve from reaching 100 %."""
    ended = sorted(value for value in values if value < inf)
    if ended:
        shares = [(i + 1) / len(values) for i in range(len(ended))]
        axes.plot([ended[0], *ended], [0.0, *shares], drawstyle="steps-post", **style)


def _finish_axes(axes: Axes, report: Report) -> None:
    axes.set_title("Finish", loc="left", fontweight="bold")
    axes.set_xlabel("hours after creation")
    work = report.plan.scenario.work_seconds / 3600
    right = axes.get_xlim()[1]
    if report.has_deadline:
        deadline = report.plan.scenario.deadline_seconds / 3600
        # What comes long after the deadline is late, no matter how much.
        right = min(right, deadline + 1.0 * (deadline - work) + 0.1 * deadline)
        right = max(right, deadline * 1.03)
        axes.axvline(deadline, color=LATE, linestyle="--", linewidth=1.4)
        axes.annotate(
            "deadline ", (deadline, 0.03), color=LATE, ha="right", fontsize=9, rotation=90, va="bottom"
        )
    axes.set_xlim(work * 0.98, right)


def _interruptions(axes: Axes, outcomes: Mapping[Policy, Sequence[Outcome]]) -> None:
    axes.set_title("Interruptions", loc="left", fontweight="bold")
    shown = list(outcomes)
    for row, policy in enumerate(shown):
        counts = [float(run.interruptions) for run in outcomes[policy]]
        low, q1, median, q3, high = (quantile(counts, each) for each in (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.hlines(row, low, high, color=COLOURS[policy], linewidth=1.6)
        axes.hlines(row, q1, q3, color=COLOURS[policy], linewidth=9)
        axes.plot(
            [median], [row], "o", color="white", markeredgecolor=COLOURS[policy], markersize=8, zorder=3
        )
    axes.set_yticks(range(len(shown)), [str(policy) for policy in shown])
    axes.invert_yaxis()
    axes.margins(y=0.12)
    axes.set_xlabel("in a run (median, 25-75 %, 5-95 %)")
    axes.grid(axis="x", color=GRID)
