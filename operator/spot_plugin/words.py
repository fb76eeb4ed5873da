"""How durations, times, money and tables are written and read; plain text, no colours.

Invariant: pure; `now` is handed in.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf, isinf
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
MAX_DURATION_SECONDS: Final = 315_360_000


def parse_duration(text: str) -> float:
    """Seconds; "48h", "1h30m", "90" (seconds).

    Raises:
        ValueError: says what is expected.
    """
    word = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", word):
        seconds = float(word)
    elif _DURATION.fullmatch(word):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(word))
    else:
        raise ValueError(f"{text!r} is no duration; write it like 48h, 90m, 1h30m or 3600 (seconds)")
    if not 0 <= seconds <= MAX_DURATION_SECONDS:
        raise ValueError(f"{text!r} is too long; at most ten years")
    return seconds


def duration(seconds: float | None) -> str:
    """Two units at most: 3d4h, 5h12m, 12m30s, 30s."""
    if seconds is None or isinf(seconds):
        return "-"
    sign = "-" if seconds < 0 else ""
    left = round(abs(seconds))
    if left >= 100:
        left = round(left / 60) * 60 if left >= 3600 else left
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number}{unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return sign + "".join(parts)


def hours(seconds: float) -> str:
    return "never" if seconds == inf else f"{seconds / 3600:.1f} h"


def parse_time(text: object) -> datetime | None:
    """A time as the API writes it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def moment(time: datetime | None) -> str:
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") + "Z"


def relative(time: datetime, now: datetime) -> str:
    """ "in 5m", "3h ago"."""
    seconds = (time - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def clean(text: object) -> str:
    """Text that came from a pod or a user, without what could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as they need, two spaces apart; `right` are the columns of numbers."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
