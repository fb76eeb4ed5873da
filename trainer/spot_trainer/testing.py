"""Doubles for what lies outside the process: a store in memory, one that fails, a clock.

Shipped and typed, so that users can test their own training scripts with them. Invariant:
`MemoryStore` keeps exactly what the Store protocol promises and nothing that a real store
does not (no ordering of listings).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from spot_trainer.clock import Clock
from spot_trainer.loop import Run
from spot_trainer.state import Stateful
from spot_trainer.store import Buffer, Entry, NotFound, Store, Unfinished


class MemoryStore:
    """Objects in a dictionary; each write advances the store's clock by one second."""

    read_bytes = 1024 * 1024
    parallel_reads = 1
    caveats: Sequence[str] = ()

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.left_behind: list[Unfinished] = []
        self._times: dict[str, datetime] = {}
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return "memory://"

    def advance(self, by: timedelta) -> None:
        """Let time pass in the store."""
        self._now += by

    def list(self, prefix: str) -> list[Entry]:
        with self._lock:
            keys = [key for key in self.objects if key.startswith(prefix)]
            return [Entry(key, len(self.objects[key]), self._times[key]) for key in reversed(keys)]

    def read(self, key: str) -> bytes:
        with self._lock:
            if key not in self.objects:
                raise NotFound(f"{key} does not exist")
            return self.objects[key]

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        data, total = self.read(key), 0
        for buffer in buffers:
            piece = data[offset + total : offset + total + len(buffer)]
            buffer[: len(piece)] = piece
            total += len(piece)
        return total

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            if key in self.objects:
                return False
            self._write(key, data)
            return True

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        with self._lock:
            self._write(key, b"".join(parts))

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)
                self._times.pop(key, None)

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        with self._lock:
            return [item for item in self.left_behind if item.key.startswith(prefix)]

    def discard(self, what: Unfinished) -> None:
        with self._lock:
            self.left_behind.remove(what)

    def _write(self, key: str, data: bytes) -> None:
        self._now += timedelta(seconds=1)
        self.objects[key], self._times[key] = bytes(data), self._now


class FaultyStore:
    """Wraps a store; `fault(operation, key)` runs before each operation and may raise.

    `lose_answer(operation, key)` true: the operation is done, and its answer gets lost.
    """

    def __init__(
        self,
        store: Store,
        *,
        fault: Callable[[str, str], None] = lambda _operation, _key: None,
        lose_answer: Callable[[str, str], Exception | None] = lambda _operation, _key: None,
    ) -> None:
        self._store, self._fault, self._lose = store, fault, lose_answer
        self.read_bytes, self.parallel_reads = store.read_bytes, store.parallel_reads

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def caveats(self) -> Sequence[str]:
        return self._store.caveats

    def list(self, prefix: str) -> list[Entry]:
        self._fault("list", prefix)
        return self._store.list(prefix)

    def read(self, key: str) -> bytes:
        self._fault("read", key)
        return self._store.read(key)

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        self._fault("read", key)
        return self._store.read_into(key, offset, buffers)

    def create(self, key: str, data: bytes) -> bool:
        self._fault("create", key)
        created = self._store.create(key, data)
        if created and (error := self._lose("create", key)) is not None:
            raise error
        return created

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._fault("put", key)
        self._store.put(key, parts)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._fault("delete", key)
            self._store.delete([key])

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        self._fault("list", prefix)
        return self._store.unfinished(prefix)

    def discard(self, what: Unfinished) -> None:
        self._fault("delete", what.key)
        self._store.discard(what)


class FakeClock:
    """Time that passes only when told to, or when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(wall=self._wall, monotonic=lambda: self.seconds, sleep=self.advance)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    def _wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class _Forgetful:
    def __init__(self, part: Stateful) -> None:
        self._part = part

    def state_dict(self) -> Any:
        # A copy: a restore writes into live tensors, and this part shall not be restored.
        return copy.deepcopy(self._part.state_dict())

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over nothing."""


def forget(run: Run, name: str) -> None:
    """Leave one piece of state out when the run resumes, to see that a comparison notices.

    `name` is one that was given to Run, or `rng.python`, `rng.numpy`, `rng.torch`.
    """
    parts = run.state.parts
    parts[name] = _Forgetful(parts[name])
