"""A place is tried before a run trusts it: what it lacks is refused or told, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import spot_trainer as spot
from spot_trainer.contract import OutcomeReason
from spot_trainer.store import Entry, Store, StoreRefused, StoreUnavailable
from spot_trainer.store import probe as probes
from spot_trainer.store.local import LocalStore
from spot_trainer.store.probe import probe
from spot_trainer.store.s3 import S3Store, make_client
from spot_trainer.testing import FaultyStore, MemoryStore


class Credulous(MemoryStore):
    """Accepts a condition and ignores it."""

    def create(self, key: str, data: bytes) -> bool:
        self.put(key, [data])
        return True


class SilentlyCredulous(MemoryStore):
    """Says that the object exists, and replaces it all the same."""

    def create(self, key: str, data: bytes) -> bool:
        existed = key in self.objects
        self.put(key, [data])
        return not existed


class Forgetful(MemoryStore):
    """A listing lags behind by one object."""

    def list(self, prefix: str) -> list[Entry]:
        return super().list(prefix)[1:]


class Immutable(MemoryStore):
    """What was written once stays."""

    def put(self, key: str, parts: Any) -> None:
        if key not in self.objects:
            super().put(key, parts)


@pytest.mark.parametrize("make", [MemoryStore, lambda: FaultyStore(MemoryStore())])
def test_a_good_place_passes_and_is_left_as_it_was(make: Callable[[], Store]) -> None:
    store = make()
    store.put("claims/x", [b"1"])
    assert list(probe(store)) == []
    assert [entry.key for entry in store.list("")] == ["claims/x"]


def test_a_good_directory_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert list(probe(LocalStore(tmp_path / "new"))) == []
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("store", "text"),
    [
        (Credulous(), "could be created twice"),
        (SilentlyCredulous(), "could be created twice"),
        (Forgetful(), "a listing does not show"),
        (Immutable(), "reads as it was before"),
    ],
)
def test_a_place_that_breaks_a_promise_is_refused(store: Store, text: str) -> None:
    with pytest.raises(StoreRefused, match=text) as caught:
        probe(store)
    assert caught.value.reason is OutcomeReason.STORE_UNSUPPORTED
    assert [entry.key for entry in MemoryStore.list(store, "")] == []  # type: ignore[arg-type]


def test_a_lost_answer_is_no_broken_promise() -> None:
    lost = iter([StoreUnavailable("lost")])
    store = FaultyStore(MemoryStore(), lose_answer=lambda _operation, _key: next(lost, None))
    assert list(probe(store)) == []


def test_what_dead_probes_left_goes_after_an_hour() -> None:
    store = MemoryStore()
    store.put("probe/old", [b"x"])
    store.advance(probes.ABANDONED)
    store.put("probe/young", [b"x"])
    store.advance(timedelta(minutes=5))
    probe(store)
    assert set(store.objects) == {"probe/young"}


def raising(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("function", "behaviour", "text"),
    [
        ("link", raising(errno.EPERM), "no hard links"),
        ("link", raising(errno.ENOSYS), "no hard links"),
        ("link", shutil.copyfile, "could be created twice"),
        ("replace", raising(errno.ENOSYS), "cannot rename"),
    ],
)
def test_a_file_system_that_cannot_is_refused(
    function: str, behaviour: Callable[..., Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, function, behaviour)
    with pytest.raises(StoreRefused, match=text) as caught:
        probe(LocalStore(tmp_path))
    assert caught.value.reason is OutcomeReason.STORE_UNSUPPORTED
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_system_that_does_not_flush_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", raising(errno.EINVAL))
    with spot.Run(values=spot.Values(x=1), checkpoint=tmp_path) as run:
        for _ in run.steps(2):
            run.step_done()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert "does not flush to disk" in warning
    assert events[-1]["outcome"] == "complete"


def test_a_place_that_is_refused_ends_the_run_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    store = Credulous()
    run = spot.Run(values=spot.Values(x=1), checkpoint=store)
    with pytest.raises(SystemExit) as caught, run:
        pytest.fail("must not begin")
    assert caught.value.code == 78
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reason"] == "StoreUnsupported"
    assert store.objects == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{", "is not JSON"),
        ('["x"]', "must be a JSON object"),
        ('{"SSEKMSKeyID": "my-secret"}', "names SSEKMSKeyID"),
        ('{"Bucket": "another"}', "names Bucket"),
    ],
)
def test_a_mistake_in_the_extra_arguments_is_named_without_their_values(
    value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOT_S3_EXTRA_ARGS", value)
    with pytest.raises(ValueError, match=text) as caught:
        S3Store("b", "p", client=make_client())
    assert "my-secret" not in str(caught.value)


def test_a_mistake_in_an_option_ends_the_run_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOT_S3_CHECKSUM", "md5")
    run = spot.Run(values=spot.Values(x=1), checkpoint="s3://bucket/x")
    with pytest.raises(SystemExit) as caught, run:
        pytest.fail("must not begin")
    assert caught.value.code == 78
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["reason"], "CRC32 or off" in last["message"]) == ("InvalidEnvironment", True)
