"""On a GPU: bitwise resumption with everything that lives there, and the snapshot's ordering and cost.

Skipped with a reason where there is none; `make bench-checkpoint` has the stall in numbers.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
import torch

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer import snapshot as snapshots
from spot_trainer.notice import LISTENER
from spot_trainer.store import Store
from spot_trainer.testing import MemoryStore, forget

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

STEPS = 12
STALL_LIMIT = 1.2
"""Of a pinned copy from the device to the host; the goal of `make bench-checkpoint`."""


class Killed(BaseException):
    """The process is gone."""


def train(
    store: Store,
    *,
    stop_at: int | None = None,
    kill_at: int | None = None,
    forgotten: str | None = None,
    in_background: bool = True,
) -> None:
    """Mixed precision with a scaler, dropout on the device, a compiled-size model; one process of a run."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.BatchNorm1d(256), torch.nn.Dropout(0.4), torch.nn.Linear(256, 1)
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**8, growth_interval=3)
    average = torch.optim.swa_utils.AveragedModel(model)
    run = spot.Run(
        checkpoint=store,
        interval_seconds=1e-3,
        save_in_background=in_background,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
        average=average,
    )
    if forgotten is not None:
        forget(run, forgotten)
    with run:
        for step in run.steps(STEPS):
            inputs = torch.randn(32, 64, device="cuda")
            optimizer.zero_grad()
            with torch.autocast("cuda"):
                loss = model(inputs).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            average.update_parameters(model)
            if step == stop_at:
                LISTENER.request()
            if step == kill_at:
                raise Killed
            run.step_done(loss=loss.item())


def final_state(store: Store) -> Any:
    return compare.final_checkpoint(store).state


def interrupted(**first: Any) -> MemoryStore:
    store = MemoryStore()
    forgotten = first.pop("forgotten", None)
    try:
        train(store, **first)
    except (SystemExit, Killed):
        LISTENER.remove()
    torch.cuda.manual_seed_all(77)  # another process begins with other numbers
    train(store, forgotten=forgotten)
    return store


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("in_background", [True, False])
@pytest.mark.parametrize("first", [{"stop_at": 5}, {"kill_at": 7}])
def test_an_interrupted_run_equals_the_uninterrupted_one(first: dict[str, int], in_background: bool) -> None:
    reference = MemoryStore()
    train(reference)
    found = interrupted(**first, in_background=in_background)
    assert list(compare.differences(final_state(reference), final_state(found))) == []


@pytest.mark.parametrize("name", ["rng.cuda", "scaler", "average", "optimizer"])
def test_what_is_left_out_makes_a_difference(name: str) -> None:
    reference = MemoryStore()
    train(reference)
    found = interrupted(stop_at=5, forgotten=name)
    assert list(compare.differences(final_state(reference), final_state(found))) != []


def test_a_snapshot_holds_what_was_there_although_training_goes_on() -> None:
    """The copy is on a stream of its own: it waits for what was queued, and what follows waits for it."""
    buffers = snapshots.Buffers()
    tensor = torch.zeros(64 * 1024 * 1024, device="cuda")
    for number in range(5):
        torch.cuda._sleep(50_000_000)  # keeps the device busy before the value is written
        tensor.fill_(number)
        taken = snapshots.take({"x": tensor}, buffers)
        tensor.fill_(-1.0)
        taken.wait()
        found = torch.frombuffer(taken.segments[0], dtype=torch.float32)
        assert found.eq(number).all()


def test_the_stall_is_about_one_pinned_copy() -> None:
    state = {str(n): torch.randn(16 * 1024 * 1024, device="cuda") for n in range(16)}  # 1 GiB
    pinned = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in state.values()]
    buffers = snapshots.Buffers()
    ours, copies = [], []
    for _ in range(7):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for target, source in zip(pinned, state.values(), strict=True):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        copies.append(time.perf_counter() - began)
        began = time.perf_counter()
        taken = snapshots.take(state, buffers)
        torch.cuda.synchronize()
        ours.append(time.perf_counter() - began)
        taken.wait()
    assert statistics.median(ours[2:]) <= STALL_LIMIT * statistics.median(copies[2:])
