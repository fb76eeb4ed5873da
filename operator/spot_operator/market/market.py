"""A spot market as a job meets it: when nodes could be had, and at what price.

Availability changes at certain times and holds in between, so that a run can go from change to change
instead of from second to second. Invariant: times rise strictly from 0, and nothing in here draws a
number or reads a clock.
"""

from bisect import bisect_right
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    name: str
    times: tuple[float, ...]
    """When availability or price changed, in seconds since the beginning of the recording."""
    available: tuple[bool, ...]
    """From each of these times on."""
    spot_prices: tuple[float, ...] | None = None
    """Per node-hour, from each of these times on; None: not recorded."""
    on_demand_price: float | None = None
    length_seconds: float = inf
    """After it the recording begins again."""

    @property
    def availability(self) -> float:
        """Share of the time in which spot nodes could be had."""
        if self.length_seconds == inf:
            return float(self.available[-1])
        ends = (*self.times[1:], self.length_seconds)
        up = sum(
            end - begin for begin, end, is_up in zip(self.times, ends, self.available, strict=True) if is_up
        )
        return up / self.length_seconds


class Cursor:
    """A market played from an offset on, over its end into its beginning."""

    __slots__ = ("_index", "_market", "_shift", "available", "next_change", "recorded_price")

    def __init__(self, market: Market, offset: float) -> None:
        self._market = market
        self._index = bisect_right(market.times, offset) - 1
        self._shift = -offset
        self._read()

    def step(self) -> None:
        """Go to the next change."""
        self._index += 1
        if self._index == len(self._market.times):
            self._index = 0
            self._shift += self._market.length_seconds
        self._read()

    def _read(self) -> None:
        market, index = self._market, self._index
        self.available = market.available[index]
        self.recorded_price = None if market.spot_prices is None else market.spot_prices[index]
        end = market.times[index + 1] if index + 1 < len(market.times) else market.length_seconds
        self.next_change = end + self._shift
        """In seconds since the run began."""
