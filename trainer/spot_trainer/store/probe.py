"""Does this place do what the protocol relies on? Asked before anything of the run is written.

There are servers that accept `If-None-Match` and ignore it, and file systems whose hard links
replace what is there: on both, two processes would each believe that they own the run, and
nothing would say so until a checkpoint is gone. Invariant: a probe touches only objects of its
own below `probe/`, and leaves none behind.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from spot_trainer.contract import OutcomeReason
from spot_trainer.store import Store, StoreError, StoreRefused, create_ours

FOLDER = "probe/"

ABANDONED = timedelta(hours=1)
"""A probe takes seconds; older objects are of processes that died in the middle."""


def probe(store: Store) -> Sequence[str]:
    """What the store lacks and a run can do without, a sentence each; raises StoreRefused for the rest.

    Tried are exclusive creation, replacement, and that a listing shows what was just written;
    flushing to the disk and renaming are part of the writes of a volume.
    """
    nonce = secrets.token_hex(8)
    created, replaced = f"{FOLDER}{nonce}", f"{FOLDER}{nonce}.replaced"
    first, second = f"first {nonce}".encode(), f"the second {nonce}".encode()
    # First, because some servers create an absent bucket when something is written to it.
    store.list(FOLDER)
    try:
        is_first = create_ours(store, created, first)
        if not is_first or store.create(created, second) or store.read(created) != first:
            raise _unsupported(
                store,
                "one object could be created twice, so that two processes could both believe they own the "
                "run; use a server that honours PUT with If-None-Match: *, or a file system whose hard links "
                "are exclusive",
            )
        store.put(replaced, [first])
        store.put(replaced, [second])
        if store.read(replaced) != second:
            raise _unsupported(store, "an object that was replaced reads as it was before")
        found = {entry.key: entry for entry in store.list(FOLDER)}
        if not {created, replaced} <= found.keys() or found[replaced].size != len(second):
            raise _unsupported(
                store,
                "a listing does not show what was just written, so that the newest checkpoint could be "
                "missed; use a store whose listings are consistent",
            )
        now = found[replaced].modified
        store.delete(key for key, entry in found.items() if entry.modified < now - ABANDONED)
    finally:
        # Whatever went wrong before is the error to tell; these few bytes do no harm.
        with contextlib.suppress(StoreError):
            store.delete([created, replaced])
    return store.caveats


def _unsupported(store: Store, why: str) -> StoreRefused:
    return StoreRefused(OutcomeReason.STORE_UNSUPPORTED, f"{store.uri}: {why}")
