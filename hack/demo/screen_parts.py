"""What the screen shows, as values: the bar of steps, the colours, the newest lines. Pure."""

from collections.abc import Mapping
from typing import Any

from demo.timeline import Entry, Source
from demo.training import Training

COLOURS = {"spot": ("#1b9e77", "#66c2a5"), "on-demand": ("#d95f02", "#fc8d62")}
"""By capacity type; two shades, so that neighbouring incarnations can be told apart."""

SOURCE_STYLES = {
    Source.DEMO: "bold magenta",
    Source.NODE: "cyan",
    Source.OPERATOR: "bold yellow",
    Source.TRAINER: "green",
}

Cell = tuple[str, str]
"""A character and its colour."""

REPEATED, DONE, OPEN = "▓", "█", "·"


def bar(training: Training, total_steps: int, width: int) -> list[Cell]:
    """One cell for a few steps: by whom they were done last; shaded where some were done twice."""
    kept = training.kept_steps()
    counts: dict[int, int] = {}
    for done in training.steps:
        counts[done.step] = counts.get(done.step, 0) + 1
    cells: list[Cell] = []
    for column in range(width):
        first, last = column * total_steps // width + 1, (column + 1) * total_steps // width
        steps = [kept[step] for step in range(first, max(first, last) + 1) if step in kept]
        if not steps:
            cells.append((OPEN, "#666666"))
            continue
        done = steps[-1]
        again = any(counts[each.step] > 1 for each in steps)
        shade = COLOURS.get(done.capacity_type, ("#888888", "#aaaaaa"))[done.incarnation % 2]
        cells.append((REPEATED if again else DONE, shade))
    return cells


def headline(job: Mapping[str, Any]) -> str:
    """The job in one line, as `kubectl get` prints it."""
    status = job.get("status", {})
    capacity = status.get("capacity", {})
    restarts = status.get("restarts", {})
    return (
        f"{job['metadata']['name']}: {status.get('phase', 'new')} | capacity {capacity.get('type', '?')} "
        f"({capacity.get('reason', '?')}) | incarnation {status.get('incarnation', 0)} | interruptions "
        f"{restarts.get('interruptions', 0)}, failures {restarts.get('failures', 0)}"
    )


def fits(entries: list[Entry], num_lines: int) -> list[Entry]:
    """The newest that there is room for."""
    return entries[-num_lines:] if num_lines > 0 else []
