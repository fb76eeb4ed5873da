"""What the policy plans with, learned from what the job itself has seen.

A few numbers each, so that they fit into a status and cost nothing to update. Invariant: one measured
value is enough to be warned; none is ever needed to be safe, since what was told counts as one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launches:
    """How long launches took, from the decision to useful work."""

    count: int = 0
    total_seconds: float = 0.0
    shortest_seconds: float = 0.0
    longest_seconds: float = 0.0

    def and_one(self, seconds: float) -> "Launches":
        return Launches(
            self.count + 1,
            self.total_seconds + seconds,
            min(self.shortest_seconds, seconds) if self.count else seconds,
            max(self.longest_seconds, seconds),
        )

    def mean_seconds(self, expected: float) -> float:
        return self.total_seconds / self.count if self.count else expected

    def high_seconds(self, expected: float) -> float:
        """An end that few launches pass: the largest seen, and beyond it by a share of the spread.

        With n values between a and b the end of their range lies about (b - a) / n above b. A value
        that is always the same keeps no reserve, one surprise at the start keeps a large one.
        """
        if not self.count:
            return expected
        least, most = min(expected, self.shortest_seconds), max(expected, self.longest_seconds)
        return most + (most - least) / self.count


@dataclass(frozen=True, slots=True)
class Interruptions:
    """How many spot nodes were taken away in how much node time."""

    count: int = 0
    node_seconds: float = 0.0

    def __add__(self, other: "Interruptions") -> "Interruptions":
        return Interruptions(self.count + other.count, self.node_seconds + other.node_seconds)

    def node_hours_each(self, prior: "Interruptions") -> float:
        """Node-hours per interruption: the mean rate of a Gamma-Poisson posterior, turned over.

        `prior` counts as if it had been seen, so that neither the first interruption nor its absence
        says too much; it has at least one.
        """
        return (self.node_seconds + prior.node_seconds) / 3600 / (self.count + prior.count)


@dataclass(frozen=True, slots=True)
class Notices:
    """On how many interruptions the last checkpoint landed, of those where work was at stake."""

    landed: int = 0
    seen: int = 0

    def and_one(self, *, landed: bool) -> "Notices":
        return Notices(self.landed + landed, self.seen + 1)

    def reliability(self, expected: float = 0.5) -> float:
        """Half of them, until experience outweighs two interruptions."""
        return (self.landed + 2 * expected) / (self.seen + 2)
