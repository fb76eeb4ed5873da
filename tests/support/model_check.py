"""Every interleaving of two processes at their store operations, by replay.

A process is a function of a store and of nothing else, so that the operation it comes to
next is a function of the answers it has had. To continue a process it is run again from
its beginning with the answers recorded so far; at the first operation without an answer
it is abandoned. A state of the whole is then plain data: what lies in the store, and what
each process has been answered. States that are equal are looked at once, which makes the
search exhaustive in seconds where the number of schedules is beyond counting.

Invariant: a process must do its store operations in an order of its own (one thread at a
time), and read no clock, no randomness and no time of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from spot_trainer.store import Buffer, Entry, NotFound, Store, StoreUnavailable, Unfinished

TIME = datetime(2026, 1, 1, tzinfo=UTC)
"""Of every object: times are no part of the protocol, and would keep equal states apart."""


@dataclass(frozen=True)
class Operation:
    """A call that changes or reads the store."""

    name: str
    key: str
    content: Any = None

    def __str__(self) -> str:
        return f"{self.name} {self.key}"


@dataclass(frozen=True)
class Absent:
    """The answer of a read that found nothing."""


@dataclass(frozen=True)
class Lost:
    """No answer; whether the operation was done is not known."""


class Paused(BaseException):
    """The process has come to an operation that has no answer yet."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(str(operation))
        self.operation = operation


class Replayed:
    """A store that gives the recorded answers, then abandons the process."""

    read_bytes = 1024 * 1024
    parallel_reads = 1
    uri = "model://"

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers, self._position = answers, 0
        self.paused_at: Operation | None = None

    def _answer(self, operation: Operation) -> Any:
        if self._position == len(self._answers):
            self.paused_at = self.paused_at or operation
            raise Paused(operation)
        answer = self._answers[self._position]
        self._position += 1
        if isinstance(answer, Lost):
            raise StoreUnavailable(f"the answer to {operation} was lost")
        if isinstance(answer, Absent):
            raise NotFound(f"{operation.key} does not exist")
        return answer

    def list(self, prefix: str) -> list[Entry]:
        return [*self._answer(Operation("list", prefix))]

    def read(self, key: str) -> bytes:
        data: bytes = self._answer(Operation("read", key))
        return data

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        data: bytes = self._answer(Operation("read", key))
        total = 0
        for buffer in buffers:
            piece = data[offset + total : offset + total + len(buffer)]
            buffer[: len(piece)] = piece
            total += len(piece)
        return total

    def create(self, key: str, data: bytes) -> bool:
        created: bool = self._answer(Operation("create", key, data))
        return created

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._answer(Operation("put", key, b"".join(parts)))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._answer(Operation("delete", key))

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        return []

    def discard(self, what: Unfinished) -> NoReturn:
        raise AssertionError("nothing is ever unfinished here")


class Program(Protocol):
    """What one process does: uses the store, tells what a person would rely on, and returns."""

    def __call__(self, store: Store, tell: Callable[[str, Any], None]) -> None: ...


@dataclass(frozen=True)
class Position:
    """Where a process stands: the operation it waits for, or None at its end; what it has told."""

    pending: Operation | None
    told: tuple[tuple[str, Any], ...]

    def last(self, kind: str) -> Any:
        """The newest thing that it has told of this kind, or None."""
        return next((value for told, value in reversed(self.told) if told == kind), None)


@dataclass
class Process:
    """A program with its answers; positions are remembered."""

    program: Program
    _positions: dict[tuple[Any, ...], Position] = field(default_factory=dict)

    def at(self, answers: tuple[Any, ...]) -> Position:
        if answers not in self._positions:
            store, told = Replayed(answers), list[tuple[str, Any]]()
            pending = None
            try:
                self.program(store, lambda kind, value: told.append((kind, value)))
            except Paused as paused:
                pending = store.paused_at or paused.operation
            self._positions[answers] = Position(pending, tuple(told))
        return self._positions[answers]


Objects = Mapping[str, bytes]


def perform(objects: dict[str, bytes], operation: Operation) -> Any:
    """Do it in memory; the answer."""
    match operation.name:
        case "list":
            keys = sorted(key for key in objects if key.startswith(operation.key))
            return tuple(Entry(key, len(objects[key]), TIME) for key in keys)
        case "read":
            return objects.get(operation.key, Absent())
        case "create":
            if operation.key in objects:
                return False
            objects[operation.key] = operation.content
            return True
        case "put":
            objects[operation.key] = operation.content
        case "delete":
            objects.pop(operation.key, None)
        case other:
            raise AssertionError(other)
    return None


def perform_on(store: Store, operation: Operation) -> Any:
    """Do it on a real store; the answer, without the times of its clock."""
    match operation.name:
        case "list":
            found = store.list(operation.key)
            return tuple(Entry(each.key, each.size, TIME) for each in sorted(found, key=lambda e: e.key))
        case "read":
            try:
                return store.read(operation.key)
            except NotFound:
                return Absent()
        case "create":
            return store.create(operation.key, operation.content)
        case "put":
            return store.put(operation.key, [operation.content])
        case "delete":
            return store.delete([operation.key])
        case other:
            raise AssertionError(other)


@dataclass(frozen=True)
class State:
    """One state of the whole."""

    objects: frozenset[tuple[str, bytes]]
    answers: tuple[tuple[Any, ...], ...]
    promised: int
    """What the first process had been told is durable when the second one claimed."""
    num_lost: int = 0


@dataclass(frozen=True)
class Search:
    """Depth first over all schedules of the processes."""

    processes: Sequence[Process]
    is_claim: Callable[[Operation], bool]
    """Whether this is the moment from which the second process is the run."""
    num_lost: int = 0
    """How many answers to exclusive creations may get lost on the way."""

    def states(self, limit: int) -> Iterator[tuple[State, Callable[[], list[str]]]]:
        """Each reachable state once, with a function that tells how it came about."""
        start = State(frozenset(), ((),) * len(self.processes), 0)
        before: dict[State, tuple[State, str] | None] = {start: None}
        stack = [start]
        while stack:
            state = stack.pop()
            yield state, lambda state=state: _trace(before, state)
            for number, process in enumerate(self.processes):
                operation = process.at(state.answers[number]).pending
                if operation is None:
                    continue
                for successor, what in self._successors(state, number, operation):
                    if successor not in before:
                        before[successor] = (state, f"{number + 1}: {what}")
                        stack.append(successor)
            if len(before) > limit:
                raise AssertionError(f"more than {limit} states: the model is too large")

    def _successors(self, state: State, number: int, operation: Operation) -> Iterator[tuple[State, str]]:
        objects = dict(state.objects)
        answer = perform(objects, operation)
        after = frozenset(objects.items())
        promised = state.promised
        if number == 1 and self.is_claim(operation) and answer is True:
            promised = self.processes[0].at(state.answers[0]).last("durable") or 0
        yield self._moved(state, number, after, answer, promised, 0), str(operation)
        if state.num_lost < self.num_lost and operation.name == "create":
            yield self._moved(state, number, after, Lost(), promised, 1), f"{operation}, answer lost"
            yield (
                self._moved(state, number, state.objects, Lost(), state.promised, 1),
                f"{operation}, not done",
            )

    @staticmethod
    def _moved(
        state: State,
        number: int,
        objects: frozenset[tuple[str, bytes]],
        answer: Any,
        promised: int,
        lost: int,
    ) -> State:
        answers = list(state.answers)
        answers[number] = (*answers[number], answer)
        return State(objects, tuple(answers), promised, state.num_lost + lost)


def _trace(before: Mapping[State, tuple[State, str] | None], state: State) -> list[str]:
    steps = []
    while (link := before[state]) is not None:
        state, step = link
        steps.append(step)
    return steps[::-1]


def run_to_end(process: Process, do: Callable[[Operation], Any]) -> Position:
    """Let one process go on alone from its beginning."""
    answers: tuple[Any, ...] = ()
    while (operation := process.at(answers).pending) is not None:
        answers = (*answers, do(operation))
    return process.at(answers)
