"""Which checkpoints may go. Pure.

Invariant: the newest `keep` verified ones of the lineage always stay, and nothing goes
within `delay` of the moment it was superseded, because a process that claimed a moment
ago may be reading it. All times are of the store's clock: the clocks of nodes play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spot_trainer.lineage import AttemptName

DELAY = timedelta(minutes=5)


@dataclass(frozen=True)
class Published:
    """A checkpoint of our own lineage that nobody has found damaged."""

    name: AttemptName
    time: datetime
    is_verified: bool = True
    """Written or read by this process with matching hashes; others do not count as kept."""


def superseded(
    lineage: Sequence[Published], *, keep: int, now: datetime, delay: timedelta = DELAY
) -> tuple[AttemptName, ...]:
    """What may be deleted of a lineage that is given newest first, the oldest first."""
    if keep < 1:
        raise ValueError("at least one checkpoint is kept")
    gone: list[AttemptName] = []
    verified: list[datetime] = []
    for checkpoint in lineage:
        # The moment when `keep` verified checkpoints newer than this one existed.
        if len(verified) >= keep and now - verified[-keep] > delay:
            gone.append(checkpoint.name)
        if checkpoint.is_verified:
            verified.append(checkpoint.time)
    return tuple(reversed(gone))
