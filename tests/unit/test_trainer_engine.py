"""The checkpoint engine: one copy in memory, written in the background, read back in place."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spot_trainer as spot
from spot_trainer import cadence, compare, farewell, layout, retention, snapshot, writer
from spot_trainer.cadence import StepCost, automatic_interval
from spot_trainer.contract import ContractError, Directives, IntervalPolicy
from spot_trainer.farewell import Farewell
from spot_trainer.lineage import AttemptName
from spot_trainer.manifest import Damaged, FileRecord, Manifest
from spot_trainer.notice import LISTENER
from spot_trainer.retention import Published
from spot_trainer.saver import Save, Saver
from spot_trainer.store import Buffer, StoreUnavailable, Unfinished
from spot_trainer.testing import FaultyStore, MemoryStore

NAME = AttemptName.make(5, 1, "0123456789abcdef", 1)
OLD_CHECKPOINT = Path(__file__).parents[1] / "data" / "checkpoint-v1"


def publish(store: MemoryStore, files: dict[str, FileRecord]) -> None:
    record = Manifest(
        attempt=str(NAME), claim="c", run_id="r", step=5, total_steps=9, incarnation=1,
        created="2026-12-01T00:00:00Z", files=files,
    )  # fmt: skip
    store.create(writer.folder(NAME) + "MANIFEST.json", record.to_bytes())


def saved(state: dict[str, Any]) -> MemoryStore:
    store = MemoryStore()
    publish(store, writer.write(store, NAME, snapshot.take(state)))
    return store


# ---------------------------------------------------------------------- layout


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 500))
def test_tensors_are_aligned_in_order_and_never_overlap(sizes: list[int], segment_bytes: int) -> None:
    result = layout.lay_out(sizes, segment_bytes=segment_bytes)
    assert [place.num_bytes for place in result.places] == sizes
    ends = [0] * len(result.segment_sizes)
    last = 0
    for place in result.places:
        assert place.offset % layout.ALIGNMENT_BYTES == 0
        assert place.offset >= ends[place.segment]
        assert place.segment in (last, last + 1)
        # A segment is left only when it has reached its size.
        assert place.segment == last or ends[last] >= segment_bytes
        last = place.segment
        ends[place.segment] = place.offset + place.num_bytes
    assert tuple(ends) == result.segment_sizes


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 40))
def test_reads_cover_a_file_in_order_and_stay_small(sizes: list[int], chunk_bytes: int) -> None:
    whole = bytearray(range(256)) * 8
    buffers, start = [], 0
    for size in sizes:
        buffers.append(memoryview(whole)[start : start + size])
        start += size
    end = 0
    for stretch in layout.stretches(buffers, chunk_bytes=chunk_bytes):
        assert stretch.offset == end
        assert 0 < stretch.num_bytes <= chunk_bytes
        assert b"".join(stretch.buffers) == whole[end : end + stretch.num_bytes]
        end += stretch.num_bytes
    assert end == start


def test_one_read_never_has_more_buffers_than_the_kernel_takes() -> None:
    many = [memoryview(bytearray(1))] * 2000
    counts = [len(stretch.buffers) for stretch in layout.stretches(many, chunk_bytes=10**6)]
    assert (max(counts), sum(counts)) == (layout.MAX_BUFFERS, 2000)


# ---------------------------------------------------------------------- snapshot


def addresses(taken: snapshot.Snapshot) -> list[int]:
    return [torch.frombuffer(segment, dtype=torch.uint8).data_ptr() for segment in taken.segments]


def test_the_same_memory_is_used_by_every_snapshot_of_the_same_shape() -> None:
    buffers, state = snapshot.Buffers(), {"a": torch.ones(5), "b": torch.ones(3, dtype=torch.int8)}
    first = addresses(snapshot.take(state, buffers))
    state["a"].fill_(2)
    second = snapshot.take(state, buffers)
    assert addresses(second) == first
    assert bytes(second.segments[0])[:20] == state["a"].numpy().tobytes()


def test_extra_memory_is_the_state_and_no_more() -> None:
    buffers = snapshot.Buffers()
    state = {str(i): torch.zeros(1000) for i in range(50)}
    taken = snapshot.take(state, buffers)
    assert taken.num_bytes == 50 * 4000
    assert buffers.num_bytes <= taken.num_bytes + 50 * layout.ALIGNMENT_BYTES


def test_a_state_that_changed_its_shape_gets_buffers_that_fit() -> None:
    buffers = snapshot.Buffers()
    snapshot.take({"a": torch.full((64,), 7, dtype=torch.int8)}, buffers)
    state = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}
    store = MemoryStore()
    publish(store, writer.write(store, NAME, snapshot.take(state, buffers)))
    assert list(compare.differences(writer.load(store, NAME).state, state)) == []


def test_gaps_between_tensors_are_zero_also_in_memory_that_was_used_before() -> None:
    buffers = snapshot.Buffers()
    first = {"a": torch.full((10,), -1, dtype=torch.int8), "b": torch.zeros(4, dtype=torch.int8)}
    second = {"a": torch.zeros(1, dtype=torch.int8), "b": torch.zeros(4, dtype=torch.int8)}
    snapshot.take(first, buffers)
    assert set(bytes(snapshot.take(second, buffers).segments[0])) == {0}


# ---------------------------------------------------------------------- restore in place


def test_a_restore_reads_into_live_tensors() -> None:
    want = torch.arange(12.0).reshape(3, 4)
    store = saved({"model": {"w": want}, "rest": [torch.ones(2)]})
    live = {"model": {"w": torch.zeros(3, 4)}, "rest": [torch.zeros(2)]}
    loaded = writer.load(store, NAME, live).state
    for mine, theirs in ((live["model"]["w"], loaded["model"]["w"]), (live["rest"][0], loaded["rest"][0])):  # type: ignore[call-overload]
        assert mine.data_ptr() == theirs.data_ptr()
    assert torch.equal(live["model"]["w"], want)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "live",
    [
        torch.zeros(4, 3),
        torch.zeros(3, 4, dtype=torch.float64),
        torch.zeros(4, 3).t(),
        torch.zeros(1).expand(3, 4),
        None,
        "text",
    ],
)
def test_what_does_not_fit_is_left_alone(live: Any) -> None:
    want = torch.arange(12.0).reshape(3, 4)
    before = live.clone() if isinstance(live, torch.Tensor) else live
    loaded = writer.load(saved({"w": want}), NAME, {"w": live}).state
    assert torch.equal(loaded["w"], want)
    assert list(compare.differences(live, before)) == []


def test_two_names_of_one_memory_are_not_both_read_into() -> None:
    shared = torch.zeros(4)
    loaded = writer.load(
        saved({"a": torch.ones(4), "b": torch.full((4,), 2.0)}), NAME, {"a": shared, "b": shared}
    )
    assert loaded.state["a"].tolist() == [1.0] * 4
    assert loaded.state["b"].tolist() == [2.0] * 4


def test_many_small_and_one_large_tensor_come_back() -> None:
    state = {str(i): torch.full((i % 7,), float(i)) for i in range(1500)} | {"large": torch.randn(700_000)}
    live = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    assert list(compare.differences(writer.load(saved(state), NAME, live).state, state)) == []


def test_an_object_that_ends_early_between_listing_and_reading_is_damage() -> None:
    store = saved({"w": torch.ones(100)})
    key = writer.folder(NAME) + "data-00000.bin"

    class Shrinking(FaultyStore):
        def read_into(self, key_read: str, offset: int, buffers: Sequence[memoryview]) -> int:
            store.objects[key] = store.objects[key][:50]
            return super().read_into(key_read, offset, buffers)

    with pytest.raises(Damaged, match=r"data-00000.bin ends at 50 instead of 400 bytes"):
        writer.load(Shrinking(store), NAME)


def test_a_store_with_parallel_reads_gives_the_same() -> None:
    store = saved({"a": torch.randn(5000), "b": torch.randn(3)})
    store.read_bytes, store.parallel_reads = 1000, 4
    want = writer.load(saved({}), NAME)  # noqa: F841  another store, to see that nothing is shared
    loaded = writer.load(store, NAME)
    store.parallel_reads = 1
    assert list(compare.differences(loaded.state, writer.load(store, NAME).state)) == []


def test_a_checkpoint_of_the_first_release_can_be_read(tmp_path: Path) -> None:
    """Written by the first version of the library; never write it anew."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(OLD_CHECKPOINT, copy)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    values = spot.Values()
    run = spot.Run(
        checkpoint=copy,
        record_metrics=False,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        values=values,
    )
    with run:
        assert list(run.steps(4)) == []
        assert run.step == 4
    assert values.best == 0.16277915239334106
    assert values.half.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert values.flag.tolist() == [True, False, True]
    assert values.arr.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert values.empty.shape == (0, 4)
    assert scheduler.last_epoch == 4
    assert int(model[1].num_batches_tracked) == 4  # type: ignore[arg-type]
    assert optimizer.state[next(model.parameters())]["step"] == 4


# ---------------------------------------------------------------------- one save in flight


def some_save(step: int = 3) -> Save:
    return Save(step=step, began=1.0, stall_seconds=0.1, num_bytes=10)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), MemoryError("no"), KeyboardInterrupt()])
def test_an_error_of_the_background_is_handed_over_once(error: BaseException) -> None:
    saver = Saver(lambda: 4.0)

    def fails() -> AttemptName:
        raise error

    saver.begin(some_save(), fails)
    result = saver.wait()
    assert result is not None
    assert (result.error, result.name, result.seconds) == (error, None, 3.0)
    assert saver.poll() is None
    assert saver.in_flight is None


def test_waiting_has_an_end() -> None:
    saver, go = Saver(lambda: 0.0), threading.Event()

    def waits() -> AttemptName:
        assert go.wait(10)
        return NAME

    saver.begin(some_save(), waits)
    assert saver.wait(0.01) is None
    assert saver.in_flight is not None
    go.set()
    result = saver.wait()
    assert result is not None
    assert result.name == NAME


class SlowStore(MemoryStore):
    """Data files are written only when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.is_writing = threading.Event()

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        if "/data-" in key:
            self.is_writing.set()
            assert self.go.wait(20)
        super().put(key, parts)


def train(store: MemoryStore, *, total: int, after: Callable[[spot.Run], None], grace: float = 30.0) -> int:
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    run = spot.Run(checkpoint=store, interval_seconds=1e9, record_metrics=False, optimizer=optimizer,
                   values=(values := spot.Values(weight=weight.detach())))  # fmt: skip
    try:
        with run:
            for step in run.steps(total):
                values.weight.add_(1.0)
                if step + 1 == 2 and total > 3:
                    run._session._begin_save()
                after(run)
                run.step_done()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def outcome_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line["event"] == "outcome")
    return line  # type: ignore[no-any-return]


def test_training_goes_on_while_a_checkpoint_is_written() -> None:
    store, seen = SlowStore(), []

    def after(run: spot.Run) -> None:
        if run.step == 6:
            assert store.is_writing.wait(10)
            seen.append(compare.published(store))
            store.go.set()

    assert train(store, total=8, after=after) == 0
    assert seen == [[]]
    # The snapshot is of the step at which it was taken, whatever training did meanwhile.
    name = compare.published(store)[0]
    assert (name.step, writer.load(store, name).state["values"]["weight"].tolist()) == (1, [2.0] * 3)


def test_a_notice_waits_for_the_save_in_flight_and_then_saves(capsys: pytest.CaptureFixture[str]) -> None:
    store = SlowStore()

    def after(run: spot.Run) -> None:
        if run.step == 4:
            LISTENER.request()
            threading.Timer(0.2, store.go.set).start()

    assert train(store, total=9, after=after) == 75
    assert [name.step for name in compare.published(store)] == [1, 5]
    assert outcome_of(capsys)["message"] == "stopped by SIGTERM, saved at step 5"


def test_a_crash_lets_the_save_in_flight_end(capsys: pytest.CaptureFixture[str]) -> None:
    store = SlowStore()

    def after(run: spot.Run) -> None:
        if run.step == 4:
            threading.Timer(0.2, store.go.set).start()
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        train(store, total=9, after=after)
    assert [name.step for name in compare.published(store)] == [1]
    assert outcome_of(capsys)["checkpoint"].startswith("000000000001-")


# ---------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("remaining", "save", "left", "want"),
    [
        (10, None, None, Farewell.SAVE),
        (10, 8, None, Farewell.SAVE),
        (10, 9, None, Farewell.LEAVE),
        (0, None, None, Farewell.LEAVE),
        (-1, 0.1, 0.0, Farewell.LEAVE),
        (10, 4, 4, Farewell.SAVE),
        (10, 4, 5, Farewell.FLUSH),
        (10, 9, 0.0, Farewell.FLUSH),
        (10, None, 0.0, Farewell.SAVE),
    ],
)
def test_what_fits_is_done(remaining: float, save: float | None, left: float | None, want: Farewell) -> None:
    choice = farewell.choose(remaining_seconds=remaining, save_seconds=save, left_in_flight_seconds=left)
    assert choice is want


def test_the_automatic_interval_follows_young_within_its_bounds() -> None:
    def interval(cost: float, *, persist: float = 1.0, losses: float = 7200.0, most: float = 1e9) -> float:
        return automatic_interval(
            cost_seconds=cost, persist_seconds=persist, mean_seconds_between_losses=losses, max_seconds=most
        )

    assert interval(0.5) == pytest.approx(84.85, abs=0.01)
    assert interval(0.5, losses=20000.0) == pytest.approx(141.42, abs=0.01)
    assert interval(10.0) == 1000.0  # Young says 379 s, which would cost 2.6 % of the time
    assert interval(0.0) == cadence.MIN_INTERVAL_SECONDS
    assert interval(0.01, persist=40.0) == 40.0
    assert interval(10.0, most=300.0) == 300.0


@pytest.mark.parametrize(
    ("policy", "told", "directives", "cost", "want"),
    [
        (IntervalPolicy.FIXED, 300.0, Directives(), None, 300.0),
        (IntervalPolicy.FIXED, 300.0, Directives(checkpoint_interval_seconds=20), None, 20.0),
        (IntervalPolicy.AUTO, 600.0, Directives(), None, cadence.FIRST_AUTOMATIC_SECONDS),
        (IntervalPolicy.AUTO, 20.0, Directives(), None, 20.0),
        (IntervalPolicy.AUTO, 600.0, Directives(), 0.5, 84.85),
        (IntervalPolicy.AUTO, 600.0, Directives(mean_seconds_between_losses=20000), 0.5, 141.42),
        (IntervalPolicy.AUTO, 60.0, Directives(checkpoint_interval_seconds=70), 0.5, 60.0),
        (IntervalPolicy.AUTO, 600.0, Directives(checkpoint_interval_seconds=70), 0.5, 70.0),
    ],
)
def test_the_interval_is_chosen_by_policy_directives_and_what_was_measured(
    policy: IntervalPolicy, told: float, directives: Directives, cost: float | None, want: float
) -> None:
    measured = None if cost is None else cadence.SaveCost(training_seconds=cost, persist_seconds=1.0)
    assert cadence.choose_interval(policy, told, directives, measured) == pytest.approx(want, abs=0.01)


def test_the_cost_of_a_save_is_what_steps_beside_it_take_longer() -> None:
    cost = StepCost().after_step_beside_save(5.0)
    assert cost.extra_seconds == 0.0
    for _ in range(50):
        cost = cost.after_idle_step(0.1)
    cost = cost.at_save().after_step_beside_save(0.3).after_step_beside_save(0.1)
    assert cost.extra_seconds == pytest.approx(0.2)
    assert cost.at_save().extra_seconds == 0.0


# ---------------------------------------------------------------------- workers


class Augmented(torch.utils.data.Dataset[torch.Tensor]):
    """Draws from all three generators for each sample."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), float(np.random.random()), float(torch.rand(()))])


def batches_of(
    store: MemoryStore, *, num_workers: int, stop_at: int | None = None, epochs: int = 2
) -> list[Any]:
    torch.manual_seed(1)
    sampler = spot.ShuffledSampler(12, seed=3)
    loader = torch.utils.data.DataLoader(Augmented(), batch_size=4, sampler=sampler, num_workers=num_workers)
    run = spot.Run(checkpoint=store, sampler=sampler, record_metrics=False)
    seen = []
    try:
        with run:
            for batch in run.batches(loader, epochs=epochs):
                seen.append(batch.tolist())
                if run.step + 1 == stop_at:
                    LISTENER.request()
                run.step_done()
    except SystemExit:
        return seen
    return seen


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_workers_augment_a_sample_alike_wherever_the_epoch_is_entered(stop_at: int) -> None:
    whole = batches_of(MemoryStore(), num_workers=2)
    assert len({tuple(row[1:]) for batch in whole for row in batch}) == 24
    store = MemoryStore()
    parts = batches_of(store, num_workers=2, stop_at=stop_at) + batches_of(store, num_workers=2)
    assert parts == whole


def test_workers_that_live_on_are_refused() -> None:
    sampler = spot.ShuffledSampler(12)
    loader = torch.utils.data.DataLoader(
        Augmented(), batch_size=4, sampler=sampler, num_workers=1, persistent_workers=True
    )
    run = spot.Run(sampler=sampler)
    with pytest.raises(ValueError, match="persistent_workers"), run:
        next(run.batches(loader, epochs=1))


# ---------------------------------------------------------------------- mistakes and mishaps


@pytest.mark.parametrize("name", ["step", "event", "totalSteps", "capacityType"])
def test_a_metric_must_not_take_the_name_of_what_each_line_has(name: str) -> None:
    def train_with() -> None:
        with spot.Run() as run:
            for _ in run.steps(2):
                run.step_done(**{name: 1})

    with pytest.raises(ValueError, match=name):
        train_with()


def test_a_step_is_done_once() -> None:
    def train_twice() -> None:
        with spot.Run() as run:
            for _ in run.steps(4):
                run.step_done()
                run.step_done()

    with pytest.raises(RuntimeError, match="called twice"):
        train_twice()


@pytest.mark.parametrize("arguments", [{"checkpoint": ""}, {"interval_seconds": -1}, {"interval_seconds": 0}])
def test_arguments_that_nobody_can_mean_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=next(iter(arguments))):
        spot.Run(**arguments)


def test_a_run_whose_records_were_deleted_can_be_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryStore()
    weights = spot.Values(weight=torch.zeros(2))
    run = spot.Run(checkpoint=store, record_metrics=False, values=weights)
    with run:
        for step in run.steps(6):
            weights.weight.add_(1.0)
            run.step_done()
            if step == 2:
                assert run.save()
                store.objects.clear()
    assert "somebody has deleted the records of this run" in capsys.readouterr().out
    again = spot.Run(
        checkpoint=store, record_metrics=False, values=(found := spot.Values(weight=torch.zeros(2)))
    )
    with again:
        assert list(again.steps(6)) == []
    assert found.weight.tolist() == [6.0, 6.0]


# ---------------------------------------------------------------------- retention and what is left behind


def test_milestones_stay_for_good() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    steps = [130, 120, 105, 90, 40, 10]
    kept = {130, 120}
    lineage = [
        Published(AttemptName.make(step, 1, "0" * 16, step), now - timedelta(hours=1 + n))
        for n, step in enumerate(steps)
    ]
    gone = retention.superseded(lineage, keep=2, now=now, keep_every_steps=100)
    # 105 is the first at or after 100; the first of all is none.
    assert set(steps) - {name.step for name in gone} == kept | {105}


def test_what_the_dead_have_left_goes_and_what_may_still_be_written_stays() -> None:
    store = MemoryStore()
    late = "1111111111111111"

    def leave(nonce: str, count: int) -> str:
        name = AttemptName.make(3, 1, nonce, count)
        store.put(f"{writer.folder(name)}data-00000.bin", [b"half"])
        return f"{writer.folder(name)}data-00000.bin"

    old = leave("2222222222222222", 1)
    store.left_behind.append(Unfinished(old, "upload-old", store._now))
    store.advance(timedelta(hours=2))
    fresh = leave(late, 1)
    store.left_behind.append(Unfinished(fresh, "upload-fresh", store._now))
    closed = leave("3333333333333333", 1)
    closing = {"formatVersion": 1, "nonce": "3333333333333333", "outcome": "stopped", "checkpoint": ""}
    store.put("claims/19700101T000000Z-local-00000001.closed.json", [json.dumps(closing).encode()])
    store.put("claims/19700101T000000Z-local-00000001.json",
              [json.dumps({"formatVersion": 1, "nonce": "3333333333333333"}).encode()])  # fmt: skip
    assert train(store, total=3, after=lambda _run: None) == 0
    assert old not in store.objects
    assert closed not in store.objects
    assert fresh in store.objects
    assert [item.handle for item in store.left_behind] == ["upload-fresh"]
