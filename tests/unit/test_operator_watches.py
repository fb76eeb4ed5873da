"""A watch goes on after what kopf would end it for, and tells of every listing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kopf._cogs.clients import errors, watching

from spot_operator import watches
from spot_operator.metrics import REGISTRY

LISTED = watching.Bookmark.LISTED
BROKEN = watching.WatchingError("Error in the watch-stream: ...")
ABSENT = errors.APINotFoundError("not now", status=404, headers={})
NO_JSON = json.JSONDecodeError("Expecting value", "<html>", 0)
EVENT = {"type": "ADDED", "object": {}}


class Pods:
    plural = "pods"


class Scripted:
    """What each watch in turn yields and ends with; and which waits there were between."""

    def __init__(self, *scripts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self._scripts = list(scripts)
        self.waits: list[float] = []
        self.gaps = self.breaks = 0
        self.lives_seconds = 0.0
        self._now = 0.0
        monkeypatch.setattr(watches.random, "uniform", lambda _low, high: high)
        monkeypatch.setattr(watches.asyncio, "sleep", self._sleep)
        monkeypatch.setattr(watches.asyncio, "get_running_loop", lambda: self)

    def time(self) -> float:
        return self._now

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._now += seconds

    async def watch(self, **_: Any) -> AsyncIterator[Any]:
        for each in self._scripts.pop(0):
            if isinstance(each, Exception):
                self._now += self.lives_seconds
                raise each
            yield each

    def hear_gap(self) -> None:
        self.gaps += 1

    def hear_break(self) -> None:
        self.breaks += 1

    async def run(self) -> list[Any]:
        steady = watches.steady(self.watch, self.hear_gap, self.hear_break)
        return [event async for event in steady(resource=Pods())]


Script = Callable[..., Scripted]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return lambda *scripts: Scripted(*scripts, monkeypatch=monkeypatch)


def num_errors() -> float:
    return REGISTRY.get_sample_value("spot_operator_watch_errors_total", {"resource": "pods"}) or 0.0


async def test_every_listing_is_told_even_if_it_is_empty(script: Script) -> None:
    scripted = script([LISTED, EVENT])
    assert await scripted.run() == [LISTED, EVENT]
    assert (scripted.gaps, scripted.waits) == (1, [])


async def test_nothing_is_told_of_a_watch_that_ends_before_its_listing_does(script: Script) -> None:
    scripted = script([{"type": None, "object": {}}])
    await scripted.run()
    assert scripted.gaps == 0


@pytest.mark.parametrize("error", [BROKEN, ABSENT, NO_JSON, KeyError("code")])
async def test_it_begins_anew_after_an_error_and_what_was_missed_is_asked_for(
    script: Script, error: Exception
) -> None:
    before = num_errors()
    scripted = script([LISTED, EVENT, error], [LISTED, EVENT])
    assert await scripted.run() == [LISTED, EVENT, LISTED, EVENT]
    assert (scripted.gaps, scripted.breaks, scripted.waits) == (2, 1, [1.0])
    assert num_errors() - before == 1


async def test_it_waits_longer_from_error_to_error_up_to_half_a_minute(script: Script) -> None:
    scripted = script(*[[ABSENT]] * 7, [])
    await scripted.run()
    assert scripted.waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("lives_seconds", "waits"), [(59.0, [1, 2, 4]), (60.0, [1, 1, 1])])
async def test_a_watch_that_lived_begins_with_the_shortest_wait(
    script: Script, lives_seconds: float, waits: list[float]
) -> None:
    scripted = script([BROKEN], [BROKEN], [BROKEN], [])
    scripted.lives_seconds = lives_seconds
    await scripted.run()
    assert scripted.waits == waits


@pytest.mark.parametrize(
    "error",
    [
        errors.APIUnauthorizedError("token", status=401, headers={}),
        errors.APITooManyRequestsError("slowly", status=429, headers={}),
        errors.APIServerError("retried within", status=500, headers={}),
        ValueError("a defect"),
    ],
)
async def test_all_else_is_left_as_it_is(script: Script, error: Exception) -> None:
    with pytest.raises(type(error)):
        await script([error]).run()


async def test_nothing_of_a_broken_watch_is_left_to_end_the_next_one() -> None:
    """kopf's has a timer for silence, which runs as long as anything holds the watch."""

    async def events() -> AsyncIterator[Any]:
        async with asyncio.timeout(0.2):
            yield EVENT
            await asyncio.sleep(10)

    async def watch(**_: Any) -> AsyncIterator[Any]:
        begun.append(True)
        if len(begun) > 1:
            return
        stream = events()  # held by the frame, and so by the error
        async for event in stream:
            yield event
            raise watching.WatchingError("as fresh as the watch, which it holds")

    begun: list[bool] = []
    steady = watches.steady(watch, lambda: None, lambda: None)
    assert [event async for event in steady(resource=Pods())] == [EVENT]
    assert len(begun) == 2


def test_kopf_is_as_before_once_the_watches_have_ended() -> None:
    original = watching.continuous_watch
    with watches.steady_watches(lambda: None, lambda: None):
        assert watching.continuous_watch is not original
    assert watching.continuous_watch is original
