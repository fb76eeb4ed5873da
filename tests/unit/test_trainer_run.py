"""A run that is stopped and started again is, bit for bit, the run that never was."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import spot_trainer as spot
from spot_trainer import compare, contract, session
from spot_trainer.contract import CapacityType, Environment, IfExists, OutcomeKind
from spot_trainer.lineage import AttemptName, ClaimName
from spot_trainer.notice import LISTENER
from spot_trainer.state import CudaRandom, describe_environment
from spot_trainer.store import Buffer, Store, StoreFull, StoreUnavailable
from spot_trainer.testing import FakeClock, FaultyStore, MemoryStore, forget

EPOCHS, BATCHES = 3, 5
TOTAL = EPOCHS * BATCHES
POD = Environment(
    job_name="digits",
    job_namespace="team-a",
    job_uid="job-1",
    job_created=datetime(2026, 12, 1, tzinfo=UTC),
    pod_name="p",
    pod_uid="pod-1",
    incarnation=1,
    capacity_type=CapacityType.SPOT,
    run_id="team-a/digits",
)


@dataclass
class Process:
    """One process of a run: what it trains with, and what happens to it."""

    store: Store | None
    seed: int = 0
    epochs: int = EPOCHS
    stop_at: int | None = None
    forgotten: str | None = None
    before_step: Callable[[int], None] = lambda _step: None
    clock: FakeClock | None = None
    interval_seconds: float = 1e9
    keep: int = 3
    keep_every_steps: int | None = None

    def run(self) -> int:
        """Train as a script would; the exit code."""
        try:
            self.train()
        except SystemExit as error:
            return int(error.code or 0)
        return 0

    def train(self) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4)
        sampler = spot.ShuffledSampler(23, seed=7)
        data = TensorDataset(torch.arange(92.0).reshape(23, 4) / 92)
        loader = DataLoader(data, batch_size=5, sampler=sampler)
        average = spot.Values(loss=0.0)
        run = spot.Run(
            checkpoint=self.store,
            interval_seconds=self.interval_seconds,
            keep=self.keep,
            keep_every_steps=self.keep_every_steps,
            record_samples=True,
            save_in_background=self.clock is None,
            clock=self.clock.clock if self.clock else None,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=scaler,
            sampler=sampler,
            average=average,
        )
        if self.forgotten:
            forget(run, self.forgotten)
        with run:
            for (batch,) in run.batches(loader, epochs=self.epochs):
                self.before_step(run.step)
                noise = random.random() + float(np.random.random())
                loss = (model(batch) * noise).square().mean()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                scheduler.step()
                average.loss = 0.9 * average.loss + 0.1 * loss.item()
                if run.step + 1 == self.stop_at:
                    LISTENER.request()
                run.step_done(loss=loss.item())


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    store = MemoryStore()
    assert Process(store).run() == 0
    return compare.final_checkpoint(store).state


def events(capsys: pytest.CaptureFixture[str], kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["event"] == kind]


def steps_of(store: MemoryStore) -> list[int]:
    return [name.step for name in compare.published(store)]


def in_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pod: Environment = POD) -> Path:
    log = tmp_path / "termination-log"
    log.touch()
    for name, value in replace(pod, termination_log=str(log)).to_environ().items():
        monkeypatch.setenv(name, value)
    return log


def damage(store: MemoryStore, name: AttemptName) -> None:
    key = f"attempts/{name}/data-00000.bin"
    content = bytearray(store.objects[key])
    content[len(content) // 2] ^= 1
    store.objects[key] = bytes(content)


def test_two_uninterrupted_runs_are_equal(uninterrupted: dict[str, Any]) -> None:
    store = MemoryStore()
    Process(store).run()
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) == []


@pytest.mark.parametrize("stops", [[1], [5], [7], [TOTAL - 1], [1, 2, 3, 9, 10, 14]])
def test_stopping_and_resuming_changes_nothing(stops: list[int], uninterrupted: dict[str, Any]) -> None:
    store = MemoryStore()
    for number, stop in enumerate(stops):
        assert Process(store, seed=number * 100, stop_at=stop).run() == 75
    assert Process(store, seed=12345).run() == 0
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) == []


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "optimizer",
        "scheduler",
        "scaler",
        "sampler",
        "average",
        "rng.python",
        "rng.numpy",
        "rng.torch",
    ],
)
def test_each_piece_of_state_that_is_left_out_is_noticed(name: str, uninterrupted: dict[str, Any]) -> None:
    store = MemoryStore()
    assert Process(store, stop_at=7).run() == 75
    assert Process(store, seed=99, forgotten=name).run() == 0
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) != []


def test_the_sample_indices_of_all_incarnations_are_those_of_one_run() -> None:
    whole, parts = MemoryStore(), MemoryStore()
    Process(whole).run()
    Process(parts, stop_at=7).run()
    Process(parts, seed=1).run()
    want = [(line["step"], line["samples"], line["metrics"]) for line in compare.history(whole)]
    assert [(line["step"], line["samples"], line["metrics"]) for line in compare.history(parts)] == want
    assert [line["incarnation"] for line in compare.history(parts)] == [1] * 7 + [2] * (TOTAL - 7)


def test_saves_come_at_the_interval() -> None:
    store, clock = MemoryStore(), FakeClock()
    Process(store, clock=clock, interval_seconds=30, before_step=lambda _: clock.advance(10)).run()
    assert steps_of(store) == [3, 6, 9, 12, 15]


def test_old_checkpoints_go_and_the_newest_stay() -> None:
    store, clock = MemoryStore(), FakeClock()

    def pass_time(_: int) -> None:
        clock.advance(10)
        store.advance(timedelta(minutes=4))

    Process(store, clock=clock, interval_seconds=10, before_step=pass_time).run()
    assert steps_of(store) == [11, 12, 13, 14, 15]  # three are kept, two were superseded a moment ago
    assert {key.split("/")[1] for key in store.objects if key.startswith("attempts/")} == {
        str(name) for name in compare.published(store)
    }


def test_milestones_stay_beside_the_newest() -> None:
    store, clock = MemoryStore(), FakeClock()

    def pass_time(_: int) -> None:
        clock.advance(10)
        store.advance(timedelta(minutes=10))

    Process(store, clock=clock, interval_seconds=20, before_step=pass_time, keep=2, keep_every_steps=5).run()
    # Saves at 2, 4, 6 ...: the first at or after 5, 10 and 15; the last two; 12 was superseded a moment ago.
    assert steps_of(store) == [6, 10, 12, 14, 15]


def test_milestones_need_a_number_of_steps() -> None:
    with pytest.raises(contract.ContractError, match="keep_every_steps is 0"):
        spot.Run(keep_every_steps=0)


@pytest.mark.parametrize("is_told", [True, False])
def test_another_number_of_devices_costs_a_warning_and_not_the_run(
    is_told: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a checkpoint that does not tell the number itself."""
    store, here = MemoryStore(), torch.cuda.device_count()
    then = here + 2
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.cuda, "device_count", lambda: then)
        elsewhere.setattr(CudaRandom, "state_dict", lambda _self: [torch.zeros(16, dtype=torch.uint8)] * then)
        if not is_told:
            told = {k: v for k, v in describe_environment().items() if k != "device_count"}
            elsewhere.setattr(session, "describe_environment", lambda: told)
        assert Process(store, stop_at=5).run() == contract.ExitCode.STOPPED
    capsys.readouterr()
    assert Process(store).run() == 0
    assert [each["message"] for each in events(capsys, "warning")] == [
        f"device_count was {then} and is {here}: the run goes on, but not bit for bit"
    ]


def test_a_store_that_is_away_costs_a_warning(
    uninterrupted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    memory, clock, step_now = MemoryStore(), FakeClock(), [0]

    def fault(operation: str, key: str) -> None:
        if 4 <= step_now[0] < 10:
            raise StoreUnavailable("connection refused")

    def pass_time(step: int) -> None:
        step_now[0] = step
        clock.advance(10)

    store = FaultyStore(memory, fault=fault)
    assert Process(store, clock=clock, interval_seconds=20, before_step=pass_time).run() == 0
    warnings = events(capsys, "warning")
    assert 1 <= len(warnings) <= 4
    assert "training goes on" in warnings[0]["message"]
    assert set(steps_of(memory)) & {3, 4, 11, 12, 13, 14}
    assert not set(steps_of(memory)) & {6, 7, 8, 9, 10}
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(memory).state)) == []
    assert len(compare.history(memory)) == TOTAL


@pytest.mark.parametrize("suffix", ["00000001.json", "MANIFEST.json", ".base.json", "run.json"])
def test_a_lost_answer_is_recognised_as_our_own_success(suffix: str, uninterrupted: dict[str, Any]) -> None:
    memory, lost = MemoryStore(), list[str]()

    def lose(operation: str, key: str) -> Exception | None:
        if not key.endswith(suffix) or lost:
            return None
        lost.append(key)
        return StoreUnavailable("connection reset")

    clock = FakeClock()
    store = FaultyStore(memory, lose_answer=lose)
    assert Process(store, clock=clock, interval_seconds=5, before_step=lambda _: clock.advance(5)).run() == 0
    assert len(lost) == 1
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(memory).state)) == []


def test_a_process_that_sees_a_greater_claim_stops_and_touches_nothing() -> None:
    store, clock = MemoryStore(), FakeClock()
    before: dict[str, bytes] = {}

    def overtake(step: int) -> None:
        clock.advance(10)
        if step == 7:
            Process(store, stop_at=8).run()  # the successor, from the last durable step
            LISTENER.install()
            before.update(store.objects)

    code = Process(store, clock=clock, interval_seconds=30, before_step=overtake).run()
    assert code == 76
    left = {key for key in store.objects.keys() - before.keys() if not key.endswith((".bin", "state.json"))}
    assert {key.split("/")[0] for key in left} <= {"metrics"}
    assert before.items() <= store.objects.items()


def test_the_stale_process_is_no_part_of_the_lineage(uninterrupted: dict[str, Any]) -> None:
    store = MemoryStore()
    Process(store, stop_at=4).run()
    old = compare.published(store)[-1]
    Process(store, stop_at=6).run()
    # The first process wakes up and publishes far ahead, between the looks at the claims.
    stale = AttemptName.make(14, 1, old.claim_nonce, 9)
    for key in [key for key in store.objects if str(old) in key]:
        store.objects[key.replace(str(old), str(stale))] = store.objects[key]
        store._times[key.replace(str(old), str(stale))] = store._now
    assert Process(store).run() == 0
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) == []
    assert not [key for key in store.objects if key.startswith("quarantine/")]


def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_used(
    uninterrupted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store = MemoryStore()
    Process(store, stop_at=4).run()
    Process(store, stop_at=9).run()
    newest = compare.published(store)[-1]
    damage(store, newest)
    capsys.readouterr()
    assert Process(store).run() == 0
    out = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged (data-00000.bin has content hash" in out
    assert json.loads(store.objects[f"quarantine/{newest}.json"])["attempt"] == str(newest)
    assert f"attempts/{newest}/MANIFEST.json" in store.objects
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) == []


def test_if_nothing_is_intact_the_run_is_not_silently_started_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = MemoryStore()
    Process(store, stop_at=4).run()
    damage(store, compare.published(store)[0])
    capsys.readouterr()
    for _ in range(2):
        assert Process(store).run() == 78
        outcome = events(capsys, "outcome")[0]
        assert outcome["reason"] == "CheckpointsDamaged"
        assert "restore one and delete its record in quarantine/" in outcome["message"]


def test_deleted_checkpoints_are_missed() -> None:
    store = MemoryStore()
    Process(store, stop_at=4).run()
    Process(store, stop_at=6).run()
    store.delete([key for key in store.objects if key.startswith("attempts/")])
    assert Process(store).run() == 78


def test_a_finished_run_ends_at_once_and_continues_if_its_target_grew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = MemoryStore()
    Process(store).run()
    capsys.readouterr()

    def never(step: int) -> None:
        raise AssertionError("a step of a finished run")

    assert Process(store, before_step=never).run() == 0
    assert events(capsys, "outcome")[0]["reason"] == "AlreadyComplete"
    assert Process(store, epochs=EPOCHS + 1).run() == 0
    assert compare.final_checkpoint(store).name.step == TOTAL + BATCHES


def test_the_finished_run_of_another_template_is_a_conflict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = MemoryStore()
    in_pod(monkeypatch, tmp_path, replace(POD, template_fingerprint="one"))
    assert Process(store).run() == 0
    log = in_pod(monkeypatch, tmp_path, replace(POD, incarnation=2, template_fingerprint="two"))
    assert Process(store).run() == 78
    outcome = contract.parse_outcome(log.read_bytes())
    assert outcome is not None
    assert outcome.reason == "CheckpointConflict"


def test_the_outcome_of_a_complete_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = MemoryStore()
    log = in_pod(monkeypatch, tmp_path)
    inode = log.stat().st_ino
    assert Process(store).run() == 0
    name = compare.published(store)[-1]
    outcome = contract.parse_outcome(log.read_bytes())
    assert outcome is not None
    assert outcome.saves is not None
    assert (outcome.saves.count, outcome.saves.failed) == (1, 0)
    assert replace(outcome, saves=None) == contract.Outcome(
        kind=OutcomeKind.COMPLETE,
        reason="Completed",
        incarnation=1,
        step=TOTAL,
        checkpoint=contract.CheckpointRef(name=str(name), step=TOTAL),
        message=f"{TOTAL} steps",
    )
    assert log.stat().st_ino == inode


def test_an_exception_is_named_without_its_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = in_pod(monkeypatch, tmp_path)

    def fail(step: int) -> None:
        if step == 2:
            raise KeyError("secret")

    with pytest.raises(KeyError):
        Process(MemoryStore(), before_step=fail).train()
    outcome = contract.parse_outcome(log.read_bytes())
    assert outcome is not None
    assert (outcome.kind, outcome.reason, outcome.step) == (OutcomeKind.FAILED, "UncaughtException", 2)
    assert outcome.message == "builtins.KeyError"


@pytest.mark.parametrize(
    ("change", "code", "reason", "text"),
    [
        ({"run_id": "other"}, 78, "CheckpointConflict", "belongs to the run 'team-a/digits', not 'other'"),
        ({"job_uid": "job-2", "checkpoint_if_exists": IfExists.FAIL}, 78, "CheckpointConflict", "ifExists"),
        ({"pod_uid": "pod-2"}, 76, "Superseded", "another process holds the claim"),
        ({"incarnation": 1, "job_created": datetime(2026, 11, 1, tzinfo=UTC)}, 76, "ClaimConflict", "digits"),
    ],
)
def test_whose_run_it_is(
    change: dict[str, Any],
    code: int,
    reason: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    in_pod(monkeypatch, tmp_path)
    Process(store, stop_at=3).run()
    if change.get("job_created"):
        change = {**change, "job_uid": "job-0"}
    log = in_pod(monkeypatch, tmp_path, replace(POD, **change))
    assert Process(store).run() == code
    outcome = contract.parse_outcome(log.read_bytes())
    assert outcome is not None
    assert outcome.reason == reason
    assert text in outcome.message


def test_if_exists_fail_does_not_stop_the_next_incarnation_of_the_same_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, pod = MemoryStore(), replace(POD, checkpoint_if_exists=IfExists.FAIL)
    in_pod(monkeypatch, tmp_path, pod)
    assert Process(store, stop_at=3).run() == 75
    in_pod(monkeypatch, tmp_path, replace(pod, incarnation=2))
    assert Process(store).run() == 0


def test_a_re_created_job_continues_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    store = MemoryStore()
    in_pod(monkeypatch, tmp_path, replace(POD, incarnation=4))
    Process(store, stop_at=3).run()
    newer = replace(POD, job_uid="a-job", job_created=POD.job_created + timedelta(hours=1))
    in_pod(monkeypatch, tmp_path, newer)
    assert Process(store, seed=5).run() == 0
    assert list(compare.differences(uninterrupted, compare.final_checkpoint(store).state)) == []


def test_a_bad_environment_leaves_an_outcome_and_78(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = in_pod(monkeypatch, tmp_path)
    monkeypatch.setenv("SPOT_CAPACITY_TYPE", "Spot")
    assert Process(MemoryStore()).run() == 78
    outcome = contract.parse_outcome(log.read_bytes())
    assert outcome is not None
    assert outcome.reason == "InvalidEnvironment"
    assert "SPOT_CAPACITY_TYPE='Spot'" in outcome.message


def test_without_a_place_for_checkpoints_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert Process(None).run() == 0
    warnings = events(capsys, "warning")
    assert len(warnings) == 1
    assert "keeps nothing" in warnings[0]["message"]


def test_a_store_without_exclusive_creation_is_refused() -> None:
    class Careless(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            self.put(key, [data])
            return True

    assert Process(Careless()).run() == 78


def test_forgetting_step_done_is_an_error() -> None:
    run = spot.Run()
    with pytest.raises(RuntimeError, match=r"call run\.step_done"), run:
        for _ in run.steps(3):
            pass


def test_saving_within_a_step_is_refused() -> None:
    """The step has changed the model and is not counted yet: a resume would do it twice."""
    store = MemoryStore()
    run = spot.Run(checkpoint=store, save_in_background=False, model=torch.nn.Linear(2, 2))
    with run:
        assert run.save()
        for _ in run.steps(2):
            with pytest.raises(RuntimeError, match=r"after run\.step_done\(\)"):
                run.save()
            run.step_done()
            assert run.save()
        assert run.save()
    assert steps_of(store) == [0, 1, 2]


def test_a_loader_whose_position_is_unknown_is_refused() -> None:
    data = TensorDataset(torch.zeros(4, 1))
    with pytest.raises(ValueError, match="ShuffledSampler"), spot.Run() as run:
        list(run.batches(DataLoader(data, batch_size=2, shuffle=True), epochs=1))
    with pytest.raises(ValueError, match="give the loader's sampler to the run"), spot.Run() as run:
        list(run.batches(DataLoader(data, batch_size=2, sampler=spot.ShuffledSampler(data)), epochs=1))


def test_steps_resume_at_their_number() -> None:
    store, seen = MemoryStore(), list[int]()
    for stop in (2, None):
        run = spot.Run(checkpoint=store, values=spot.Values(x=0))
        with contextlib.suppress(SystemExit), run:
            for step in run.steps(5):
                seen.append(step)
                if step + 1 == stop:
                    LISTENER.request()
                run.step_done()
    assert seen == [0, 1, 2, 3, 4]
    claims = [key for key in store.objects if ClaimName.parse(key[7:-5])]
    assert len(claims) == 2


class SmallStore(MemoryStore):
    """Has room for so many data files."""

    room = 3

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        # The index comes after the data: room for one and not for the other leaves half an attempt.
        if "/state.json" in key and sum("/state.json" in each for each in self.objects) >= self.room:
            raise StoreFull("the volume is full")
        super().put(key, parts)


def test_on_a_full_volume_half_written_and_superseded_checkpoints_make_room(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Otherwise it would stay full: elsewhere they go only after the next checkpoint was published."""
    store = SmallStore()
    run = spot.Run(
        checkpoint=store, values=spot.Values(x=1), save_in_background=False, interval_seconds=1e9, keep=2
    )

    def num_attempts() -> tuple[int, int]:
        names = {key.split("/")[1] for key in store.objects if key.startswith("attempts/")}
        return len(names), sum(key.endswith("MANIFEST.json") for key in store.objects)

    with run:
        for step in run.steps(6):
            run.step_done()
            assert run.save()
            assert num_attempts() == (min(step + 1, 3), min(step + 1, 3))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events].count("checkpoint") == 6
    assert "warning" not in [event["event"] for event in events]


def test_a_volume_that_stays_full_costs_warnings_and_keeps_what_is_due(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = SmallStore()
    run = spot.Run(
        checkpoint=store, values=spot.Values(x=1), save_in_background=False, interval_seconds=1e9, keep=2
    )
    with run:
        for step in run.steps(4):
            run.step_done()
            if step == 2:
                store.room = 2
            assert run.save() == (step != 2)
            if step == 2:
                kept = sorted(int(key.split("/")[1][:12]) for key in store.objects if "MANIFEST" in key)
                assert kept == [1, 2]
                assert not any(key.startswith("attempts/000000000003") for key in store.objects)
                store.room = 4
    assert "the volume is full" in capsys.readouterr().out
