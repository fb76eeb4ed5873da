"""`inspect`, `compare` and `history` say what lies in a store, to people and to programs."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer.cli import app, inspection, quantities, tables
from spot_trainer.store import Store
from spot_trainer.store.local import LocalStore
from spot_trainer.testing import FakeClock, MemoryStore

STEPS = 4


def train(store: Store, *, steps: int = STEPS, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    run = spot.Run(checkpoint=store, save_in_background=False, model=model)
    with run:
        for step in run.steps(steps):
            with torch.no_grad():
                model.weight += step
            run.step_done(loss=float(step))
            if run.step % 2 == 0:
                run.save()


@pytest.fixture
def finished(capsys: pytest.CaptureFixture[str]) -> MemoryStore:
    store = MemoryStore()
    train(store)
    capsys.readouterr()
    return store


def call(*arguments: str, **stores: Store) -> int:
    return app.run(arguments, app.Surroundings(lambda uri: stores[uri], FakeClock().clock))


def flip(store: MemoryStore, number: int = -1) -> str:
    name = compare.published(store)[number]
    key = f"attempts/{name}/data-00000.bin"
    content = bytearray(store.objects[key])
    content[3] ^= 1
    store.objects[key] = bytes(content)
    return str(name)


def test_a_sound_store_is_valid(finished: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "a", a=finished) == 0
    lines = capsys.readouterr().out.splitlines()
    attempts = [line for line in lines if line.startswith("attempts/")]
    assert [("  valid  " in line, "lineage" in line) for line in attempts] == [(True, True)] * 2
    assert attempts[-1].endswith("lineage, next to resume")
    assert any(line.startswith("claims/") for line in lines)
    assert any(line.startswith('final.json  {"checkpoint"') for line in lines)


def test_a_finished_run_on_a_volume_can_be_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(LocalStore(tmp_path))
    capsys.readouterr()
    assert app.run(["inspect", tmp_path.as_uri()]) == 0
    assert "\nfinal.json  {" in capsys.readouterr().out


def test_a_flipped_bit_is_found_by_a_deep_look_only(
    finished: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    name = flip(finished)
    assert call("inspect", "a", a=finished) == 0
    assert call("inspect", "--deep", "a", a=finished) == 1
    assert f"attempts/{name}  DAMAGED  data-00000.bin has content hash" in capsys.readouterr().out


def test_what_is_cut_or_missing_is_found_without_reading(finished: MemoryStore) -> None:
    first, last = compare.published(finished)
    finished.objects[f"attempts/{last}/data-00000.bin"] += b"x"
    del finished.objects[f"attempts/{first}/state.json"]
    found = inspection.inspect(finished, is_deep=False)
    assert [row.reason for row in found.checkpoints] == [
        "state.json is missing",
        f"data-00000.bin has {found_size(finished, last)} bytes instead of {found_size(finished, last) - 1}",
    ]


def found_size(store: MemoryStore, name: object) -> int:
    return len(store.objects[f"attempts/{name}/data-00000.bin"])


def test_quarantine_moves_the_next_resume_to_the_checkpoint_before(finished: MemoryStore) -> None:
    first, last = compare.published(finished)
    finished.objects[f"quarantine/{last}.json"] = b"{}"
    finished._times[f"quarantine/{last}.json"] = finished._now
    rows = inspection.inspect(finished, is_deep=False).checkpoints
    assert [(row.name, row.is_quarantined, row.is_next) for row in rows] == [
        (first, False, True),
        (last, True, False),
    ]


def test_what_no_claim_builds_on_is_a_dead_end(finished: MemoryStore) -> None:
    first, last = compare.published(finished)
    claim = "20300101T000000Z-job-00000001"
    finished.put(f"claims/{claim}.json", [b'{"nonce": "0000000000000000", "job": "a/b"}'])
    finished.put(f"claims/{claim}.base.json", [json.dumps({"checkpoint": {"name": str(first)}}).encode()])
    rows = inspection.inspect(finished, is_deep=False).checkpoints
    assert [(row.name, row.is_in_lineage) for row in rows] == [(first, True), (last, False)]


def test_cells_hold_step_age_and_size(finished: MemoryStore) -> None:
    found = inspection.inspect(finished, is_deep=True)
    created = found.checkpoints[0].created
    assert created is not None
    step, incarnation, age, size, state, place, claim, name = tables.rows(
        found, created + timedelta(minutes=5)
    )[0]
    assert (step, incarnation, age, state, place) == ("2", "1", "5 min", "valid", "lineage")
    assert size.endswith("kB")
    assert (claim, name) == (found.checkpoints[0].claim, str(found.checkpoints[0].name))


def test_an_empty_place_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "a", a=MemoryStore()) == 0
    assert capsys.readouterr().out == "no checkpoint is published in memory://\n"


def test_equal_runs_are_equal_and_others_are_not(
    finished: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    other, same = MemoryStore(), MemoryStore()
    train(other, seed=1)
    train(same)
    capsys.readouterr()
    assert call("compare", "a", "b", a=finished, b=same) == 0
    assert capsys.readouterr().out.startswith(f"EQUAL at step {STEPS}: every tensor")
    assert call("compare", "a", "b", a=finished, b=other) == 1
    assert capsys.readouterr().out.startswith("DIFFERENT: ")


def test_checkpoints_at_a_step_are_compared(
    finished: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", "a", "a", "--step", "2", a=finished) == 0
    assert "EQUAL at step 2" in capsys.readouterr().out
    assert call("compare", "a", "a", "--step", "3", a=finished) == 2
    assert "no checkpoint at step 3; there are: 2, 4" in capsys.readouterr().err


def test_an_unfinished_run_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", "a", "a", a=MemoryStore()) == 2
    assert "let it finish, or compare with --step" in capsys.readouterr().err


def test_history_is_json_lines(finished: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("history", "a", a=finished) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["step"], line["metrics"]) for line in lines] == [
        (n + 1, {"loss": float(n)}) for n in range(STEPS)
    ]


@pytest.mark.parametrize("arguments", [["inspect", "ftp://x"], ["inspect"], ["nonsense"], ["compare", "a"]])
def test_a_mistake_ends_with_2_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    error = capsys.readouterr().err
    assert error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "want"),
    [("17", 17), ("1KB", 1000), ("1.5 GiB", 1610612736), ("2gb", 2 * 10**9), ("3MiB", 3 << 20)],
)
def test_sizes_are_read(text: str, want: int) -> None:
    assert quantities.parse_size(text) == want


@pytest.mark.parametrize("text", ["", "GB", "1 XB", "-1", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        quantities.parse_size(text)
