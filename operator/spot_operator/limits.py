"""How often something may happen: a bucket for each key that fills at a steady rate.

Invariant: memory is bounded whatever the keys are; a key that is forgotten gets a full
bucket, which is what it would have after a pause anyway.
"""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MAX_KEYS: Final = 20_000


class Buckets(Generic[K]):
    """`per_second` in the long run, `burst` at once; time is given in monotonic seconds."""

    def __init__(
        self, *, per_second: float, burst: int, monotonic: Callable[[], float], max_keys: int = MAX_KEYS
    ) -> None:
        self._step = 1.0 / per_second
        self._slack = (burst - 1) * self._step
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._full_at: dict[K, float] = {}

    def take(self, key: K) -> bool:
        """Whether it may happen once more now; a refusal costs the key nothing."""
        now = self._monotonic()
        full_at = max(self._full_at.get(key, now), now)
        if full_at - now > self._slack:
            return False
        if key not in self._full_at and len(self._full_at) >= self._max_keys:
            self._forget(now)
        self._full_at[key] = full_at + self._step
        return True

    def _forget(self, now: float) -> None:
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) >= self._max_keys:
            self._full_at.clear()
