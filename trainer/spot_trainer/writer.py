"""From a snapshot to the files of an attempt, and back.

Tensors go one after the other into data files of about 256 MiB; `state.json` holds the
tree and says where each tensor lies. Hashes are taken from the snapshot in memory, not
from what was written, so that damage on the way is found as well. Invariant: `write`
touches only its own attempt, which nobody reads before its manifest is published.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import xxhash

from spot_trainer import manifest as manifests
from spot_trainer import tree
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import Damaged, FileRecord, Manifest
from spot_trainer.snapshot import HostTensor, Snapshot
from spot_trainer.store import NotFound, Store

SEGMENT_BYTES = 256 * 1024 * 1024
"""A data file is closed when it has reached this size; one tensor is never split."""


def folder(attempt: AttemptName) -> str:
    return f"attempts/{attempt}/"


def write(store: Store, attempt: AttemptName, snapshot: Snapshot) -> dict[str, FileRecord]:
    """Write the data files durably and return what the manifest has to say about them."""
    files: dict[str, FileRecord] = {}
    index: list[dict[str, Any]] = []
    for number, segment in enumerate(_segments(snapshot.tensors)):
        name = f"data-{number:05d}.bin"
        digest, offset = xxhash.xxh3_128(), 0
        for tensor in segment:
            place = {"file": name, "offset": offset, "dtype": tensor.dtype, "shape": list(tensor.shape)}
            index.append(place)
            digest.update(tensor.data)
            offset += tensor.data.nbytes
        store.put(folder(attempt) + name, [tensor.data for tensor in segment])
        files[name] = FileRecord(offset, digest.hexdigest())
    state = json.dumps({"tensors": index, "tree": snapshot.tree}, separators=(",", ":")).encode()
    store.put(folder(attempt) + manifests.STATE, [state])
    files[manifests.STATE] = FileRecord(len(state), manifests.content_hash(state))
    return files


def _segments(tensors: tuple[HostTensor, ...]) -> Iterator[list[HostTensor]]:
    segment: list[HostTensor] = []
    size = 0
    for tensor in tensors:
        segment.append(tensor)
        size += tensor.data.nbytes
        if size >= SEGMENT_BYTES:
            yield segment
            segment, size = [], 0
    if segment:
        yield segment


@dataclass(frozen=True)
class Loaded:
    """A checkpoint whose every byte was verified."""

    name: AttemptName
    manifest: Manifest
    state: dict[str, Any]


def read_manifest(store: Store, attempt: AttemptName) -> Manifest:
    """Raises Damaged, TooNew, or StoreError other than NotFound."""
    try:
        data = store.read(folder(attempt) + manifests.MANIFEST)
    except NotFound:
        raise Damaged(f"{manifests.MANIFEST} is missing") from None
    return manifests.parse(data, attempt)


def load(store: Store, attempt: AttemptName) -> Loaded:
    """Read and verify a published attempt; raises Damaged, TooNew, or StoreError other than NotFound."""
    manifest = read_manifest(store, attempt)
    files = {name: _read_verified(store, attempt, name, record) for name, record in manifest.files.items()}
    state = json.loads(files.pop(manifests.STATE))
    tensors = [_tensor(place, files[place["file"]]) for place in state["tensors"]]
    return Loaded(attempt, manifest, tree.decode(state["tree"], tensors))


def _read_verified(store: Store, attempt: AttemptName, name: str, record: FileRecord) -> bytearray:
    try:
        data = store.read(folder(attempt) + name)
    except NotFound:
        raise Damaged(f"{name} is missing") from None
    manifests.check_file(name, record, data)
    return bytearray(data)


def _tensor(place: dict[str, Any], data: bytearray) -> torch.Tensor:
    dtype, shape = tree.dtype_of(place["dtype"]), place["shape"]
    empty = torch.empty(shape, dtype=dtype)
    if not empty.numel():
        return empty
    size = empty.numel() * empty.element_size()
    # The copy gives each tensor aligned memory of its own: an optimizer keeps what it is given.
    raw = torch.frombuffer(data, dtype=torch.uint8, count=size, offset=place["offset"]).clone()
    return raw.view(dtype).reshape(shape)
