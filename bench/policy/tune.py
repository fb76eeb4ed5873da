"""Which constants would have been picked without a zone, what they cost in it, and how flat it is there.

    PYTHONPATH=bench:operator .venv/bin/python -m policy --tune

A zone's score is the mean over rows and recordings of our cost over that of the better slack rule of the
referee in the same row (with the guard where work can be lost), so that every recording counts alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import product

from policy.market import Market, Row, ours
from policy.rows import GUARDS, NO_DWELL, ROWS, SLACK
from spot_operator.policy import TUNING, Tuning

SHARES = (0.12, 0.16, 0.20)
PATIENCES = (1.0, 1.25, 1.5)
YOUNG_MINUTES = (12, 18, 24)

ALONE: Mapping[str, tuple[float, ...]] = {
    "waiting_share": (0.08, 0.12, 0.14, 0.16, 0.18, 0.20, 0.25),
    "patience": (0.5, 1.0, 1.25, 1.5, 2.0),
    "young_seconds": (360.0, 720.0, 1080.0, 1440.0, 1800.0),
}

Part = tuple[str, str]
"""A zone and a family of recordings."""
Scores = Mapping[Part, list[float]]


def score(market: Market, tuning: Tuning) -> tuple[dict[Part, list[float]], int]:
    scores: dict[Part, list[float]] = defaultdict(list)
    misses = 0
    make, source = ours(tuning=tuning)
    for row in ROWS:
        outcome = market.play(row, "ours", make, source)
        misses += outcome.misses
        own, other = _by_part(market, row, outcome.costs), _by_part(market, row, _yardstick(market, row))
        for part, cost in own.items():
            scores[part].append(cost / other[part])
    return scores, misses


def _yardstick(market: Market, row: Row) -> tuple[float, ...]:
    names = (GUARDS[1],) if row.loses_work else (SLACK, NO_DWELL)
    played = [market.play_reference(row, name, with_interval=False) for name in names]
    return min(played, key=lambda outcome: outcome.mean_cost).costs


def _by_part(market: Market, row: Row, costs: Iterable[float]) -> dict[Part, float]:
    sums: dict[Part, float] = defaultdict(float)
    for case, cost in zip(market.cases(row), costs, strict=True):
        sums[case.trace.zone, case.trace.family] += cost
    return sums


def mean(scores: Scores, keep: Callable[[Part], bool]) -> float:
    values = [sum(ratios) / len(ratios) for part, ratios in scores.items() if keep(part)]
    return sum(values) / len(values)


def tune(market: Market, say: Callable[[str], None]) -> None:
    grid: dict[Tuning, Scores] = {}
    for share, patience, minutes in product(SHARES, PATIENCES, YOUNG_MINUTES):
        tuning = Tuning(share, patience, minutes * 60.0)
        grid[tuning], misses = score(market, tuning)
        say(f"{_name(tuning)}: {mean(grid[tuning], lambda part: True):.4f}, {misses} misses")
    parts = list(grid[TUNING])
    for title, index in (("zone", 0), ("family", 1)):
        print(f"\n| {title} left out | picked without it | cost in it | with ours | best in it |")
        print("|---|---|---|---|---|")
        for left in sorted({part[index] for part in parts}):

            def seen(part: Part, left: str = left, index: int = index) -> bool:
                return part[index] != left

            def unseen(part: Part, left: str = left, index: int = index) -> bool:
                return part[index] == left

            picked = min(grid, key=lambda tuning: mean(grid[tuning], seen))
            best = min(mean(scores, unseen) for scores in grid.values())
            print(
                f"| {left} | {_name(picked)} | {mean(grid[picked], unseen):.4f} | "
                f"{mean(grid[TUNING], unseen):.4f} | {best:.4f} |"
            )
    print("\n| constant | " + "value: mean score over zones |\n|---|---|")
    for name, values in ALONE.items():
        told = []
        for value in values:
            changed = {"waiting_share": TUNING.waiting_share, "patience": TUNING.patience}
            changed |= {"young_seconds": TUNING.young_seconds, name: value}
            scores, misses = score(market, Tuning(**changed))
            told.append(
                f"{value:g}: {mean(scores, lambda part: True):.4f}"
                + (f" ({misses} misses)" if misses else "")
            )
            say(f"{name} {told[-1]}")
        print(f"| {name} | {', '.join(told)} |")


def _name(tuning: Tuning) -> str:
    return f"{tuning.waiting_share:g} / {tuning.patience:g} / {tuning.young_seconds / 60:g} min"
