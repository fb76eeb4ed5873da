"""The table, the measures and the picture, from what ran and what was predicted. Pure but for the files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import matplotlib

from checkpoint.measure import Goal, Measure
from spot_trainer.contract import parse_time
from trace_bench import plan
from trace_bench.predict import Measured, Prediction
from trace_bench.recording import Stretch
from trace_bench.replay import Change

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

PREDICTED: Final = "predicted by the simulator"
BAND: Final = 0.10
COLOURS: Final = {"spot": "#1f6feb", "on-demand": "#d97706", "nothing": "#e5e7eb"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one job."""

    job: plan.Job
    finish_seconds: float | None
    """Since its creation; None: it did not end."""
    cost: float
    spot_seconds: float
    on_demand_seconds: float
    causes: Mapping[str, int]
    lost_seconds: float
    incarnations: int
    prediction: Prediction

    @property
    def is_late(self) -> bool:
        return self.finish_seconds is None or self.finish_seconds > self.job.deadline_seconds

    @property
    def interruptions(self) -> int:
        return self.causes.get("Interruption", 0) + self.causes.get("NodeLost", 0)

    @property
    def on_demand_share(self) -> float:
        paid = self.spot_seconds + self.on_demand_seconds
        return self.on_demand_seconds / paid if paid else 0.0


def make_row(job: plan.Job, found: Mapping[str, Any], prediction: Prediction) -> Row:
    status = found.get("status", {})
    cost = status.get("cost", {})
    finish = None
    if "completionTime" in status:
        created = parse_time(found["metadata"]["creationTimestamp"])
        finish = (parse_time(status["completionTime"]) - created).total_seconds()
    restarts = status.get("recentRestarts", [])
    return Row(
        job=job,
        finish_seconds=finish,
        cost=float(cost.get("spent", 0.0)),
        spot_seconds=cost.get("spotNodeSeconds", 0.0),
        on_demand_seconds=cost.get("onDemandNodeSeconds", 0.0),
        causes=Counter(str(each["cause"]) for each in restarts),
        lost_seconds=sum(each.get("lostSeconds", 0.0) for each in restarts),
        incarnations=status.get("incarnation", 0),
        prediction=prediction,
    )


def table(rows: Sequence[Row]) -> str:
    """A line for each job; seconds, and money in thousandths."""
    lines = [
        f"{'JOB':<14} {'DEADLINE':>8} {'FINISH':>7} {'LEFT':>5}  {'COST':>6} {'PREDICTED':>9} {'RATIO':>6}"
        f"  {'INTERRUPTED':>11} {'PRED.':>5}  {'ON-DEMAND':>9} {'PRED.':>5}  {'LOST':>5} {'LAUNCHES':>8}"
    ]
    for row in rows:
        finish = "-" if row.finish_seconds is None else f"{row.finish_seconds:.0f}"
        left = "LATE" if row.is_late else f"{row.job.deadline_seconds - (row.finish_seconds or 0.0):.0f}"
        told = row.prediction
        lines.append(
            f"{row.job.name:<14} {row.job.deadline_seconds:>8} {finish:>7} {left:>5}  "
            f"{1000 * row.cost:>6.1f} {1000 * told.cost:>9.1f} {row.cost / told.cost:>6.2f}  "
            f"{row.interruptions:>11} {told.interruptions:>5.1f}  "
            f"{row.on_demand_share:>9.0%} {told.on_demand_share:>5.0%}  "
            f"{row.lost_seconds:>5.1f} {row.incarnations:>8}"
        )
    return "\n".join(lines)


def measures(
    rows: Sequence[Row], measured: Measured, changes: Sequence[Change], details: Mapping[str, Any]
) -> list[Measure]:
    cost = sum(row.cost for row in rows)
    predicted = sum(row.prediction.cost for row in rows)
    on_demand = sum(
        (row.job.work_seconds + measured.on_demand_seconds) / 3600 * plan.ON_DEMAND_PRICE for row in rows
    )
    late = [row.job.name for row in rows if row.is_late]
    delays = [change.done - change.at for change in changes]
    return [
        Measure(
            name=f"deadlines missed by {len(rows)} jobs under a replayed trace",
            unit="jobs",
            value=float(len(late)),
            goal=Goal("<=", 0),
            details={"late": late, "lateInSimulation": sum(row.prediction.late for row in rows)},
        ),
        Measure(
            name="cost of all jobs, off the prediction",
            unit="",
            value=abs(cost / predicted - 1),
            goal=Goal("<=", BAND),
            details={"signed": round(cost / predicted - 1, 4)},
        ),
        Measure(
            name="cost of all jobs",
            unit="$",
            value=cost,
            against={PREDICTED: predicted, "all on on-demand": on_demand},
            ratio=cost / predicted,
            details={
                "measured": {key: round(value, 4) for key, value in asdict(measured).items()},
                "jobs": [_row_json(row) for row in rows],
                "changes": [asdict(change) for change in sorted(changes, key=lambda each: each.at)],
                "changesLateSeconds": {
                    "mean": round(sum(delays) / len(delays), 2) if delays else 0.0,
                    "worst": round(max(delays, default=0.0), 2),
                },
                **details,
            },
        ),
    ]


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.job.name,
        "deadlineSeconds": row.job.deadline_seconds,
        "finishSeconds": row.finish_seconds,
        "cost": row.cost,
        "predicted": round(row.prediction.cost, 4),
        "interruptions": row.interruptions,
        "predictedInterruptions": round(row.prediction.interruptions, 2),
        "onDemandShare": round(row.on_demand_share, 3),
        "predictedOnDemandShare": round(row.prediction.on_demand_share, 3),
        "spotSeconds": row.spot_seconds,
        "onDemandSeconds": row.on_demand_seconds,
        "lostSeconds": round(row.lost_seconds, 2),
        "incarnations": row.incarnations,
        "causes": dict(row.causes),
    }


def write(found: Sequence[Measure], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "load": [round(each, 2) for each in os.getloadavg()]}
    body = {"machine": machine, "measures": [each.to_json() for each in found]}
    path = folder / "trace.json"
    path.write_text(json.dumps(body, indent=2) + "\n")
    return path


def plot(
    rows: Sequence[Row],
    stretches: Sequence[Stretch],
    samples: Mapping[str, Sequence[tuple[float, str]]],
    applied: Mapping[str, float],
    path: Path,
    *,
    title: str,
) -> None:
    """A panel for each zone: when its node was there, and below it what each of its jobs ran on."""
    end = max(applied[row.job.name] + row.job.deadline_seconds for row in rows) + 5
    by_zone = {each.zone: [row for row in rows if row.job.zone == each.zone] for each in stretches}
    heights = [len(found) + 1.2 for found in by_zone.values()]
    figure, grid = pyplot.subplots(
        len(stretches),
        1,
        figsize=(13, 0.42 * sum(heights) + 1),
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axes, stretch in zip(grid[:, 0], stretches, strict=True):
        _market(axes, stretch, end)
        names = ["spot is there"]
        for line, row in enumerate(by_zone[stretch.zone], start=1):
            _job(axes, line, row, samples.get(row.job.name, ()), applied[row.job.name], end)
            names.append(f"{row.job.name}  {row.cost / row.prediction.cost:.2f}")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.invert_yaxis()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
    grid[-1, 0].set_xlabel("seconds; | deadline, o finished; the number: cost over prediction")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in ("#2da44e", *COLOURS.values())]
    grid[0, 0].legend(
        handles,
        ["spot is there", *("waits" if name == "nothing" else f"on {name}" for name in COLOURS)],
        ncols=4,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _market(axes: Axes, stretch: Stretch, end: float) -> None:
    found = [*stretch.changes(end), (end, False)]
    spells = [(at, until - at) for (at, up), (until, _) in pairwise(found) if up and at < end]
    axes.broken_barh(spells, (-0.35, 0.7), color="#2da44e")
    for at, length in spells:
        for edge in (at, at + length):
            axes.axvline(edge, color="#2da44e", linewidth=0.5, alpha=0.4, zorder=0)


def _job(
    axes: Axes, line: int, row: Row, seen: Sequence[tuple[float, str]], applied: float, end: float
) -> None:
    points = [*seen, (end, "done")]
    for (at, state), (until, _) in pairwise(points):
        if state in COLOURS:
            axes.broken_barh([(at, until - at)], (line - 0.35, 0.7), color=COLOURS[state])
    due = applied + row.job.deadline_seconds
    axes.plot([due, due], [line - 0.45, line + 0.45], color="black", linewidth=2)
    if row.finish_seconds is not None:
        axes.plot(applied + row.finish_seconds, line, "o", color="black", markersize=4)
