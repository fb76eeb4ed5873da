"""How long training stands still for an asynchronous save."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import async_save

from checkpoint import states
from checkpoint.measure import Contender, Goal, Measure, Timings, take_turns
from spot_trainer import snapshot as snapshots

OURS, COPY, PINNED = "ours", "copy_ into warm memory", "copy_ into pinned memory"
ROUNDS = 7

State = dict[str, Tensor]


def measure(state: State, folder: Path) -> list[Measure]:
    """`torch.save` has no asynchronous form: its stall is the whole save, without fsync."""
    buffers = snapshots.Buffers()
    warm = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    place = folder / "stall"
    background: list[Future[Any]] = []

    def dcp_async() -> None:
        to = FileSystemWriter(place / "dcp", sync_files=True)
        saving = async_save(state, storage_writer=to)
        assert isinstance(saving, Future)
        background.append(saving)

    def dcp_wait() -> None:
        while background:
            background.pop().result()
        shutil.rmtree(place)

    store = torch._C._distributed_c10d.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        timings = take_turns(
            "visible stall",
            [
                Contender(OURS, lambda: snapshots.take(state, buffers)),
                Contender(COPY, lambda: _copy(state, warm)),
                Contender("DCP async_save", dcp_async, before=place.mkdir, after=dcp_wait),
                Contender(
                    "torch.save",
                    lambda: torch.save(state, place / "state.pt"),
                    before=place.mkdir,
                    after=lambda: shutil.rmtree(place),
                ),
            ],
            rounds=ROUNDS,
        )
    finally:
        dist.destroy_process_group()
    return [_stall("visible stall of an asynchronous save, CPU", timings, Goal("<=", 1.3, COPY))]


def measure_gpu() -> Measure:
    """Until the device may compute again; the copy goes on no longer than that."""
    name, goal = "visible stall of an asynchronous save, GPU", Goal("<=", 1.2, PINNED)
    if not torch.cuda.is_available():
        return Measure(name=name, unit="s", goal=goal, skipped="torch sees no CUDA device")
    state, buffers = states.make("cuda"), snapshots.Buffers()
    pinned = {name: torch.zeros(tensor.shape, pin_memory=True) for name, tensor in state.items()}

    def ours() -> None:
        snapshots.take(state, buffers)
        torch.cuda.synchronize()

    def copy() -> None:
        _copy(state, pinned)
        torch.cuda.synchronize()

    timings = take_turns("stall, GPU", [Contender(OURS, ours), Contender(PINNED, copy)], rounds=ROUNDS)
    return _stall(name, timings, goal)


def _copy(source: State, target: State) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor, non_blocking=True)


def _stall(name: str, timings: Timings, goal: Goal) -> Measure:
    seconds = {each: timings.seconds(each) for each in timings}
    return Measure(
        name=name,
        unit="s",
        value=seconds.pop(OURS),
        against=seconds,
        ratio=timings.seconds_ratio(OURS, goal.peer),
        goal=goal,
    )
