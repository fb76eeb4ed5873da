"""Markets out of a random number generator, for where nothing was recorded.

Spells of availability and of its absence are log-normal: most are short, and a few last for days, as
recorded ones do. The recorded V100 zones of 2023 (availability 0.17 to 0.91) have up-times of median 0.3
to 1.3 h and mean 0.7 to 10 h, and outages of median 0.4 to 0.7 h and at most 7 to 80 h; the defaults here
are close to the zone in their middle (availability 0.59, median up-time 0.5 h, mean 2.2 h). Invariant: the
same seed makes the same market; nothing is drawn but from the generator that is handed in.
"""

from dataclasses import dataclass
from math import exp
from random import Random

from spot_operator.market.market import Market


@dataclass(frozen=True, kw_only=True)
class Climate:
    """What a synthetic market is like."""

    availability: float = 0.6
    """Share of the time in which spot nodes can be had."""
    median_up_seconds: float = 2160.0
    spread: float = 1.6
    """Standard deviation of the logarithm of a spell: the mean is exp(spread^2 / 2) medians, here 3.6."""

    def __post_init__(self) -> None:
        if not 0 <= self.availability <= 1:
            raise ValueError(f"availability is {self.availability:g}; expected a share between 0 and 1")
        if self.median_up_seconds <= 0:
            raise ValueError(f"median up-time is {self.median_up_seconds:g} s; expected more than 0")
        if not 0 <= self.spread <= 4:
            raise ValueError(f"spread is {self.spread:g}; expected 0 (always the same) to 4 (wild)")

    @property
    def median_down_seconds(self) -> float:
        """So that both spells' means give the availability; their spread is the same."""
        return self.median_up_seconds * (1 - self.availability) / self.availability

    @property
    def mean_up_seconds(self) -> float:
        return self.median_up_seconds * exp(self.spread**2 / 2)


def synthetic_market(climate: Climate, dice: Random, *, length_seconds: float) -> Market:
    """A market of at least this length."""
    name = f"synthetic ({climate.availability:.0%} available)"
    if climate.availability in (0, 1):
        return Market(name=name, times=(0.0,), available=(climate.availability == 1,))
    medians = {True: climate.median_up_seconds, False: climate.median_down_seconds}
    times: list[float] = []
    states: list[bool] = []
    at, is_up = 0.0, dice.random() < climate.availability
    while at < length_seconds:
        times.append(at)
        states.append(is_up)
        at += max(1.0, medians[is_up] * dice.lognormvariate(0.0, climate.spread))
        is_up = not is_up
    return Market(name=name, times=tuple(times), available=tuple(states), length_seconds=at)
