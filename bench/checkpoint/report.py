"""The report for machines, the plot for people, and a table on the terminal."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch

from checkpoint.measure import Measure

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

OURS, PEER, MISSED = "#1f6feb", "#b9bec6", "#d1242f"
NUM_COLUMNS = 2


def write(measures: Sequence[Measure], folder: Path, *, num_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "cpus": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stateBytes": num_bytes,
    }
    body: dict[str, Any] = {"machine": machine, "measures": [each.to_json() for each in measures]}
    (folder / "checkpoint.json").write_text(json.dumps(body, indent=2) + "\n")
    plot(measures, folder / "checkpoint.png")


def plot(measures: Sequence[Measure], path: Path) -> None:
    """One panel of bars for each measure that has peers; what has the same name stands together."""
    panels: dict[str, list[Measure]] = {}
    for each in measures:
        if each.value is not None and each.against and each.unit != "%":
            panels.setdefault(each.name.partition(" vs ")[0], []).append(each)
    num_rows = max(1, -(-len(panels) // NUM_COLUMNS))
    figure, grid = pyplot.subplots(num_rows, NUM_COLUMNS, figsize=(13, 2.6 * num_rows), squeeze=False)
    for axes, (title, group) in zip(grid.flat, panels.items(), strict=False):
        _bars(axes, title, group)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(axes: Axes, title: str, group: Sequence[Measure]) -> None:
    value, unit = group[0].value or 0.0, group[0].unit
    peers = {peer: other for each in group for peer, other in each.against.items()}
    names, values = ["ours", *peers], [value, *peers.values()]
    bars = axes.barh(names, values, color=[OURS] + [PEER] * len(peers))
    axes.bar_label(bars, fmt=" %.3g", padding=2)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    better = "less is better" if unit in ("s", "ms") else "more is better"
    axes.set_title(f"{title} ({unit}, {better})", fontsize=10, loc="left", fontweight="bold")
    notes = [
        f"{each.ratio:.2f}x {each.goal.peer} (goal {each.goal.bound} {each.goal.limit:g}x)"
        for each in group
        if each.goal is not None and each.ratio is not None
    ]
    axes.set_xlabel(
        "\n".join(notes), fontsize=9, color=MISSED if any(e.met is False for e in group) else "black"
    )
