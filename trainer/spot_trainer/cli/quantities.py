"""Bytes, durations and rates as people write and read them. Pure.

Invariant: what `parse_size` accepts is unambiguous: KB, MB, GB are powers of 1000, KiB,
MiB, GiB powers of 1024.
"""

from __future__ import annotations

import re

_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    f"{letter}{suffix}": int(base**power)
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_BY_LOWER = {name.lower(): factor for name, factor in _UNITS.items()}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*\Z", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes; raises ValueError."""
    match = _SIZE.match(text)
    factor = _BY_LOWER.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no size: write bytes, or for example 512MB or 2GiB")
    return round(float(match[1]) * factor)


def format_size(num_bytes: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.2f} {unit}"
    return f"{num_bytes:.0f} B"


def format_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def format_rate(num_bytes: float, seconds: float) -> str:
    return f"{num_bytes / seconds / 1e9:.2f} GB/s" if seconds > 0 else "-"
