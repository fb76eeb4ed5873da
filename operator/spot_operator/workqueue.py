"""Which job is looked at when: a queue of keys with due times.

Invariants: a key is handled by one worker at a time; a wake during its handling leads to
another look after it; many wakes of a waiting key are one look, at the earliest time that
was asked for; what is urgent goes before everything that is only due; a look that takes long (a
webhook that does not answer holds a create for half a minute) holds no worker meanwhile; and errors
back off here and nowhere else, per key, with jitter.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from spot_operator.kube import KubeError
from spot_operator.logs import Log

K = TypeVar("K", bound=Hashable)

BACKOFF_BASE_SECONDS: Final = 0.25
BACKOFF_MAX_SECONDS: Final = 30.0
SPARE_ENTRIES: Final = 64
PATIENCE_SECONDS: Final = 1.0
"""A look takes milliseconds; one that takes longer waits for somebody else, and so would all others."""
MAX_SLOW: Final = 64
"""Looks that go on without a worker, each with a connection to the API server; with so many, only what
is urgent is begun, and may get slow itself."""
MAX_SLOW_URGENT: Final = 24
MAX_SLOW_AGAIN: Final = 32
"""Of these, looks that were slow the last time: new trouble must still find room beside the old."""
URGENT: Final = 0
ORDINARY: Final = 1
NEVER: Final = (ORDINARY, float("inf"))

_log = Log(__name__)


class WorkQueue(Generic[K]):
    """`handle` returns after how many seconds to look again, or None: only when woken.

    Time is the running loop's, so a test with a virtual loop needs no sleeping.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        workers: int,
        jitter: Callable[[], float] = random.random,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._handle = handle
        self._num_workers = workers
        self._jitter = jitter
        self._patience = patience_seconds
        self._due: dict[K, tuple[int, float]] = {}
        """Rank (urgent first) and time of the look that is waited for."""
        self._heap: list[tuple[int, float, int, K]] = []
        self._order = itertools.count()
        self._running: set[K] = set()
        self._last_end = float("-inf")
        self._pressing: set[K] = set()
        """Looks under way that were urgent."""
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()
        self._idle_workers = asyncio.Semaphore(workers)
        self._slow: set[K] = set()
        """Looks under way that hold no worker any more."""
        self._was_slow: set[K] = set()
        """Keys whose last look was slow."""
        self._slow_again: set[K] = set()
        """Looks under way at these."""

    def wake(self, key: K, after: float = 0.0, *, urgent: bool = False) -> None:
        """Look at `key` in `after` seconds, or earlier if that was asked for already.

        Negative: now, and before what has become due within that time. Urgent: now, and before all
        others, since somebody's notice is running out.
        """
        now = asyncio.get_running_loop().time()
        due = (URGENT, now) if urgent else (ORDINARY, now + after)
        if due >= self._due.get(key, NEVER):
            return
        self._put(key, due)
        if len(self._heap) > 2 * len(self._due) + SPARE_ENTRIES:
            self._forget_superseded()
        self._changed.set()

    def _put(self, key: K, due: tuple[int, float]) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (*due, next(self._order), key))

    def _forget_superseded(self) -> None:
        """A look far ahead that an earlier one has replaced would stay until its time had come."""
        self._heap = [entry for entry in self._heap if self._due.get(entry[3]) == entry[:2]]
        heapq.heapify(self._heap)

    def depth(self) -> int:
        """How many keys are due for a look and have to wait for a worker."""
        now = asyncio.get_running_loop().time()
        return sum(1 for _, due in self._due.values() if due <= now)

    def lateness(self) -> float:
        """Seconds by which the most overdue waiting key is late; 0 when none is."""
        now = asyncio.get_running_loop().time()
        return max((now - due for _, due in self._due.values() if due <= now), default=0.0)

    def standstill(self) -> float:
        """Seconds in which something was due and no look came to its end, not even by an error."""
        now = asyncio.get_running_loop().time()
        oldest = min((due for _, due in self._due.values() if due <= now), default=now)
        return now - max(oldest, self._last_end)

    async def run(self) -> None:
        """Serve for ever; cancelling it cancels the looks under way."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._idle_workers.acquire()
                key = await self._next()
                self._running.add(key)
                tasks.create_task(self._serve(key))

    async def _next(self) -> K:
        while True:
            self._changed.clear()
            key, wait = self._pop(asyncio.get_running_loop().time())
            if key is not None:
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _pop(self, now: float) -> tuple[K | None, float | None]:
        """The first key that is due and not being handled, or the seconds until one may be."""
        blocked: list[tuple[int, float, int, K]] = []
        try:
            while self._heap:
                rank, due, _, key = self._heap[0]
                if self._due.get(key) != (rank, due):
                    heapq.heappop(self._heap)  # superseded by an earlier wake
                elif due > now:
                    return None, due - now
                elif rank != URGENT and len(self._slow) >= MAX_SLOW:
                    return None, None
                elif key in self._running:
                    blocked.append(heapq.heappop(self._heap))
                elif rank != URGENT and self._has_to_wait(key):
                    heapq.heappop(self._heap)
                    self._put(key, (ORDINARY, now + self._patience))
                else:
                    heapq.heappop(self._heap)
                    del self._due[key]
                    if rank == URGENT:
                        self._pressing.add(key)
                    return key, None
            return None, None
        finally:
            for entry in blocked:
                heapq.heappush(self._heap, entry)

    def _has_to_wait(self, key: K) -> bool:
        return key in self._was_slow and len(self._slow_again) >= MAX_SLOW_AGAIN

    def _lose_patience(self, key: K) -> None:
        """The look goes on; its worker takes the next one."""
        if len(self._slow) < MAX_SLOW + MAX_SLOW_URGENT:
            self._slow.add(key)
            self._idle_workers.release()

    async def _serve(self, key: K) -> None:
        loop = asyncio.get_running_loop()
        began, patience = loop.time(), self._patience
        if key in self._was_slow:
            self._slow_again.add(key)
            patience = 0.0  # a worker has waited for it in vain before
        timer = loop.call_later(patience, self._lose_patience, key)
        try:
            again = await self._handle(key)
            self._failures.pop(key, None)
        except asyncio.CancelledError:
            raise
        # The one broad except of the operator: whatever goes wrong with one job is logged, backs
        # off, and never delays another job or ends the process.
        except Exception as error:  # noqa: BLE001
            again = self._back_off(key, error)
        finally:
            timer.cancel()
            self._last_end = loop.time()
            self._note_pace(key, loop.time() - began)
            self._running.discard(key)
            is_pressing = key in self._pressing
            self._pressing.discard(key)
            self._changed.set()
        if again is not None:
            # A write that was lost to a conflict, for example: what was urgent has not been done yet.
            self.wake(key, again, urgent=is_pressing and again == 0)

    def _note_pace(self, key: K, seconds: float) -> None:
        self._slow_again.discard(key)
        if seconds < self._patience:
            self._was_slow.discard(key)
        else:
            self._was_slow.add(key)
        if key in self._slow:
            self._slow.discard(key)
        else:
            self._idle_workers.release()

    def _back_off(self, key: K, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        bound = min(BACKOFF_MAX_SECONDS, BACKOFF_BASE_SECONDS * 2.0 ** min(failures - 1, 20))
        delay = bound * (0.5 + self._jitter() / 2)
        if isinstance(error, KubeError):
            delay = max(delay, error.retry_after or 0.0)
            _log.warning("look failed", key=key, error=error.message, kind=type(error).__name__, again=delay)
        else:
            _log.error("look failed unexpectedly", exception=error, key=key, again=delay)
        return delay
