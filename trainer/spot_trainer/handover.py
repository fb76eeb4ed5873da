"""Hand-over: a successor that is started early lets its predecessor finish before it claims.

To claim is to fence: what a predecessor has not published by then is lost. An operator that
starts the next incarnation while the last one still writes its final checkpoint therefore says
how long that may take at most, and the successor spends this time on everything but the claim.
Invariant: the wait is bounded, and whatever it waits for may fail without harm, since a claim
is safe at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum

from spot_trainer.clock import Clock
from spot_trainer.lineage import ClaimName

POLL_SECONDS = 0.5


class Waited(StrEnum):
    """Why the wait is over."""

    NOBODY = "nobody has claimed before us"
    CLOSED = "the predecessor has closed its claim"
    DEAD = "the operator says that the predecessor is dead"
    TOO_LONG = "the time for a hand-over is over"
    TOLD_TO_STOP = "told to stop meanwhile"


def predecessor_of(own: ClaimName, claims: Collection[ClaimName]) -> ClaimName | None:
    """The greatest claim of the same job below our own."""
    return max((each for each in claims if each.job_uid == own.job_uid and each < own), default=None)


def wait(
    own: ClaimName,
    *,
    seconds: float,
    look: Callable[[], tuple[Collection[ClaimName], Collection[ClaimName]]],
    dead_incarnation: Callable[[], int | None],
    is_told_to_stop: Callable[[], bool],
    tell: Callable[[ClaimName], None],
    clock: Clock,
) -> Waited:
    """Wait until the predecessor cannot lose anything by our claim, at most so many seconds.

    `look` gives the claims and the closed ones among them; `dead_incarnation` the greatest one whose
    pods are surely dead; `tell` is called at every round. Raises what `look` raises.
    """
    until = clock.monotonic() + seconds
    while True:
        if is_told_to_stop():
            return Waited.TOLD_TO_STOP
        claims, closed = look()
        predecessor = predecessor_of(own, claims)
        if predecessor is None:
            return Waited.NOBODY
        if predecessor in closed:
            return Waited.CLOSED
        if (dead := dead_incarnation()) is not None and dead >= predecessor.incarnation:
            return Waited.DEAD
        left = until - clock.monotonic()
        if left <= 0:
            return Waited.TOO_LONG
        tell(predecessor)
        clock.sleep(min(POLL_SECONDS, left))
