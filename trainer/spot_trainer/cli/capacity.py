"""From a few measured saves to the longest state that a notice leaves time for. Pure.

A save costs a fixed time (round trips, fsync, the manifest) and a time per byte; both are
found from two sizes. Invariant: the margin is the one that the library itself keeps when
it decides on a notice, so that what is promised here is what it would try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from spot_trainer.cli.quantities import format_rate, format_seconds, format_size
from spot_trainer.farewell import MARGIN

NOTICES_SECONDS = (30.0, 60.0, 120.0)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One save and one restore."""

    num_bytes: int
    stall_seconds: float
    """How long training stands still."""
    save_seconds: float
    """From the beginning until the checkpoint is durable and published."""
    restore_seconds: float
    """Read into live tensors, every byte verified."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a save as a line over its bytes."""

    fixed_seconds: float
    bytes_per_second: float

    def longest_state_bytes(self, notice_seconds: float) -> int:
        """What is expected to be durable when the notice is over; 0 if nothing is."""
        left = notice_seconds / MARGIN - self.fixed_seconds
        return max(0, int(left * self.bytes_per_second))


def typical(samples: Sequence[Sample]) -> Sample:
    """The median of each duration."""
    return Sample(
        num_bytes=samples[0].num_bytes,
        stall_seconds=median(sample.stall_seconds for sample in samples),
        save_seconds=median(sample.save_seconds for sample in samples),
        restore_seconds=median(sample.restore_seconds for sample in samples),
    )


def cost(small: Sample, large: Sample) -> Cost:
    """The line through two samples; never better than the large one alone says."""
    rate = large.num_bytes / large.save_seconds
    gap = large.save_seconds - small.save_seconds
    fixed = min(small.save_seconds, large.save_seconds)
    if gap <= 0:  # noise is greater than what the bytes cost
        return Cost(fixed, rate)
    return Cost(fixed, min((large.num_bytes - small.num_bytes) / gap, 2 * rate))


def lines(uri: str, small: Sample, large: Sample) -> list[str]:
    """The whole report."""
    each = cost(small, large)
    measured = (
        ("stall", large.stall_seconds, "training stands still for a copy in memory"),
        ("save", large.save_seconds, "durable and published"),
        ("restore", large.restore_seconds, "every byte verified, read soon after writing"),
    )
    result = [f"{uri}, a state of {format_size(large.num_bytes)}:"]
    result += [
        f"  {name:7} {format_seconds(seconds):>10}  {format_rate(large.num_bytes, seconds):>10}  ({what})"
        for name, seconds, what in measured
    ]
    result += [
        f"  a save of next to nothing takes {format_seconds(each.fixed_seconds)}",
        f"the longest state that fits a notice (margin {MARGIN}, less the longest step of your training):",
    ]
    result += [
        f"  {seconds:4.0f} s  {format_size(each.longest_state_bytes(seconds))}  "
        f"({each.longest_state_bytes(seconds)} bytes)"
        for seconds in NOTICES_SECONDS
    ]
    return result
