"""What a script prints, made comparable: lines with numbers, without the time of day. Pure.

Only lines that the uninterrupted run prints too can be compared, so that "resumed from
step 12" is no difference. A line that names its step is compared with the line of the
same form and step, any number of times; others must come in the same order. Invariant:
nothing is dropped from a line but what tells time or speed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[tuple[str, int], ...]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TIMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?",
        r"\b\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?\b",
        rf"[\"']?\b\w*(?:time|timestamp|elapsed|seconds|duration|eta|throughput|speed)[\"']?\s*[:=]\s*{_NUMBER}\s*\w*",
        rf"{_NUMBER}\s*(?:it|steps?|samples|tokens|batch(?:es)?|img)/s(?:ec)?\b",
        rf"{_NUMBER}\s*s/(?:it|step)\b",
        rf"{_NUMBER}\s*(?:ms|us|s|sec|secs|seconds|min|minutes|hours?)\b",
    )
)
_KEY = re.compile(
    r"\b(?:global[_ ]?)?(epoch|step|iter(?:ation)?|batch)s?\b[\"']?\s*[:=#\[]?\s*(\d+)(?![.\d])",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"[-+]?\b(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)\b", re.IGNORECASE)
_VALUE = re.compile(
    r"([A-Za-z_]\w*)[\"']?\s*[:=]?\s*([-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|nan|inf))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Line:
    """One printed line with numbers."""

    text: str
    """Without times."""
    shape: str
    """With every number replaced by #."""
    key: Key
    """Such as (("epoch", 3), ("step", 40)); empty if the line names none."""

    @property
    def values(self) -> dict[str, float]:
        """Numbers with a name, such as the loss."""
        return {name.lower(): float(number) for name, number in _VALUE.findall(self.text)}

    @property
    def place(self) -> str:
        """The step, for people."""
        return " ".join(f"{name} {number}" for name, number in self.key)


def event_of(text: str) -> dict[str, Any] | None:
    """The event, if this is a line of the trainer library."""
    if not text.startswith("{"):
        return None
    try:
        body = json.loads(text)
    except ValueError:
        return None
    is_event = isinstance(body, dict) and isinstance(body.get("event"), str)
    return body if is_event and {"step", "incarnation", "capacityType"} <= body.keys() else None


def parse(text: str) -> Line | None:
    """The line, or None if it holds no number worth comparing."""
    for pattern in _TIMES:
        text = pattern.sub("", text)
    text = " ".join(text.split())
    if not _DIGITS.search(text):
        return None
    key = tuple((name.lower(), int(number)) for name, number in _KEY.findall(text))
    return Line(text, _DIGITS.sub("#", text), key)


@dataclass(frozen=True)
class PrintedDifference:
    """The first line that is not what the uninterrupted run printed."""

    process: int
    """Which process printed it, from 0."""
    position: int
    """Position of its step in the uninterrupted run, from 1."""
    place: str
    expected: str
    found: str
    names: tuple[str, ...] = ()
    """Values that differ."""


@dataclass(frozen=True)
class PrintedComparison:
    """What came of comparing."""

    num_compared: int
    num_ignored: int
    """Lines of a form that the uninterrupted run does not print."""
    num_missing: int
    """Lines that only the uninterrupted run printed."""
    first: PrintedDifference | None


def positions(reference: Iterable[Line]) -> dict[Key, int]:
    """The steps that the uninterrupted run names, numbered from 1 in the order of their appearance."""
    found: dict[Key, int] = {}
    for line in reference:
        if line.key:
            found.setdefault(line.key, len(found) + 1)
    return found


def compare(reference: Sequence[Line], processes: Sequence[Sequence[Line]]) -> PrintedComparison:
    """Hold what the processes of the interrupted run printed against the uninterrupted run."""
    place_of, shapes = positions(reference), {line.shape for line in reference}
    keyed: dict[tuple[str, Key], list[str]] = {}
    for line in reference:
        if line.key:
            keyed.setdefault((line.shape, line.key), []).append(line.text)
    ordered = [line for line in reference if not line.key]
    seen: set[tuple[str, Key]] = set()
    num_compared = num_ignored = 0
    first: PrintedDifference | None = None
    for number, lines in enumerate(processes):
        at, last = 0, 0
        for line in lines:
            last = place_of.get(line.key, last)
            if line.shape not in shapes:
                num_ignored += 1
                continue
            num_compared += 1
            if line.key:
                seen.add((line.shape, line.key))
                expected = keyed.get((line.shape, line.key), [])
                is_same = line.text in expected
            else:
                following = [other.text for other in ordered[at:]]
                is_same = line.text in following
                at += following.index(line.text) + 1 if is_same else 0
                expected = [other.text for other in ordered if other.shape == line.shape]
            if not is_same and first is None:
                wanted = expected[0] if expected else "no such line"
                names = _differing(wanted, line)
                first = PrintedDifference(number, last, line.place, wanted, line.text, names)
    num_missing = len(keyed.keys() - seen)
    return PrintedComparison(num_compared, num_ignored, num_missing, first)


def _differing(wanted: str, found: Line) -> tuple[str, ...]:
    expected = parse(wanted)
    if expected is None:
        return ()
    before, now = expected.values, found.values
    return tuple(name for name in now if repr(now[name]) != repr(before.get(name)))
