"""The queue under virtual time: one look per job at a time, none lost, errors backed off."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from spot_operator.kube import TooManyRequests, Unreachable
from spot_operator.workqueue import BACKOFF_MAX_SECONDS, MAX_SLOW, MAX_SLOW_AGAIN, PATIENCE_SECONDS, WorkQueue

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def running(
    handle: Callable[[str], Awaitable[float | None]],
    workers: int = 2,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue(handle, workers=workers, jitter=lambda: 1.0, patience_seconds=patience_seconds)
    task = asyncio.create_task(queue.run())
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_many_wakes_of_a_waiting_key_are_one_look_at_the_earliest_time() -> None:
    looks: list[float] = []

    async def handle(key: str) -> None:
        looks.append(now())

    async with running(handle) as queue:
        start = now()
        for after in (5, 3, 9, 3):
            queue.wake("a", after)
        await asyncio.sleep(20)
    assert [round(look - start, 3) for look in looks] == [3]


async def test_wake_during_a_look_leads_to_one_more_after_it() -> None:
    spans: list[tuple[float, float]] = []

    async def handle(key: str) -> None:
        begin = now()
        await asyncio.sleep(2)
        spans.append((begin, now()))

    async with running(handle) as queue:
        queue.wake("a")
        await asyncio.sleep(1)
        queue.wake("a")
        queue.wake("a")
        await asyncio.sleep(20)
    assert len(spans) == 2
    assert spans[1][0] >= spans[0][1]


async def test_slow_job_does_not_delay_another() -> None:
    ended: dict[str, float] = {}

    async def handle(key: str) -> None:
        await asyncio.sleep(100 if key == "slow" else 1)
        ended[key] = now()

    async with running(handle) as queue:
        start = now()
        queue.wake("slow")
        queue.wake("quick")
        await asyncio.sleep(10)
        assert ended == {"quick": pytest.approx(start + 1)}


async def test_no_more_looks_at_once_than_workers() -> None:
    active = most = 0

    async def handle(key: str) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.5)
        active -= 1

    async with running(handle, workers=3) as queue:
        for number in range(10):
            queue.wake(str(number))
        await asyncio.sleep(20)
    assert most == 3


async def test_returned_seconds_are_the_next_look_and_none_waits() -> None:
    looks: list[float] = []

    async def handle(key: str) -> float | None:
        looks.append(now())
        return 7.0 if len(looks) < 3 else None

    async with running(handle) as queue:
        queue.wake("a")
        await asyncio.sleep(100)
    assert [round(b - a, 3) for a, b in itertools.pairwise(looks)] == [7, 7]


async def test_errors_back_off_up_to_a_bound_and_a_success_forgets_them() -> None:
    looks: list[float] = []

    async def handle(key: str) -> None:
        looks.append(now())
        if len(looks) <= 10:
            raise Unreachable("no answer")

    async with running(handle) as queue:
        queue.wake("a")
        await asyncio.sleep(500)
        gaps = [b - a for a, b in itertools.pairwise(looks)]
        assert len(looks) == 11
        assert gaps == sorted(gaps)
        assert max(gaps) == pytest.approx(BACKOFF_MAX_SECONDS)


async def test_server_that_asks_for_patience_gets_it() -> None:
    looks: list[float] = []

    async def handle(key: str) -> None:
        looks.append(now())
        if len(looks) == 1:
            raise TooManyRequests("slow down", retry_after=12.0)

    async with running(handle) as queue:
        queue.wake("a")
        await asyncio.sleep(60)
    assert looks[1] - looks[0] == pytest.approx(12.0)


async def test_unexpected_error_of_one_job_does_not_end_the_queue() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)
        if key == "bad":
            raise ZeroDivisionError

    async with running(handle) as queue:
        queue.wake("bad")
        await asyncio.sleep(0.01)
        queue.wake("good")
        await asyncio.sleep(0.01)
    assert seen == ["bad", "good"]


async def test_lateness_is_that_of_the_most_overdue_key() -> None:
    async def handle(key: str) -> None:
        await asyncio.sleep(1000)

    async with running(handle, workers=1, patience_seconds=1000) as queue:
        queue.wake("a")
        await asyncio.sleep(1)
        queue.wake("b")
        await asyncio.sleep(30)
        assert queue.lateness() == pytest.approx(30)


async def test_looks_far_ahead_that_were_replaced_do_not_pile_up() -> None:
    async def handle(key: str) -> None:
        pass

    async with running(handle) as queue:
        queue.wake("near", 300)
        for _ in range(5000):
            queue.wake("a", 86_400)
            queue.wake("a", 0)
            await asyncio.sleep(0.01)
        assert len(queue._heap) < 200


async def test_what_is_urgent_goes_before_all_that_was_due_earlier() -> None:
    looks: list[str] = []

    async def handle(key: str) -> None:
        looks.append(key)
        await asyncio.sleep(1)

    async with running(handle, workers=1) as queue:
        for key in ("busy", "a", "b", "c"):
            queue.wake(key)
        await asyncio.sleep(0.5)
        queue.wake("c", urgent=True)
        queue.wake("d", urgent=True)
        queue.wake("d", 5)
        await asyncio.sleep(10)
    assert looks == ["busy", "c", "d", "a", "b"]


async def test_a_head_start_goes_before_what_became_due_within_it_and_after_all_older_things() -> None:
    looks: list[str] = []

    async def handle(key: str) -> None:
        looks.append(key)
        await asyncio.sleep(10)

    async with running(handle, workers=1, patience_seconds=1000) as queue:
        for key in ("busy", "old"):
            queue.wake(key)
        await asyncio.sleep(6)
        queue.wake("ordinary")
        queue.wake("new", -5)
        queue.wake("urgent", urgent=True)
        await asyncio.sleep(60)
    assert looks == ["busy", "urgent", "old", "new", "ordinary"]


async def test_another_look_at_once_is_not_the_same_as_none() -> None:
    looks: list[float] = []

    async def handle(key: str) -> float | None:
        looks.append(now())
        return 0.0 if len(looks) < 3 else None

    async with running(handle) as queue:
        queue.wake("a")
        await asyncio.sleep(1)
    assert len(looks) == 3


async def test_jobs_that_wait_for_a_webhook_delay_no_others() -> None:
    """40 jobs whose pods a webhook holds for 10 s each time; another job is looked at within patience."""
    ended: dict[str, float] = {}

    async def handle(key: str) -> float | None:
        if key.startswith("held"):
            await asyncio.sleep(10)
            raise Unreachable("the webhook did not answer")
        ended[key] = now()
        return None

    async with running(handle, workers=8) as queue:
        for number in range(40):
            queue.wake(f"held-{number}")
        await asyncio.sleep(0.5)
        for moment in range(100):
            began = now()
            queue.wake(f"new-{moment}")
            queue.wake(f"pressing-{moment}", urgent=True)
            await asyncio.sleep(8)
            assert ended[f"pressing-{moment}"] - began <= PATIENCE_SECONDS
            assert ended[f"new-{moment}"] - began <= 5 * PATIENCE_SECONDS


async def test_slow_looks_are_bounded_and_leave_room_for_what_was_quick_the_last_time() -> None:
    active: set[str] = set()
    most = 0
    quick: list[float] = []

    async def handle(key: str) -> float | None:
        nonlocal most
        if key == "quick":
            quick.append(now())
            return 1.0
        active.add(key)
        most = max(most, len(active))
        await asyncio.sleep(20)
        active.discard(key)
        return 0.5

    async with running(handle, workers=8) as queue:
        for number in range(300):
            queue.wake(f"held-{number}")
        await asyncio.sleep(300)
        queue.wake("quick")
        await asyncio.sleep(300)
    assert MAX_SLOW <= most <= MAX_SLOW + 8
    assert len(quick) > 250


async def test_what_is_urgent_finds_a_worker_whatever_waits() -> None:
    begun: dict[str, float] = {}

    async def handle(key: str) -> None:
        begun[key] = now()
        await asyncio.sleep(0.01 if key.startswith("pressing") else 30)

    async with running(handle, workers=8) as queue:
        for number in range(1000):
            queue.wake(f"held-{number}")
        await asyncio.sleep(9.5)
        for moment in range(100):
            called = now()
            queue.wake(f"pressing-{moment}", urgent=True)
            await asyncio.sleep(2)
            assert begun[f"pressing-{moment}"] - called <= PATIENCE_SECONDS


async def test_an_urgent_look_does_not_wait_because_its_last_one_was_slow() -> None:
    looks: list[tuple[str, float]] = []

    async def handle(key: str) -> None:
        looks.append((key, now()))
        await asyncio.sleep(50)

    async with running(handle, workers=2) as queue:
        for number in range(MAX_SLOW_AGAIN + 1):
            queue.wake(str(number))
        await asyncio.sleep(60)
        for number in range(MAX_SLOW_AGAIN):
            queue.wake(str(number))
        await asyncio.sleep(30)
        began = now()
        queue.wake(str(MAX_SLOW_AGAIN), urgent=True)
        await asyncio.sleep(2)
    assert looks[-1] == (str(MAX_SLOW_AGAIN), pytest.approx(began))


async def test_a_queue_that_is_late_but_gets_on_is_not_at_a_standstill() -> None:
    """Every look waits for an API server that does not answer: the process is none the worse for it."""

    async def handle(key: str) -> None:
        await asyncio.sleep(15 if key != "stuck" else 1000)
        raise Unreachable("no answer")

    async with running(handle, workers=2, patience_seconds=1000) as queue:
        for number in range(100):
            queue.wake(str(number))
        await asyncio.sleep(300)
        assert queue.lateness() > 250
        assert queue.standstill() <= 15

    async with running(handle, workers=1, patience_seconds=1000) as queue:
        queue.wake("stuck")
        await asyncio.sleep(100)
        assert queue.standstill() == 0  # nothing else is due
        queue.wake("other")
        await asyncio.sleep(200)
        assert queue.standstill() == pytest.approx(200)


async def test_an_urgent_look_that_asks_for_another_at_once_stays_urgent() -> None:
    looks: list[str] = []

    async def handle(key: str) -> float | None:
        looks.append(key)
        await asyncio.sleep(0.5)
        return 0.0 if looks == ["busy", "lost"] else None

    async with running(handle, workers=1) as queue:
        queue.wake("busy")
        await asyncio.sleep(0.1)
        for key in ("a", "b"):
            queue.wake(key)
        queue.wake("lost", urgent=True)
        await asyncio.sleep(10)
    assert looks == ["busy", "lost", "lost", "a", "b"]
