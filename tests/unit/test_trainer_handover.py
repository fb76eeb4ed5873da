"""A successor that was started early takes nothing away from a predecessor that still saves."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

import spot_trainer as spot
from spot_trainer import compare, handover
from spot_trainer.checkpoints import Checkpoints
from spot_trainer.contract import CapacityType, Environment, parse_time
from spot_trainer.handover import Waited
from spot_trainer.lineage import ClaimName
from spot_trainer.notice import LISTENER
from spot_trainer.session import Session
from spot_trainer.store import Store, StoreUnavailable
from spot_trainer.testing import FakeClock, FaultyStore, MemoryStore

CREATED = parse_time("2026-12-01T00:00:00Z")
POD = Environment(
    job_name="digits",
    job_namespace="team-a",
    job_uid="job-1",
    job_created=CREATED,
    pod_name="p",
    pod_uid="pod-1",
    incarnation=1,
    capacity_type=CapacityType.SPOT,
    run_id="team-a/digits",
)


def claim(incarnation: int, job: str = "job-1") -> ClaimName:
    return ClaimName.make(CREATED, job, incarnation)


class Waiting:
    """A wait of incarnation 3, with what it sees at each second."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.claims, self.closed = {claim(1), claim(2)}, {claim(1)}
        self.dead: int | None = None
        self.is_told = False
        self.at: dict[float, Callable[[], None]] = {}
        self.told: list[int] = []

    def look(self) -> tuple[set[ClaimName], set[ClaimName]]:
        for due in [time for time in self.at if time <= self.clock.seconds]:
            self.at.pop(due)()
        return self.claims, self.closed

    def wait(self, seconds: float = 60) -> Waited:
        return handover.wait(
            claim(3),
            seconds=seconds,
            look=self.look,
            dead_incarnation=lambda: self.dead,
            is_told_to_stop=lambda: self.is_told,
            tell=lambda predecessor: self.told.append(predecessor.incarnation),
            clock=self.clock.clock,
        )


def test_the_wait_ends_when_the_predecessor_closes_its_claim() -> None:
    waiting = Waiting()
    waiting.at[7.0] = lambda: waiting.closed.add(claim(2))
    assert waiting.wait() is Waited.CLOSED
    assert 7 <= waiting.clock.seconds < 8
    assert set(waiting.told) == {2}


def test_the_wait_ends_when_the_operator_says_that_the_predecessor_is_dead() -> None:
    waiting = Waiting()
    waiting.dead = 1  # says nothing of the second
    waiting.at[9.0] = lambda: setattr(waiting, "dead", 2)
    assert waiting.wait() is Waited.DEAD
    assert 9 <= waiting.clock.seconds < 10


def test_the_wait_is_bounded() -> None:
    waiting = Waiting()
    assert waiting.wait(seconds=20) is Waited.TOO_LONG
    assert waiting.clock.seconds == 20


def test_nobody_is_waited_for_who_has_not_claimed() -> None:
    waiting = Waiting()
    waiting.claims = {claim(2, job="another")}
    assert waiting.wait() is Waited.NOBODY
    assert waiting.clock.seconds == 0


def test_a_stop_ends_the_wait() -> None:
    waiting = Waiting()
    waiting.at[3.0] = lambda: setattr(waiting, "is_told", True)
    assert waiting.wait() is Waited.TOLD_TO_STOP
    assert waiting.clock.seconds < 5


# --- in a run -------------------------------------------------------------------------------


def train(
    store: Store,
    clock: FakeClock,
    *,
    stop_at: int | None = None,
    before_step: Callable[[int], None] = lambda _: None,
) -> int:
    torch.manual_seed(1)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = spot.Run(
        checkpoint=store,
        interval_seconds=1e9,
        save_in_background=False,
        clock=clock.clock,
        model=model,
        optimizer=optimizer,
    )
    try:
        with run:
            for _ in run.steps(10):
                before_step(run.step)
                optimizer.zero_grad()
                model(torch.ones(1, 2)).square().sum().backward()
                optimizer.step()
                if run.step + 1 == stop_at:
                    LISTENER.request()
                run.step_done()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def beside_the_main_thread(action: Callable[[], int]) -> int:
    """There a notice before the first step cannot end the process at once, so the run has to."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(action).result(60)


def pod(monkeypatch: pytest.MonkeyPatch, incarnation: int, **changes: Any) -> None:
    told = replace(POD, incarnation=incarnation, pod_uid=f"pod-{incarnation}", **changes)
    for name, value in told.to_environ().items():
        monkeypatch.setenv(name, value)


def lines(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in said if line["event"] == event]


def test_a_successor_claims_after_the_last_checkpoint_of_its_predecessor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    store, clock = MemoryStore(), FakeClock()
    log = str(tmp_path / "termination-log")
    pod(monkeypatch, 1, termination_log=log)
    assert train(store, clock, stop_at=4) == 75
    pod(monkeypatch, 2, termination_log=log, handover_seconds=30)
    capsys.readouterr()
    assert train(store, clock) == 0
    waits = lines(capsys, "waiting")
    assert [line["message"] for line in waits] == [f"the wait is over: {Waited.CLOSED}"]
    assert compare.final_checkpoint(store).manifest.step == 10


def test_a_predecessor_that_left_no_word_costs_the_bound_and_is_said_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    store, clock = MemoryStore(), FakeClock()
    pod(monkeypatch, 1, termination_log=str(tmp_path / "log"))

    def power_off(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "close", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            train(store, clock, before_step=power_off)
    pod(monkeypatch, 2, termination_log=str(tmp_path / "log"), handover_seconds=25)
    capsys.readouterr()
    began = clock.seconds
    assert train(store, clock) == 0
    assert clock.seconds - began == 25
    waits = lines(capsys, "waiting")
    assert "incarnation 1 may still save: waiting at most 25 s" in waits[0]["message"]
    assert [line["waitedSeconds"] for line in waits[:-1]] == [0, 10, 20]
    assert waits[-1]["message"] == f"the wait is over: {Waited.TOO_LONG}"


def test_a_successor_that_is_stopped_while_it_waits_leaves_no_claim(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    store, clock = MemoryStore(), FakeClock()
    pod(monkeypatch, 1, termination_log=str(tmp_path / "log"))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "close", lambda *_: None)
        assert train(store, clock, stop_at=4) == 75
    pod(monkeypatch, 2, termination_log=str(tmp_path / "log"), handover_seconds=25)

    def stop(self: Checkpoints) -> Any:
        if clock.seconds > 3:
            LISTENER.request()
        return look(self)

    look = Checkpoints.look_at_claims
    monkeypatch.setattr(Checkpoints, "look_at_claims", stop)
    assert beside_the_main_thread(lambda: train(store, clock)) == 75
    keys = [entry.key for entry in store.list("claims/")]
    assert all("-00000001" in key for key in keys), keys


def test_a_notice_before_the_run_was_resumed_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The store is away when the process starts, the notice comes, and then the store comes back.

    A checkpoint of the fresh start would have no base: whoever comes next would begin anew.
    """
    memory, clock = MemoryStore(), FakeClock()
    pod(monkeypatch, 1, termination_log=str(tmp_path / "log"))
    assert train(memory, clock, stop_at=6) == 75
    refusals = 0

    def fault(operation: str, key: str) -> None:
        nonlocal refusals
        if operation == "read" and key.startswith("attempts/") and refusals < 2:
            refusals += 1
            LISTENER.request()
            raise StoreUnavailable("away")

    pod(monkeypatch, 2, termination_log=str(tmp_path / "log"))
    before = {entry.key for entry in memory.list("attempts/")}
    assert beside_the_main_thread(lambda: train(FaultyStore(memory, fault=fault), clock)) == 75
    assert refusals, "the store was never away"
    assert {entry.key for entry in memory.list("attempts/")} == before
    pod(monkeypatch, 3, termination_log=str(tmp_path / "log"))
    began: list[int] = []
    assert train(memory, clock, before_step=began.append) == 0
    assert began[0] == 6


def test_a_waiting_successor_reports_no_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """What is shown of the run stays at its predecessor's step, instead of falling to 0."""
    store, clock = MemoryStore(), FakeClock()
    pod(monkeypatch, 1, termination_log=str(tmp_path / "log"))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "close", lambda *_: None)
        assert train(store, clock, stop_at=4) == 75
    steps: list[int | None] = []
    made = Session.progress
    look = Checkpoints.look_at_claims
    sessions: list[Session] = []
    start = Session.start

    def remember(self: Session) -> None:
        sessions.append(self)
        start(self)

    def watch(self: Checkpoints) -> Any:
        steps.append(made(sessions[0]).step)
        return look(self)

    monkeypatch.setattr(Session, "start", remember)
    monkeypatch.setattr(Checkpoints, "look_at_claims", watch)
    pod(monkeypatch, 2, termination_log=str(tmp_path / "log"), handover_seconds=5)
    assert train(store, clock) == 0
    assert set(steps) == {None}
    assert made(sessions[0]).step == 10
