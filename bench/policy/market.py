"""The referee and its recorded markets: found beside the repository, imported, and asked one row at a time.

The recordings are not part of the repository (their licence travels with them). What a row gave is kept,
under a key of everything that it depends on, so that a changed policy is the only thing that runs again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.changes import CHANGES, Told
from referee_policy import Policy

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CHANGES_SOURCE = REPOSITORY / "bench/policy/changes.py"
POLICY_SOURCES = (REPOSITORY / "operator/spot_operator/policy", REPOSITORY / "bench/referee_policy.py")


@dataclass(frozen=True)
class Row:
    """One suite in one mode."""

    suite: str
    mode: str
    """For people."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of the referee's `Options`."""
    prices: str = "flat"
    change: str = ""
    """What is done to each case, by its name in `changes.CHANGES`."""

    @property
    def loses_work(self) -> bool:
        return dict(self.options).get("mode") == "lost"

    @property
    def interval(self) -> float:
        return float(dict(self.options).get("tau", 0.0))

    def __str__(self) -> str:
        return f"{self.suite}, {self.mode}"


@dataclass(frozen=True)
class Outcome:
    """What one policy made of a row, job by job in the order of the cases."""

    costs: tuple[float, ...]
    misses: int
    worst_late_seconds: float

    @property
    def mean_cost(self) -> float:
        return sum(self.costs) / len(self.costs)


def find_traces(given: Path | None) -> Path | None:
    """`given`, else ../shared/traces; from a worktree, that of the folder above."""
    places = [given] if given else [parent / "shared/traces" for parent in REPOSITORY.parents[:2]]
    return next((place for place in places if (place / "referee.py").is_file()), None)


class Market:
    def __init__(self, traces: Path, cache: Path) -> None:
        self._traces = traces
        self._cache = cache
        spec = importlib.util.spec_from_file_location("referee", traces / "referee.py")
        assert spec is not None
        assert spec.loader is not None
        self.referee: Any = importlib.util.module_from_spec(spec)
        sys.modules["referee"] = self.referee
        spec.loader.exec_module(self.referee)
        self.referee.load_cache(str(traces))
        self._cases: dict[tuple[str, str, str], list[Any]] = {}

    def cases(self, row: Row) -> list[Any]:
        key = (row.suite, row.prices, row.change)
        if key not in self._cases:
            cases = self.referee.load_cases(str(self._traces), row.prices, 0, [row.suite])[row.suite]
            self._cases[key] = [CHANGES[row.change](case) for case in cases] if row.change else cases
        return self._cases[key]

    def on_demand_costs(self, row: Row) -> list[float]:
        return [self.referee.od_cost(case) for case in self.cases(row)]

    def optimum(self, row: Row) -> float:
        cases = self.cases(row)
        return float(sum(self.referee.opt_cost(case) for case in cases) / len(cases))

    def play(self, row: Row, name: str, make: Callable[[], Any], source: str) -> Outcome:
        """`source`: what the outcome depends on besides the row and the referee."""
        key = hashlib.sha256(
            "|".join(
                [repr(row), name, source, _digest([self._traces / "referee.py", CHANGES_SOURCE])]
            ).encode()
        ).hexdigest()[:24]
        kept = self._cache / f"{key}.json"
        if kept.is_file():
            body = json.loads(kept.read_text())
            return Outcome(tuple(body["costs"]), body["misses"], body["late"])
        results = self.referee.evaluate(self.cases(row), make, self.referee.Options(**dict(row.options)))
        outcome = Outcome(
            tuple(result.cost for result in results),
            sum(result.missed for result in results),
            max(result.late for result in results),
        )
        self._cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(
            json.dumps({"costs": outcome.costs, "misses": outcome.misses, "late": outcome.worst_late_seconds})
        )
        return outcome

    def play_reference(
        self, row: Row, name: str, *, with_interval: bool, told: Told | None = None
    ) -> Outcome:
        """A rule of the referee; with_interval: it plans with the overhead and the checkpoint interval."""
        rule = self.referee.REFERENCE[name]
        margin = row.interval if with_interval and row.loses_work else 0.0

        def make() -> Any:
            made = rule() if rule is self.referee.OnDemandOnly else rule(margin)
            return made if told is None else told(made)

        return self.play(row, name, make, f"margin {margin} {told}")


def ours(told: Told | None = None, **attributes: Any) -> tuple[Callable[[], Any], str]:
    """The policy with some of its adapter's attributes set, and the text that its outcome depends on."""
    kind = type("Policy", (Policy,), attributes)
    source = f"{sorted(attributes.items())} {told} {_digest(POLICY_SOURCES)}"
    return (kind if told is None else lambda: told(kind())), source


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(each.read_bytes())
    return digest.hexdigest()
