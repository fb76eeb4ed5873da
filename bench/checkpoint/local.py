"""Local disk: how fast a save becomes durable, and how fast it is back.

Everybody writes the same tensors to the same volume and ends with fsync; what a peer leaves
unsynced is synced for it. Restores read from the page cache, and end with the bytes in the
tensors of the running program wherever the peer has a way to do that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from checkpoint.measure import Contender, Goal, Measure, rate_measures, take_turns
from spot_trainer import snapshot as snapshots
from spot_trainer import writer
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import MANIFEST, Manifest
from spot_trainer.store.local import LocalStore

OURS, RAW = "ours", "raw write + fsync"
TORCH_SAVE, TORCH_LOAD = "torch.save + fsync", "torch.load"
WRITER_THREADS = 2
ROUNDS = 5
ATTEMPT = AttemptName.make(1, 1, "0" * 16, 1)

State = dict[str, Tensor]


def measure_save(state: State, snapshot: snapshots.Snapshot, folder: Path) -> list[Measure]:
    place = folder / "save"

    def contender(name: str, run: Callable[[Path], object]) -> Contender:
        return Contender(name, lambda: run(place), before=place.mkdir, after=lambda: shutil.rmtree(place))

    def ours(place: Path) -> None:
        writer.write(LocalStore(place), ATTEMPT, snapshot)

    def raw(place: Path) -> None:
        with open(place / "raw", "wb", buffering=0) as file:
            for segment in snapshot.segments:
                left = segment
                while left:
                    left = left[file.write(left) :]
            os.fsync(file.fileno())
        _sync(place)

    timings = take_turns(
        "durable local save",
        [
            contender(OURS, ours),
            contender(RAW, raw),
            contender(TORCH_SAVE, lambda place: _torch_save(state, place)),
            contender("safetensors save_file + fsync", lambda place: _safetensors_save(state, place)),
            contender("DCP save (fsync)", lambda place: _dcp_save(state, place)),
        ],
        rounds=ROUNDS,
    )
    goals = [Goal(">=", 0.9, RAW), Goal(">=", 1.3, TORCH_SAVE)]
    return rate_measures("durable local save", timings, snapshot.num_bytes, OURS, goals, {})


def measure_restore(state: State, snapshot: snapshots.Snapshot, folder: Path) -> list[Measure]:
    place = folder / "restore"
    for name in ("ours", "torch", "safetensors", "dcp"):
        (place / name).mkdir(parents=True)
    store = LocalStore(place / "ours")
    publish(store, snapshot)
    _torch_save(state, place / "torch")
    _safetensors_save(state, place / "safetensors")
    _dcp_save(state, place / "dcp")
    live = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    def ours() -> None:
        writer.load(store, ATTEMPT, live)

    def copied(loaded: State) -> None:
        for name, tensor in live.items():
            tensor.copy_(loaded[name])

    ours()
    if not all(torch.equal(live[name], tensor) for name, tensor in state.items()):
        raise RuntimeError("the restore differs from what was saved")
    file = place / "torch" / "state.pt"
    timings = take_turns(
        "verified restore",
        [
            Contender(OURS, ours),
            # Its result is a second copy of the state, which a training script still has to copy in.
            Contender(TORCH_LOAD, lambda: torch.load(file)),
            Contender("torch.load(mmap=True) + copy_", lambda: copied(torch.load(file, mmap=True))),
            Contender(
                "safetensors load_file + copy_",
                lambda: copied(safetensors.torch.load_file(place / "safetensors" / "state")),
            ),
            Contender("DCP load", lambda: load(dict(live), checkpoint_id=place / "dcp", no_dist=True)),
        ],
        rounds=ROUNDS,
    )
    shutil.rmtree(place)
    goals = [Goal(">=", 2, TORCH_LOAD)]
    return rate_measures("verified restore, page cache", timings, snapshot.num_bytes, OURS, goals, {})


def publish(store: LocalStore, snapshot: snapshots.Snapshot) -> None:
    files = writer.write(store, ATTEMPT, snapshot)
    manifest = Manifest(
        attempt=str(ATTEMPT), claim="bench", run_id="bench", step=ATTEMPT.step, total_steps=None,
        incarnation=1, created="", files=files,
    )  # fmt: skip
    store.create(writer.folder(ATTEMPT) + MANIFEST, manifest.to_bytes())


def _torch_save(state: State, place: Path) -> None:
    with open(place / "state.pt", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    _sync(place)


def _safetensors_save(state: State, place: Path) -> None:
    safetensors.torch.save_file(state, place / "state")
    _sync(place / "state")
    _sync(place)


def _dcp_save(state: dict[str, Any], place: Path) -> None:
    to = FileSystemWriter(place, sync_files=True, thread_count=WRITER_THREADS)
    save(state, storage_writer=to, no_dist=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
