"""`bench` measures, promises no more than was measured, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from spot_trainer.cli import app, bench
from spot_trainer.cli.capacity import Cost, Sample, cost, lines, typical
from spot_trainer.clock import Clock
from spot_trainer.farewell import MARGIN
from spot_trainer.store import Store
from spot_trainer.testing import MemoryStore


def sample(num_bytes: int, save_seconds: float) -> Sample:
    return Sample(num_bytes=num_bytes, stall_seconds=0.1, save_seconds=save_seconds, restore_seconds=0.5)


def test_fixed_time_and_rate_come_from_two_sizes() -> None:
    assert cost(sample(0, 2.0), sample(1000, 4.0)) == Cost(2.0, 500.0)


def test_a_large_save_that_is_as_fast_as_a_small_one_promises_its_own_rate() -> None:
    assert cost(sample(10, 2.0), sample(1000, 2.0)) == Cost(2.0, 500.0)


def test_what_fits_leaves_the_margin_of_the_library() -> None:
    assert Cost(5.0, 1e9).longest_state_bytes(30.0) == int((30 / MARGIN - 5) * 1e9)
    assert Cost(60.0, 1e9).longest_state_bytes(30.0) == 0


def test_the_typical_sample_is_the_median() -> None:
    assert typical([sample(1, 1.0), sample(1, 9.0), sample(1, 2.0)]) == sample(1, 2.0)


def test_the_report_names_each_notice() -> None:
    text = lines("file:///x", sample(0, 1.0), sample(10**9, 2.0))
    assert [line.split()[0] for line in text[-3:]] == ["30", "60", "120"]


def test_a_volume_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "precious").write_text("mine")
    assert app.run(["bench", tmp_path.as_uri(), "--size", "1MB"]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["attempts", "precious"]
    assert "GB/s" in capsys.readouterr().out


def test_a_place_that_was_absent_is_absent_again(tmp_path: Path) -> None:
    assert app.run(["bench", (tmp_path / "a" / "b").as_uri(), "--size", "1MB"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_that_is_not_empty_is_refused_and_left_alone() -> None:
    store = MemoryStore()
    store.put("attempts/x/MANIFEST.json", [b"{}"])
    with pytest.raises(ValueError, match="is not empty: nothing was touched"):
        bench.measure("memory://", num_bytes=1 << 20, open_store=lambda _uri: store, clock=Clock())
    assert list(store.objects) == ["attempts/x/MANIFEST.json"]


def test_what_a_failed_measurement_wrote_is_removed() -> None:
    store = MemoryStore()

    def fail(_text: str) -> None:
        store.put("attempts/x/data", [b"1"])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        bench.measure("s3://b", num_bytes=1 << 20, open_store=lambda _uri: store, clock=Clock(), say=fail)
    assert store.objects == {}


def test_each_measurement_has_a_prefix_of_its_own() -> None:
    asked: list[str] = []

    def open_store(uri: str) -> Store:
        asked.append(uri)
        return MemoryStore()

    for _ in range(2):
        bench.measure("s3://b/p", num_bytes=1 << 20, open_store=open_store, clock=Clock())
    assert len(set(asked)) == 2
    assert all(uri.startswith("s3://b/p/spot-trainer-bench-") for uri in asked)


@pytest.mark.parametrize("size", ["5", "x", "900000TB"])
def test_a_size_that_will_not_do_is_refused(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["bench", tmp_path.as_uri(), "--size", size]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
