"""Which checkpoints may go. Pure.

Invariant: the newest `keep` verified ones of the lineage always stay, and nothing goes
within `delay` of the moment it was superseded, because a process that claimed a moment
ago may be reading it (on a full volume the delay is zero). All times are of the store's
clock: the clocks of nodes play no part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spot_trainer.lineage import AttemptName

DELAY = timedelta(minutes=5)

ABANDONED = timedelta(hours=1)
"""An attempt that nobody has written to for so long is that of a process that is gone."""


@dataclass(frozen=True)
class Published:
    """A checkpoint of our own lineage that nobody has found damaged."""

    name: AttemptName
    time: datetime
    is_verified: bool = True
    """Written or read by this process with matching hashes; others do not count as kept."""


def superseded(
    lineage: Sequence[Published],
    *,
    keep: int,
    now: datetime,
    delay: timedelta = DELAY,
    keep_every_steps: int | None = None,
) -> tuple[AttemptName, ...]:
    """What may be deleted of a lineage that is given newest first, the oldest first.

    `keep_every_steps`: the first checkpoint at or after each multiple of it (not zero) stays for good.
    """
    if keep < 1:
        raise ValueError("at least one checkpoint is kept")
    gone: list[AttemptName] = []
    verified: list[datetime] = []
    older = [*(each.name.step for each in lineage[1:]), 0][: len(lineage)]
    for checkpoint, step_before in zip(lineage, older, strict=True):
        # The moment when `keep` verified checkpoints newer than this one existed.
        is_superseded = len(verified) >= keep and now - verified[-keep] >= delay
        if is_superseded and not _is_milestone(checkpoint.name.step, step_before, keep_every_steps):
            gone.append(checkpoint.name)
        if checkpoint.is_verified:
            verified.append(checkpoint.time)
    return tuple(reversed(gone))


def _is_milestone(step: int, step_before: int, every: int | None) -> bool:
    return every is not None and step // every > step_before // every


def is_abandoned(attempt: AttemptName, *, written: datetime, closed: Collection[str], now: datetime) -> bool:
    """Whether a half-written attempt may go: its claim is closed, or it was left alone for long.

    `closed`: nonces of claims that publish nothing more; `written`: its newest object. What is
    neither may belong to a predecessor that still finishes.
    """
    return attempt.claim_nonce in closed or now - written > ABANDONED
