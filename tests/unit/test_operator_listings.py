"""When everything is listed again, and whom that wakes; under virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from scripted_api import KEY, begin, settled, with_version

from spot_operator.core import GAP_SETTLING_SECONDS, Core
from spot_operator.kube import KubeError
from spot_operator.settings import Settings

pytestmark = pytest.mark.looptime
PERIOD_SECONDS = Settings(namespace="system").resync_seconds


def now() -> float:
    return asyncio.get_running_loop().time()


class Listings:
    """When each was asked for, and within which time all jobs were to be looked at."""

    def __init__(self, fails: int = 0) -> None:
        self.times: list[float] = []
        self.spreads: list[float | None] = []
        self._fails = fails

    async def list_all(self, *, spread_seconds: float | None = None) -> None:
        self.times.append(round(now(), 3))
        self.spreads.append(spread_seconds)
        if len(self.times) <= self._fails:
            raise KubeError("overloaded")


@contextlib.asynccontextmanager
async def listing_again(listings: Listings) -> AsyncIterator[Core]:
    core = await begin(await settled())
    core.list_all = listings.list_all  # type: ignore[assignment, method-assign]
    task = asyncio.create_task(core.list_again())
    yield core
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_a_gap_everything_is_listed_and_looked_at_once_in_a_period() -> None:
    listings, began = Listings(), now()
    async with listing_again(listings):
        await asyncio.sleep(2.5 * PERIOD_SECONDS)
    assert listings.times == [began + PERIOD_SECONDS, began + 2 * PERIOD_SECONDS]
    assert listings.spreads == [PERIOD_SECONDS] * 2


async def test_a_listing_after_a_gap_is_repeated_until_it_succeeds_and_less_and_less_often() -> None:
    listings, fails = Listings(fails=3), 3
    async with listing_again(listings) as core:
        core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 2)
    assert len(listings.times) == fails + 1
    waits = [later - earlier for earlier, later in itertools.pairwise(listings.times)]
    assert waits == [GAP_SETTLING_SECONDS * 2**number for number in range(1, fails + 1)]


async def test_many_gaps_at_one_time_are_one_listing() -> None:
    listings, began = Listings(), now()
    async with listing_again(listings) as core:
        for _ in range(5):
            core.hear_gap()
            await asyncio.sleep(GAP_SETTLING_SECONDS / 10)
        await asyncio.sleep(PERIOD_SECONDS / 2)
    assert listings.times == [began + GAP_SETTLING_SECONDS]


async def test_gaps_however_many_do_not_keep_the_jobs_from_being_looked_at_once_in_a_period() -> None:
    listings = Listings()
    async with listing_again(listings) as core:
        for _ in range(12):
            core.hear_gap()
            await asyncio.sleep(PERIOD_SECONDS / 4)
    whole = [spread for spread in listings.spreads if spread is not None]
    assert whole == [PERIOD_SECONDS] * 2
    assert len(listings.spreads) == 12


async def test_a_listing_that_fails_in_its_turn_waits_for_the_next() -> None:
    listings = Listings(fails=1)
    async with listing_again(listings):
        await asyncio.sleep(2.5 * PERIOD_SECONDS)
    assert len(listings.times) == 2


async def test_a_listing_after_a_gap_wakes_nobody_of_whom_it_shows_nothing_new() -> None:
    cluster = await settled()
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    core.queue._due.clear()
    await core.list_all()
    assert not core.queue._due
    cluster.job = cast(dict[str, Any], with_version(cluster.job, "30"))
    await core.list_all()
    assert KEY in core.queue._due


async def test_a_listing_in_its_turn_has_everybody_looked_at_some_time() -> None:
    cluster = await settled()
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    core.queue._due.clear()
    await core.list_all(spread_seconds=PERIOD_SECONDS)
    assert core.queue._due.keys() == {KEY}
