"""What the checkpoint protocol needs of a place to keep bytes, and no more.

A few operations on keys below one root. Invariants that every implementation must keep:
`create` lets exactly one of many callers win and never shows a partial object; when
`put` or `create` has returned, the bytes survive the loss of the machine; `list` shows
everything that was created before the call. Nothing relies on the order of a listing or
on two clocks agreeing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import unquote, urlsplit

from spot_trainer.contract import OutcomeReason

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Entry:
    """One object in a listing."""

    key: str
    size: int
    modified: datetime
    """By the store's clock; only compared with other times of the same store."""


@dataclass(frozen=True)
class Unfinished:
    """What a write that did not end has left behind; no listing shows it."""

    key: str
    handle: str
    """For `discard`."""
    modified: datetime


class StoreError(Exception):
    """A store operation did not succeed."""


class StoreUnavailable(StoreError):
    """The store may come back: trying again later makes sense."""


class StoreFull(StoreUnavailable):
    """There is no room: it helps to delete something, or to wait until somebody else does."""


class NotFound(StoreError):
    """There is no object with this key."""


class StoreRefused(StoreError):
    """The store will answer the same until a person changes something."""

    def __init__(self, reason: OutcomeReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Store(Protocol):
    """Objects by key below one root; every method raises StoreError only."""

    read_bytes: int
    """How much to ask for in one `read_into`."""
    parallel_reads: int
    """How many reads at once make sense."""
    caveats: Sequence[str]
    """What this place was seen to lack and can be used without; known after the first writes."""

    @property
    def uri(self) -> str:
        """Where the root is, for people."""

    def list(self, prefix: str) -> list[Entry]:
        """All objects whose key begins with prefix (a folder that ends in a slash), in no order."""

    def read(self, key: str) -> bytes:
        """The whole object; raises NotFound."""

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Fill the buffers one after the other with what lies at the offset; raises NotFound.

        Returns the number of bytes; fewer than the buffers hold: the object ends there. Thread-safe.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Create the object atomically and durably; False if it exists already."""

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Write the object durably, replacing what was there."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete the objects in the order given; absent ones are fine."""

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        """Writes below the prefix that have not ended; they may still be going on."""

    def discard(self, what: Unfinished) -> None:
        """Remove what an unfinished write has left; one that goes on will fail."""


def create_ours(store: Store, key: str, data: bytes) -> bool:
    """Create exclusively; an object that is there with exactly our bytes is our own lost answer.

    `data` must contain something unique to this process, such as a nonce.
    """
    try:
        created = store.create(key, data)
    except StoreUnavailable:
        # It may have been created all the same; asking again settles it.
        created = store.create(key, data)
    return created or store.read(key) == data


def open_store(uri: str) -> Store:
    """The store for file:///path or s3://bucket/prefix; raises ValueError for anything else."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        from spot_trainer.store.local import LocalStore

        return LocalStore(unquote(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        # boto3 takes half a second to import, which a run on a volume need not pay.
        from spot_trainer.store.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"))
    raise ValueError(f"{uri!r} is not a place for checkpoints: use file:///path or s3://bucket/prefix")
