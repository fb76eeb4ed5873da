"""Whatever a script trains with, any sequence of stops and kills equals the run that had none."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer.notice import LISTENER
from spot_trainer.store import Store
from spot_trainer.testing import MemoryStore, forget

SAMPLES, BATCH, EPOCHS = 22, 4, 2
TOTAL = EPOCHS * 6


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Augmented(Dataset[torch.Tensor]):
    """Each sample gets noise from every kind of generator, as augmentation does."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + float(np.random.random()) + torch.rand(()).item()
        return torch.full((5,), float(index)) / SAMPLES + noise / 10


class Average:
    """Weights averaged over the steps, as many scripts write it by hand."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    def state_dict(self) -> Any:
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.model.load_state_dict(state_dict)


class Script:
    """A training script in one of its flavours."""

    def __init__(self, flavour: str, num_workers: int, store: Store) -> None:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        self.flavour = flavour
        self.saves_now = False
        self.model: Any = torch.nn.Sequential(
            torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Dropout(0.3), torch.nn.Linear(7, 1)
        )
        self.net = torch.compile(self.model, backend="eager") if flavour == "compile" else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.02)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.05, total_steps=TOTAL)
        self.sampler = spot.ShuffledSampler(SAMPLES, seed=5)
        self.loader = DataLoader(Augmented(), batch_size=BATCH, sampler=self.sampler, num_workers=num_workers)
        state: dict[str, Any] = {}
        if flavour == "scaler":
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=3)
            state["scaler"] = self.scaler
        if flavour == "average":
            self.average = Average(self.model)
            self.swa = torch.optim.swa_utils.AveragedModel(self.model)
            state |= {"average": self.average, "swa": self.swa}
        if flavour == "generator":
            self.numpy = np.random.default_rng(8)
            state["numpy"] = spot.Values(state=None)
            self.kept = state["numpy"]
        self.run = spot.Run(
            checkpoint=store,
            save_in_background=False,
            interval_seconds=1e9,
            model=self.net,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            sampler=self.sampler,
            **state,
        )

    def train(self, before_step_done: Callable[[Script], None]) -> None:
        with self.run:
            if self.flavour == "generator" and self.kept.state is not None:
                self.numpy.bit_generator.state = self.kept.state
            for batch in self.run.batches(self.loader, epochs=EPOCHS):
                loss = self.step(batch)
                before_step_done(self)
                self.run.step_done(loss=loss)
                if self.saves_now:
                    self.saves_now = False
                    self.run.save()

    def step(self, batch: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        pieces = batch.chunk(2) if self.flavour == "accumulation" and len(batch) > 3 else [batch]
        total = 0.0
        for piece in pieces:
            loss = self.net(piece).square().mean() / len(pieces)
            if self.flavour == "generator":
                loss = loss * (1 + float(self.numpy.random()))
            (self.scaler.scale(loss) if self.flavour == "scaler" else loss).backward()
            total += loss.item()
        if self.flavour == "scaler":
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.scheduler.step()
        if self.flavour == "average":
            self.average.update(self.model)
            self.swa.update_parameters(self.model)
        if self.flavour == "generator":
            self.kept.state = self.numpy.bit_generator.state
        return total


FLAVOURS = ["plain", "scaler", "average", "compile", "accumulation", "generator"]


def final_state(store: Store) -> Any:
    return compare.final_checkpoint(store).state


def interrupted(flavour: str, num_workers: int, seed: int) -> MemoryStore:
    """Processes that are stopped, killed at once, or killed some steps after a save, until one ends."""
    source, store = random.Random(seed), MemoryStore()
    for _ in range(3):
        script = Script(flavour, num_workers, store)
        steps_to_go, how = source.randint(1, 4), source.choice(["stop", "kill", "save, then kill"])
        # The first step of this process is one more than what it resumes.
        seen = 0

        def fate(script: Script, how: str = how, steps_to_go: int = steps_to_go) -> None:
            nonlocal seen
            seen += 1
            if how == "stop" and seen == steps_to_go:
                LISTENER.request()
            if how == "save, then kill" and seen == steps_to_go and seen > 1:
                script.saves_now = True
            if how != "stop" and seen == steps_to_go + (how != "kill"):
                raise Killed

        state = (random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state())
        try:
            script.train(fate)
        except (SystemExit, Killed):
            LISTENER.remove()
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
    Script(flavour, num_workers, store).train(lambda _script: None)
    return store


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_any_sequence_of_stops_and_kills_equals_the_uninterrupted_run(flavour: str, num_workers: int) -> None:
    store = MemoryStore()
    Script(flavour, num_workers, store).train(lambda _script: None)
    for seed in range(2 if num_workers else 6):
        found = interrupted(flavour, num_workers, seed)
        assert list(compare.differences(final_state(store), final_state(found))) == [], seed


@pytest.mark.parametrize(
    ("flavour", "name"),
    [
        ("plain", "model"),
        ("plain", "optimizer"),
        ("plain", "scheduler"),
        ("scaler", "scaler"),
        ("average", "average"),
        ("average", "swa"),
        ("generator", "numpy"),
        ("plain", "rng.torch"),
        ("plain", "rng.python"),
        ("plain", "rng.numpy"),
    ],
)
def test_what_is_left_out_makes_a_difference(flavour: str, name: str) -> None:
    reference, store = MemoryStore(), MemoryStore()
    Script(flavour, 0, reference).train(lambda _script: None)

    def stop(script: Script) -> None:
        if script.run.step == 7:
            LISTENER.request()

    with pytest.raises(SystemExit):
        Script(flavour, 0, store).train(stop)
    script = Script(flavour, 0, store)
    forget(script.run, name)
    script.train(lambda _script: None)
    assert list(compare.differences(final_state(reference), final_state(store))) != []


class Reader:
    """A loader that keeps its own position, as torchdata's StatefulDataLoader does."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.position += 1
            yield torch.full((BATCH, 5), 1 / self.position)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.position = state_dict["position"]


def read_through(store: Store, *, killed_at: int | None = None, stopped_at: int | None = None) -> None:
    torch.manual_seed(4)
    model, reader = torch.nn.Linear(5, 1), Reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = spot.Run(
        checkpoint=store,
        save_in_background=False,
        interval_seconds=1e-9,
        model=model,
        optimizer=optimizer,
        reader=reader,
    )
    with run:
        for step, batch in zip(run.steps(9), reader, strict=False):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == killed_at:
                raise Killed
            if step == stopped_at:
                LISTENER.request()
            run.step_done()


@pytest.mark.parametrize("how", [{"killed_at": 4}, {"stopped_at": 4}])
def test_a_loader_with_a_state_of_its_own_goes_on_where_it_was(how: dict[str, int]) -> None:
    reference, store = MemoryStore(), MemoryStore()
    read_through(reference)
    with pytest.raises((SystemExit, Killed)):
        read_through(store, **how)
    LISTENER.remove()
    read_through(store)
    assert list(compare.differences(final_state(reference), final_state(store))) == []
