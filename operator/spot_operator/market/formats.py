"""Recorded markets: the format `spot-availability-trace/1`, and a plain table of changes.

Invariant: what cannot be read is an `InvalidMarket` that says where and what was expected; there is no
guess about a market.
"""

import csv
from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Any, Final, TypeVar

from spot_operator.market.market import Market

T = TypeVar("T")

FORMAT: Final = "spot-availability-trace/1"
_WORDS: Final = {"1": True, "true": True, "yes": True, "up": True} | {
    "0": False, "false": False, "no": False, "down": False,
}  # fmt: skip


class InvalidMarket(ValueError):
    """A recording that cannot be used: where, what is wrong, what is expected."""


def market_from_trace(trace: Mapping[str, Any], *, name: str) -> Market:
    """A trace in run-length code: `first`, `runs`, `step_s` and perhaps `price_spot_runs`."""
    if (found := trace.get("format")) != FORMAT:
        raise InvalidMarket(f"{name}: format is {found!r}; expected {FORMAT!r}")
    step, runs = trace.get("step_s"), trace.get("runs")
    if not isinstance(step, int | float) or step <= 0:
        raise InvalidMarket(f"{name}: step_s is {step!r}; expected seconds per step")
    if not isinstance(runs, list) or not runs or not all(isinstance(n, int) and n > 0 for n in runs):
        raise InvalidMarket(f"{name}: runs must be a list of positive numbers of steps")
    if trace.get("first") not in (0, 1):
        raise InvalidMarket(f"{name}: first is {trace.get('first')!r}; expected 0 or 1")
    if (told := trace.get("n_steps", sum(runs))) != sum(runs):
        raise InvalidMarket(f"{name}: the runs add up to {sum(runs)} steps, n_steps says {told!r}")
    states = _starts((bool((trace["first"] + i) % 2), n) for i, n in enumerate(runs))
    prices = _prices(trace, name=name, num_steps=sum(runs))
    changes: list[tuple[float, bool, float]] = []
    up, price = False, 0.0
    for at in sorted({*states, *prices}):
        up, price = states.get(at, up), prices.get(at, price)
        changes.append((at * float(step), up, price))
    return Market(
        name=name,
        times=tuple(change[0] for change in changes),
        available=tuple(change[1] for change in changes),
        spot_prices=tuple(change[2] for change in changes) if prices else None,
        on_demand_price=trace.get("price_on_demand"),
        length_seconds=sum(runs) * float(step),
    )


def _starts(runs: Iterable[tuple[T, int]]) -> dict[int, T]:
    """What begins at which step."""
    found: dict[int, T] = {}
    at = 0
    for value, steps in runs:
        found[at] = value
        at += steps
    return found


def _prices(trace: Mapping[str, Any], *, name: str, num_steps: int) -> dict[int, float]:
    runs = trace.get("price_spot_runs")
    if runs is None:
        return {}
    try:
        pairs = [(float(price), int(steps)) for price, steps in runs]
    except (TypeError, ValueError) as error:
        raise InvalidMarket(
            f"{name}: price_spot_runs must be pairs of a price and a number of steps"
        ) from error
    if sum(steps for _, steps in pairs) != num_steps:
        raise InvalidMarket(f"{name}: price_spot_runs do not add up to {num_steps} steps")
    return _starts(pairs)


def market_from_table(text: str, *, name: str) -> Market:
    """Lines `seconds,available[,price]`, one for each change; the last line ends the recording.

    A single line means that it is always so.
    """
    rows: list[tuple[float, bool, float | None]] = []
    for number, cells in enumerate(csv.reader(text.splitlines()), start=1):
        words = [cell.strip() for cell in cells]
        if not words or not words[0] or words[0].startswith("#"):
            continue
        if not rows and words[0].lower() in ("seconds", "time", "time_s"):
            continue
        rows.append(_row(words, where=f"{name}, line {number}"))
        if len(rows) > 1 and rows[-1][0] <= rows[-2][0]:
            raise InvalidMarket(f"{name}, line {number}: seconds must rise from line to line")
    if not rows:
        raise InvalidMarket(f"{name}: no line `seconds,available[,price]` in it")
    begin = rows[0][0]
    lasting = rows[:-1] or rows
    prices = tuple(price for _, _, price in lasting if price is not None)
    if prices and len(prices) != len(lasting):
        raise InvalidMarket(f"{name}: some lines have a price and some have none; give each one a price")
    return Market(
        name=name,
        times=tuple(row[0] - begin for row in lasting),
        available=tuple(row[1] for row in lasting),
        spot_prices=prices or None,
        length_seconds=rows[-1][0] - begin if len(rows) > 1 else inf,
    )


def _row(words: list[str], *, where: str) -> tuple[float, bool, float | None]:
    if len(words) not in (2, 3):
        raise InvalidMarket(f"{where}: expected seconds,available[,price], found {','.join(words)!r}")
    if (available := _WORDS.get(words[1].lower())) is None:
        raise InvalidMarket(f"{where}: available is {words[1]!r}; expected 0 or 1")
    price = _number(words[2], where, "price") if len(words) == 3 and words[2] else None
    return _number(words[0], where, "seconds"), available, price


def _number(word: str, where: str, what: str) -> float:
    try:
        number = float(word)
    except ValueError as error:
        raise InvalidMarket(f"{where}: {what} is {word!r}; expected a number") from error
    if not isfinite(number) or number < 0:
        raise InvalidMarket(f"{where}: {what} is {word!r}; expected a number that is not negative")
    return number
