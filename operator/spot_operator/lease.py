"""Which replica acts: one Lease, held by one process at a time.

Every write of the Lease is guarded by its resourceVersion, so two processes can never both
believe that they took it. Invariants: `is_leading` is true only until the renew deadline
after the *start* of the last successful write, by a monotonic clock, and the API client
refuses to write while it is false; the deadline is shorter than the duration that others
wait, so the old leader is silent before a new one begins. When the API server cannot be
reached the process stays, silent, and goes on trying; when it sees another holder it ends
itself at once, because whatever it still has in flight belongs to the past.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

from spot_operator.kube import AlreadyExists, Conflict, KubeError, NotFound
from spot_operator.logs import Log
from spot_operator.settings import LeaseSettings

LOOKS_PER_RENEWAL: Final = 8
"""A stand-by counts the age of a record from its own first sight of it, so what it sees late it takes
over late; a look is one small read."""

_log = Log(__name__)


class LostLease(Exception):
    """Another process holds the Lease."""


class LeaseStore(Protocol):
    """The one Lease object, at the API server."""

    async def read(self) -> dict[str, Any] | None: ...

    async def create(self, spec: dict[str, Any]) -> dict[str, Any]: ...

    async def replace(self, lease: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]: ...


class Elector:
    """Acquire once, then hold until released; one per process."""

    def __init__(
        self,
        store: LeaseStore,
        identity: str,
        settings: LeaseSettings,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        looks_per_renewal: int = LOOKS_PER_RENEWAL,
    ) -> None:
        self._store = store
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._look_seconds = settings.retry_seconds / looks_per_renewal
        self._leading_until = float("-inf")
        self._is_released = False
        self._seen: tuple[str, str] | None = None
        self._seen_at = float("-inf")
        self._stale_at = float("-inf")

    def is_leading(self) -> bool:
        return self._monotonic() < self._leading_until

    async def acquire(self) -> None:
        """Return when the Lease is ours."""
        while not await self._attempt(self._try_acquire):  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(self._until_next_look())
        _log.info("leading", identity=self._identity)

    def _until_next_look(self) -> float:
        """Of a stand-by: not later than when the record that it saw last becomes stale."""
        rest = self._stale_at - self._monotonic()
        return min(self._look_seconds, rest) if rest > 0 else self._look_seconds

    async def hold(self) -> None:
        """Renew for ever.

        Raises:
            LostLease: another process took the Lease.
        """
        while True:
            await asyncio.sleep(self._settings.retry_seconds)
            was_leading = self.is_leading()
            await self._attempt(self._try_acquire)
            if was_leading and not self.is_leading() and not self._is_released:
                _log.warning("renewal overdue: nothing is written until the API server answers")

    async def release(self) -> None:
        """Give the Lease back, so that another replica need not wait; best effort."""
        was_leading, self._is_released = self.is_leading(), True
        self._leading_until = float("-inf")
        if not was_leading:
            return
        try:
            async with asyncio.timeout(self._settings.retry_seconds):
                while not await self._give_back():
                    pass  # a renewal that was under way came first
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not released; it will expire", error=str(error))

    async def _give_back(self) -> bool:
        lease = await self._store.read()
        spec = (lease or {}).get("spec") or {}
        if lease is None or spec.get("holderIdentity") != self._identity:
            return True
        try:
            await self._store.replace(lease, spec | {"holderIdentity": ""})
        except Conflict:
            return False
        return True

    async def _attempt(self, step: Callable[[], Any]) -> bool:
        """Whether the Lease is ours after one try; every failure but a new holder is another try."""
        try:
            # A call that hangs must not outlive the deadline that it is to extend.
            async with asyncio.timeout(self._settings.renew_deadline_seconds / 2):
                return bool(await step())
        except (KubeError, TimeoutError) as error:
            _log.warning("lease call failed", error=str(error) or type(error).__name__)
            return False

    async def _try_acquire(self) -> bool:
        started = self._monotonic()
        lease = await self._store.read()
        if self._is_released:
            return False  # meanwhile, it may be: what still renews must not take what was just given back
        try:
            if lease is None:
                if self._may_be_held():
                    return False
                await self._store.create(self._spec(transitions=0))
            else:
                spec = lease.get("spec") or {}
                holder = spec.get("holderIdentity") or ""
                if holder != self._identity and self._leading_until != float("-inf"):
                    self._leading_until = float("-inf")
                    raise LostLease(f"the lease is held by {holder or 'nobody'}, and was ours")
                if holder not in ("", self._identity) and self._is_fresh(spec, holder):
                    return False
                changed_hands = holder != self._identity
                transitions = (spec.get("leaseTransitions") or 0) + changed_hands
                await self._store.replace(lease, self._spec(transitions, spec, changed_hands))
        except (AlreadyExists, Conflict, NotFound):
            return False  # somebody was faster; the next look shows who
        if not self._is_released:
            self._leading_until = started + self._settings.renew_deadline_seconds
        return not self._is_released

    def _may_be_held(self) -> bool:
        """Somebody deleted the Lease: the holder does not know yet, and acts until it looks again."""
        return self._leading_until == float("-inf") and self._monotonic() < self._stale_at

    def _is_fresh(self, spec: dict[str, Any], holder: str) -> bool:
        # Age is counted from when *we* first saw this record: clocks of two machines are not compared.
        record = (holder, str(spec.get("renewTime")))
        if record != self._seen:
            self._seen, self._seen_at = record, self._monotonic()
        duration = float(spec.get("leaseDurationSeconds") or self._settings.duration_seconds)
        self._stale_at = self._seen_at + duration
        return self._monotonic() < self._stale_at

    def _spec(
        self, transitions: int, previous: dict[str, Any] | None = None, fresh: bool = True
    ) -> dict[str, Any]:
        now = self._clock().isoformat(timespec="microseconds").replace("+00:00", "Z")
        acquired = now if fresh or previous is None else previous.get("acquireTime", now)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._settings.duration_seconds),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
