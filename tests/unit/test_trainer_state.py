"""State goes to bytes and back without losing a bit, and damage never passes."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spot_trainer import compare, manifest, snapshot, writer
from spot_trainer.data import ShuffledSampler
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import Damaged, Manifest, TooNew
from spot_trainer.state import Incompatible, State, Values
from spot_trainer.testing import MemoryStore

NAME = AttemptName.make(5, 1, "0123456789abcdef", 1)
SAMPLES: dict[str, Any] = {
    "tensors": [
        torch.randn(3, 4),
        torch.randn(3, 4).t(),
        torch.tensor(float("nan")),
        torch.tensor(-0.0),
        torch.empty(0, 3),
        torch.randn(2).to(torch.bfloat16),
        torch.tensor([True, False]),
        torch.arange(3, dtype=torch.uint8),
        torch.tensor([1 + 2j]),
    ],
    "scalars": [None, True, 0, -(2**80), 1.5, -0.0, float("inf"), float("-inf"), "tätä", b"\x00\xff"],
    "nested": {1: (1, [2, {"a": ()}]), (1, 2): "tuple key", None: 0, False: 1.0},
    "ordered": OrderedDict(b=1, a=2),
    "counter": Counter({3: 2}),
    "arrays": [np.arange(6).reshape(2, 3), np.float32(1.5), np.array(2.0), np.zeros(0)],
    "torch": [torch.Size([1, 2]), torch.float16, torch.device("cpu")],
    "set": {1, 2},
}


def make_manifest(store: MemoryStore, files: dict[str, manifest.FileRecord]) -> None:
    record = Manifest(
        attempt=str(NAME),
        claim="c",
        run_id="r",
        step=5,
        total_steps=9,
        incarnation=1,
        created="2026-12-01T00:00:00Z",
        files=files,
    )
    store.create(writer.folder(NAME) + manifest.MANIFEST, record.to_bytes())


def saved(state: dict[str, Any]) -> MemoryStore:
    store = MemoryStore()
    make_manifest(store, writer.write(store, NAME, snapshot.take(state)))
    return store


def test_every_supported_type_comes_back_bit_for_bit() -> None:
    loaded = writer.load(saved(SAMPLES), NAME).state
    assert list(compare.differences(SAMPLES, loaded)) == []
    assert type(loaded["ordered"]) is OrderedDict
    assert type(loaded["counter"]) is Counter


def test_a_snapshot_does_not_see_later_changes() -> None:
    live = {"weight": torch.zeros(4)}
    taken = snapshot.take(live)
    live["weight"].fill_(1)
    assert bytes(taken.segments[0]) == bytes(16)


def test_module_versions_survive() -> None:
    state = torch.nn.BatchNorm1d(3).state_dict()
    loaded = writer.load(saved({"model": state}), NAME).state["model"]
    assert loaded._metadata == state._metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [object(), lambda: 0, np.array(["text"]), torch.eye(2).to_sparse()])
def test_what_cannot_be_kept_is_refused_with_its_path(value: object) -> None:
    with pytest.raises(TypeError, match=r"^state\.ema\.inner\[1\]"):
        snapshot.check({"ema": {"inner": [0, value]}})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_detected(data: st.DataObject) -> None:
    store = saved({"weight": torch.arange(40.0), "note": "x" * 50})
    key = data.draw(st.sampled_from(sorted(store.objects)))
    content = bytearray(store.objects[key])
    kind = data.draw(st.sampled_from(["flip", "cut", "zero tail", "longer", "missing"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[place:]
    elif kind == "zero tail":
        content[place:] = bytes(len(content) - place)
    else:
        content += b"\0"
    if content == store.objects[key]:
        return
    store.objects[key] = bytes(content)
    if kind == "missing":
        del store.objects[key]
    with pytest.raises(Damaged):
        writer.load(store, NAME)


def test_a_manifest_of_another_attempt_is_damage() -> None:
    store = saved({"a": 1})
    other = AttemptName.make(6, 1, "0123456789abcdef", 2)
    for key in list(store.objects):
        store.objects[key.replace(str(NAME), str(other))] = store.objects[key]
    with pytest.raises(Damaged, match="belongs to"):
        writer.load(store, other)


def test_a_newer_format_is_refused_and_not_taken_for_damage() -> None:
    store = MemoryStore()
    record = Manifest(
        attempt=str(NAME), claim="c", run_id="r", step=5, total_steps=None, incarnation=1,
        created="", files={}, format_version=2,
    )  # fmt: skip
    store.create(writer.folder(NAME) + manifest.MANIFEST, record.to_bytes())
    with pytest.raises(TooNew, match="install a newer one"):
        writer.load(store, NAME)


def test_a_missing_or_unknown_piece_of_state_is_never_ignored() -> None:
    state = State({"values": Values(a=1)})
    complete = state.capture()
    for saved_state in (complete | {"ema": {}}, {k: v for k, v in complete.items() if k != "values"}):
        with pytest.raises(Incompatible):
            state.restore(saved_state)


def test_an_object_that_cannot_load_is_named() -> None:
    saved_state = State({"model": torch.nn.Linear(2, 2)}).capture()
    with pytest.raises(Incompatible, match=r"(?s)^model: RuntimeError: .*size mismatch"):
        State({"model": torch.nn.Linear(3, 2)}).restore(saved_state)


@pytest.mark.parametrize(("now", "restored"), [(0, []), (1, [0]), (2, [0, 1]), (4, [0, 1])])
def test_more_or_fewer_devices_get_the_generators_that_both_have(
    now: int, restored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_state = State({}).capture() | {"rng.cuda": [torch.tensor([0]), torch.tensor([1])]}
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: now)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda saved, device: found.append((int(saved), device)))
    State({}).restore(saved_state)
    assert found == [(device, device) for device in restored]


def test_plain_values_need_the_wrapper() -> None:
    with pytest.raises(TypeError, match=r"best=float has no state_dict.*best=spot_trainer\.Values"):
        State({"best": 1.0})


def test_generators_are_set_again_just_before_the_first_step() -> None:
    state = State({})
    captured = snapshot.take(state.capture())
    want = (random.random(), float(np.random.random()), float(torch.rand(())))
    store = MemoryStore()
    make_manifest(store, writer.write(store, NAME, captured))
    state.restore(writer.load(store, NAME).state)
    random.random(), np.random.random(), torch.rand(3)
    state.settle_generators()
    assert (random.random(), float(np.random.random()), float(torch.rand(()))) == want


def test_the_order_of_samples_is_entered_at_the_position() -> None:
    whole, resumed = ShuffledSampler(100, seed=3), ShuffledSampler(100, seed=3)
    order = list(whole)
    assert sorted(order) == list(range(100))
    whole.consume(37)
    resumed.load_state_dict(whole.state_dict())
    assert list(resumed) == order[37:]
    assert resumed.consume(10) == order[37:47]
    whole.consume(10)
    assert resumed.digest == whole.digest


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    sampler = ShuffledSampler(50, seed=1)
    first = list(sampler)
    sampler.start_epoch(1)
    assert list(sampler) != first
    assert list(ShuffledSampler(50, seed=2)) != first


def test_a_sampler_refuses_the_state_of_another_data_set() -> None:
    with pytest.raises(ValueError, match="num_samples was 10 and is 11"):
        ShuffledSampler(11).load_state_dict(ShuffledSampler(10).state_dict())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (0.0, -0.0),
        (1, 1.0),
        ([1], (1,)),
        ({"a": 1}, {}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.zeros(1), np.ones(1)),
    ],
)
def test_the_comparison_sees_every_difference(a: object, b: object) -> None:
    assert len(list(compare.differences({"x": a}, {"x": b}))) == 1


def test_the_comparison_takes_nan_for_equal_to_itself() -> None:
    a, b = ({"x": torch.tensor([float("nan")]), "y": float("nan")} for _ in range(2))
    assert list(compare.differences(a, b)) == []


@pytest.mark.parametrize(("drop_last", "want"), [(False, (0, 8)), (True, (1, 0))])
def test_the_last_step_of_an_epoch_moves_on_to_the_next(drop_last: bool, want: tuple[int, int]) -> None:
    sampler = ShuffledSampler(10)
    sampler.consume(4, drop_last=drop_last)
    sampler.consume(4, drop_last=drop_last)
    assert (sampler.epoch, sampler.position) == want
