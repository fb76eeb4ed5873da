"""A stretch of a recorded market, in compressed time: what is replayed, and what the simulator plays.

The recordings are not part of the repository; where they are absent nothing is replayed. Invariant: one
`Market` stands for both sides, so that what the cluster meets is what the simulator is told.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from spot_operator.market import Market, market_from_trace
from spot_operator.market.market import Cursor

FAMILY: Final = "aws-v100-2023"
LEAST_CHANGES: Final = 4
"""Of a stretch that is worth replaying: a zone that is always or never there asks nothing of anybody."""
MAX_DRAWS: Final = 2000


@dataclass(frozen=True)
class Stretch:
    """One zone from a certain time of its recording on."""

    zone: str
    market: Market
    """The whole recording, in compressed seconds."""
    offset: float

    def changes(self, seconds: float) -> Iterator[tuple[float, bool]]:
        """(seconds since the beginning, available from then on), beginning with the state at 0."""
        cursor = Cursor(self.market, self.offset)
        yield 0.0, cursor.available
        was = cursor.available
        while cursor.next_change < seconds:
            at = cursor.next_change
            cursor.step()
            if cursor.available is not was:  # else only the price has changed
                was = cursor.available
                yield at, was

    def share(self, seconds: float) -> float:
        """Of that time in which spot is there."""
        found = [*self.changes(seconds), (seconds, False)]
        return sum(end - at for (at, up), (end, _) in pairwise(found) if up) / seconds


def zones(traces: Path) -> list[Path]:
    return sorted((traces / FAMILY).glob("*.json.gz"))


def read_zone(path: Path, compression: float) -> Market:
    """The recording with so many of its seconds in one."""
    zone = path.name.partition(".")[0]
    market = market_from_trace(json.loads(gzip.decompress(path.read_bytes())), name=zone)
    return replace(
        market,
        times=tuple(at / compression for at in market.times),
        length_seconds=market.length_seconds / compression,
        spot_prices=None,
    )


def draw_stretch(market: Market, *, seconds: float, seed: str) -> Stretch:
    """The first stretch drawn in which spot comes and goes often enough."""
    dice = Random(f"{seed}/{market.name}")
    for _ in range(MAX_DRAWS):
        stretch = Stretch(market.name, market, dice.random() * (market.length_seconds - seconds))
        if sum(1 for _ in stretch.changes(seconds)) > LEAST_CHANGES:
            return stretch
    raise ValueError(f"{market.name}: no stretch of {seconds:.0f} s with {LEAST_CHANGES} changes in it")
