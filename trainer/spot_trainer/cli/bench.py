"""What this machine and this store give, measured with the library's own saves and restores.

Invariant: everything is written below a prefix that nobody else has, which is empty
before and gone afterwards; nothing outside it is listed, written or deleted.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from spot_trainer import snapshot as snapshots
from spot_trainer.checkpoints import Checkpoints, Identity
from spot_trainer.cli.capacity import Sample, typical
from spot_trainer.clock import Clock
from spot_trainer.lineage import ClaimName
from spot_trainer.snapshot import Buffers
from spot_trainer.store import Store, StoreError

PREFIX = "spot-trainer-bench-"
DEFAULT_BYTES = 1 << 30
SMALL_BYTES = 64 * 1024
NUM_SAVES = 3
_TENSOR_BYTES = 64 << 20
_FOLDERS = ("attempts/", "claims/", "quarantine/")
_CREATED = datetime(2020, 1, 1, tzinfo=UTC)


def measure(
    uri: str,
    *,
    num_bytes: int,
    open_store: Callable[[str], Store],
    clock: Clock,
    say: Callable[[str], None] = lambda _text: None,
) -> tuple[Sample, Sample]:
    """A small and a large sample; raises StoreError, or ValueError if the size or the place will not do."""
    if num_bytes < 2 * SMALL_BYTES:
        raise ValueError(f"--size {num_bytes} is too small to measure: take at least {2 * SMALL_BYTES} bytes")
    _refuse_if_too_large(uri, num_bytes)
    with own_place(uri, open_store) as store:
        say(f"saving and restoring {NUM_SAVES} times each in {store.uri}")
        small = typical(list(_samples(store, SMALL_BYTES, 1, clock)))
        return small, typical(list(_samples(store, num_bytes, 2 + NUM_SAVES, clock)))


@contextlib.contextmanager
def own_place(uri: str, open_store: Callable[[str], Store]) -> Iterator[Store]:
    """A fresh prefix below the place, removed at the end; raises ValueError if it is not empty."""
    below = f"{uri.rstrip('/')}/{PREFIX}{secrets.token_hex(8)}"
    made = _missing_folders(below)
    store = open_store(below)
    if any(store.list(folder) for folder in _FOLDERS):
        raise ValueError(f"{below} is not empty: nothing was touched")
    try:
        yield store
    finally:
        _clean(store)
        for folder in made:
            # Only what was absent before and holds nothing now.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _clean(store: Store) -> None:
    """Delete everything below our own prefix."""
    keys = ["run.json", *(entry.key for folder in _FOLDERS for entry in store.list(folder))]
    store.delete(keys)


def _missing_folders(uri: str) -> list[Path]:
    """On a volume: directories that the store will make, the innermost first."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return []
    path = Path(unquote(parts.path))
    made = [path / folder.rstrip("/") for folder in _FOLDERS]
    return [*made, *(each for each in (path, *path.parents) if not each.exists())]


def _refuse_if_too_large(uri: str, num_bytes: int) -> None:
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return
    path = Path(unquote(parts.path))
    while not path.exists():
        path = path.parent
    needed, free = (NUM_SAVES + 1) * num_bytes, shutil.disk_usage(path).free
    if needed > free:
        raise ValueError(f"{path} has {free} bytes free and {needed} are needed: take a smaller --size")


def _samples(store: Store, num_bytes: int, incarnation: int, clock: Clock) -> Iterator[Sample]:
    """The first save, which allocates, is not counted: a run has one of these."""
    state = make_state(num_bytes)
    buffers = Buffers()
    snapshots.check(state, buffers)
    checkpoints = _claimed(store, incarnation, clock)
    checkpoints.find_base()
    for number in range(NUM_SAVES):
        began = clock.monotonic()
        taken = snapshots.take(state, buffers)
        taken.wait()
        stalled = clock.monotonic()
        name = checkpoints.save(taken, step=number + 1, total_steps=None, environment={})
        saved = clock.monotonic()
        reader = _claimed(store, incarnation + number + 1, clock)
        restoring = clock.monotonic()
        loaded = reader.find_base(state)
        restored = clock.monotonic()
        if loaded is None or loaded.name.step != name.step:
            raise ValueError(f"{store.uri} does not give back what was just saved")
        checkpoints = reader
        yield Sample(
            num_bytes=taken.num_bytes,
            stall_seconds=stalled - began,
            save_seconds=saved - began,
            restore_seconds=restored - restoring,
        )


def _claimed(store: Store, incarnation: int, clock: Clock) -> Checkpoints:
    identity = Identity(
        claim=ClaimName.make(_CREATED, "bench", incarnation),
        nonce=secrets.token_hex(8),
        pod_uid="",
        job="bench",
        run_id="bench",
    )
    checkpoints = Checkpoints(store, identity, keep=2, clock=clock, warn=_raise)
    checkpoints.claim()
    return checkpoints


def _raise(message: str) -> None:
    raise StoreError(message)


def make_state(num_bytes: int) -> dict[str, torch.Tensor]:
    """Random bytes, as incompressible as weights are, in tensors of the size of layers."""
    count = math.ceil(num_bytes / _TENSOR_BYTES)
    sizes = [num_bytes * (i + 1) // count - num_bytes * i // count for i in range(count)]
    generator = torch.Generator().manual_seed(0)
    return {
        f"layer{number}": torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
        for number, size in enumerate(sizes)
    }
