"""From a snapshot to the files of an attempt, and back into live tensors.

Each segment of a snapshot becomes one data file; `state.json` holds the tree and says
where each tensor lies. Hashes are taken from memory before anything is written, so that
damage on the way is found as well; while one segment is hashed another one is written.
A load hashes what it has just read, straight into the tensors of the running program
where they fit. Invariant: `write` touches only its own attempt, which nobody reads
before its manifest is published; `load` returns only bytes that match their hashes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import xxhash

from spot_trainer import layout, tree
from spot_trainer import manifest as manifests
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import Damaged, FileRecord, Manifest
from spot_trainer.snapshot import Snapshot, memory
from spot_trainer.store import NotFound, Store

PARALLEL_FILES = 2
"""One is hashed or waits for its fsync while the other is written."""


def folder(attempt: AttemptName) -> str:
    return f"attempts/{attempt}/"


def write(store: Store, attempt: AttemptName, snapshot: Snapshot) -> dict[str, FileRecord]:
    """Write the data files durably and return what the manifest has to say about them."""
    snapshot.wait()
    names = [_data_name(number) for number in range(len(snapshot.segments))]

    def write_segment(name: str, segment: memoryview) -> FileRecord:
        record = FileRecord(len(segment), manifests.content_hash(segment))
        store.put(folder(attempt) + name, [segment])
        return record

    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="spot-write") as pool:
        files = dict(zip(names, pool.map(write_segment, names, snapshot.segments), strict=True))
    index = [
        {
            "file": _data_name(record.place.segment),
            "offset": record.place.offset,
            "dtype": record.dtype,
            "shape": list(record.shape),
        }
        for record in snapshot.tensors
    ]
    text = f'{{"tensors":{json.dumps(index, separators=(",", ":"))},"tree":{snapshot.tree}}}'
    state = text.encode()
    store.put(folder(attempt) + manifests.STATE, [state])
    return files | {manifests.STATE: FileRecord(len(state), manifests.content_hash(state))}


def _data_name(number: int) -> str:
    return f"data-{number:05d}.bin"


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


def load(store: Store, attempt: AttemptName, live: Mapping[str, Any] | None = None) -> Loaded:
    """Read and verify a published attempt; raises Damaged, TooNew, or StoreError other than NotFound.

    Tensors of `live` (a state like the one that was saved) are overwritten in place and are
    part of the result, also when Damaged is raised; where none fits, the result has new ones.
    """
    manifest = read_manifest(store, attempt)
    _check_sizes(store, attempt, manifest)
    state_bytes = store.read(folder(attempt) + manifests.STATE)
    manifests.check_file(manifests.STATE, manifest.files[manifests.STATE], state_bytes)
    state = json.loads(state_bytes)
    targets = _targets(state["tensors"], tree.match(state["tree"], live) if live is not None else {})
    by_file: dict[str, list[tuple[int, torch.Tensor]]] = {name: [] for name in manifest.files}
    del by_file[manifests.STATE]
    for place, target in zip(state["tensors"], targets, strict=True):
        by_file[place["file"]].append((place["offset"], target))
    _read_files(store, attempt, manifest, by_file)
    return Loaded(attempt, manifest, tree.decode(state["tree"], targets))


def _check_sizes(store: Store, attempt: AttemptName, manifest: Manifest) -> None:
    found = {entry.key.removeprefix(folder(attempt)): entry.size for entry in store.list(folder(attempt))}
    for name, record in manifest.files.items():
        if name not in found:
            raise Damaged(f"{name} is missing")
        if found[name] != record.size:
            raise Damaged(f"{name} has {found[name]} bytes instead of {record.size}")


def _targets(index: list[dict[str, Any]], live: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
    """Where each tensor is read to: into a live one if it fits and nothing else is read there."""
    taken: set[int] = set()
    targets = []
    for number, place in enumerate(index):
        dtype, shape = tree.dtype_of(place["dtype"]), tuple(place["shape"])
        tensor = live.get(number)
        fits = (
            tensor is not None
            and tensor.device.type == "cpu"
            and (tensor.dtype, tuple(tensor.shape)) == (dtype, shape)
            and tensor.is_contiguous()
            and tensor.untyped_storage().data_ptr() not in taken
        )
        if fits and tensor is not None:
            taken.add(tensor.untyped_storage().data_ptr())
            targets.append(tensor.detach())
        else:
            targets.append(torch.empty(shape, dtype=dtype))
    return targets


def _read_files(
    store: Store,
    attempt: AttemptName,
    manifest: Manifest,
    by_file: Mapping[str, list[tuple[int, torch.Tensor]]],
) -> None:
    def read(name: str, reads: ThreadPoolExecutor | None) -> None:
        record = manifest.files[name]
        buffers = _buffers(by_file[name], record.size)
        digest = xxhash.xxh3_128()
        for stretch, num_bytes in _read(store, folder(attempt) + name, buffers, reads):
            if num_bytes < stretch.num_bytes:
                raise Damaged(f"{name} ends at {stretch.offset + num_bytes} instead of {record.size} bytes")
            for buffer in stretch.buffers:
                digest.update(buffer)
        if (found := digest.hexdigest()) != record.xxh3_128:
            raise Damaged(f"{name} has content hash {found} instead of {record.xxh3_128}")

    if store.parallel_reads > 1:
        with ThreadPoolExecutor(store.parallel_reads, thread_name_prefix="spot-read") as reads:
            for name in by_file:
                read(name, reads)
        return
    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="spot-read") as pool:
        for _ in pool.map(lambda name: read(name, None), by_file):
            pass


def _buffers(tensors: Iterable[tuple[int, torch.Tensor]], size: int) -> Iterator[memoryview]:
    """Memory for a whole file: the tensors, and something for the gaps between them."""
    end = 0
    for offset, tensor in sorted(tensors, key=lambda each: each[0]):
        if tensor.numel():
            yield memoryview(bytearray(offset - end))
            data = memory(tensor)
            yield data
            end = offset + len(data)
    yield memoryview(bytearray(size - end))


def _read(
    store: Store, key: str, buffers: Iterable[memoryview], pool: ThreadPoolExecutor | None
) -> Iterator[tuple[layout.Stretch, int]]:
    """Fill the buffers; each stretch and the number of bytes that came, in the order of the file."""
    stretches = layout.stretches(buffers, chunk_bytes=store.read_bytes)
    if pool is None:
        for stretch in stretches:
            yield stretch, store.read_into(key, stretch.offset, stretch.buffers)
        return
    ahead: deque[tuple[layout.Stretch, Future[int]]] = deque()
    for stretch in stretches:
        ahead.append((stretch, pool.submit(store.read_into, key, stretch.offset, stretch.buffers)))
        if len(ahead) == 2 * store.parallel_reads:
            first, reading = ahead.popleft()
            yield first, reading.result()
    for first, reading in ahead:
        yield first, reading.result()
