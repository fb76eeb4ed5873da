"""When everything is listed again, and whom that wakes; under virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from scripted_api import KEY, Json, Quiet, begin, make_core, settled, with_version

from spot_operator.core import GAP_PATIENCE_SECONDS, GAP_RETRY_MAX_SECONDS, GAP_SETTLING_SECONDS, Core
from spot_operator.kube import KubeError
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID
from spot_operator.workqueue import ORDINARY, URGENT

pytestmark = pytest.mark.looptime
PERIOD_SECONDS = Settings(namespace="system").resync_seconds
WORKERS = Settings(namespace="system").workers


def now() -> float:
    return asyncio.get_running_loop().time()


class Listings:
    """When each was asked for, and within which time all jobs were to be looked at."""

    def __init__(self, fails: int = 0) -> None:
        self.times: list[float] = []
        self.spreads: list[float | None] = []
        self.while_listing: Callable[[], None] | None = None
        """Called once."""
        self._fails = fails

    async def list_all(self, *, spread_seconds: float | None = None) -> None:
        self.times.append(round(now(), 3))
        self.spreads.append(spread_seconds)
        happens, self.while_listing = self.while_listing, None
        if happens is not None:
            happens()
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


@pytest.mark.parametrize(
    ("due", "makes_looks", "breaks", "waits"),
    [
        pytest.param(WORKERS, False, False, 0.0, id="no more than are made at a time"),
        pytest.param(WORKERS + 1000, False, False, 0.5, id="none is made, so that it would help nobody"),
        pytest.param(WORKERS + 3, True, False, 0.5, id="until few are left"),
        pytest.param(WORKERS + 1000, True, False, GAP_PATIENCE_SECONDS, id="no longer"),
        pytest.param(WORKERS + 1000, True, True, 0.0, id="not where nothing else tells of a notice"),
    ],
)
async def test_a_listing_after_a_gap_waits_while_looks_are_made_but_not_for_long(
    due: int, *, makes_looks: bool, breaks: bool, waits: float
) -> None:
    listings, began = Listings(), now()
    async with listing_again(listings) as core:
        core.queue._due.clear()
        for number in range(due):
            core.queue.wake(("default", f"job-{number}"))
        core.hear_break() if breaks else core.hear_gap()
        await asyncio.sleep(GAP_SETTLING_SECONDS)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if makes_looks and core.queue._due:
                core.queue._due.popitem()
    assert listings.times[0] == began + GAP_SETTLING_SECONDS + waits


def test_the_longest_wait_costs_a_notice_of_ten_seconds_no_more_than_half() -> None:
    assert GAP_PATIENCE_SECONDS <= 5.0


async def test_a_watch_that_breaks_while_looks_are_waited_for_ends_the_wait() -> None:
    listings, began = Listings(), now()
    async with listing_again(listings) as core:
        core.queue._due.clear()
        core.hear_gap()
        for number in range(WORKERS + 1000):
            core.queue.wake(("default", f"job-{number}"))
        await asyncio.sleep(GAP_SETTLING_SECONDS + 0.2)
        core.hear_break()
        for _ in range(50):
            core.queue._due.popitem()
            await asyncio.sleep(0.1)
    assert listings.times[0] == began + GAP_SETTLING_SECONDS + 0.5


async def test_a_watch_that_breaks_during_a_listing_is_not_forgotten() -> None:
    listings, began = Listings(), now()
    async with listing_again(listings) as core:
        core.queue._due.clear()
        listings.while_listing = core.hear_break
        core.hear_break()
        for number in range(WORKERS + 1000):
            core.queue.wake(("default", f"job-{number}"))
        for _ in range(50):
            await asyncio.sleep(0.1)
            core.queue._due.popitem()
    assert listings.times == [began + GAP_SETTLING_SECONDS, began + 2 * GAP_SETTLING_SECONDS]


async def test_neither_looks_of_later_nor_a_listing_in_its_turn_are_waited_for() -> None:
    listings, began = Listings(), now()
    async with listing_again(listings) as core:
        core.queue._due.clear()
        for number in range(WORKERS + 1000):
            core.queue.wake(("default", f"job-{number}"), 2 * PERIOD_SECONDS)
        core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 2)
        for number in range(WORKERS + 1000):
            core.queue.wake(("default", f"job-{number}"))
        await asyncio.sleep(PERIOD_SECONDS)
    assert listings.times == [began + GAP_SETTLING_SECONDS, began + PERIOD_SECONDS]


async def test_a_break_is_over_with_the_listing_after_it() -> None:
    listings, began = Listings(fails=1), now()
    async with listing_again(listings) as core:
        core.queue._due.clear()
        core.hear_break()
        for number in range(WORKERS + 1):
            core.queue.wake(("default", f"job-{number}"))
        await asyncio.sleep(10)
        core.hear_gap()
        await asyncio.sleep(10)
    first, again, after = (time - began - GAP_SETTLING_SECONDS for time in listings.times)
    assert (first, again, after) == (0.0, 2.0, 10.5)


async def test_gaps_however_many_do_not_keep_the_jobs_from_being_looked_at_once_in_a_period() -> None:
    listings = Listings()
    async with listing_again(listings) as core:
        for _ in range(12):
            core.hear_gap()
            await asyncio.sleep(PERIOD_SECONDS / 4)
    whole = [spread for spread in listings.spreads if spread is not None]
    assert whole == [PERIOD_SECONDS] * 2
    assert len(listings.spreads) == 12


@pytest.mark.parametrize("has_gap", [False, True])
async def test_a_listing_that_fails_in_its_turn_has_all_looked_at_when_it_succeeds(
    has_gap: bool,
) -> None:
    listings = Listings(fails=2)
    async with listing_again(listings) as core:
        await asyncio.sleep(PERIOD_SECONDS - GAP_SETTLING_SECONDS / 2)
        if has_gap:
            core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 2)
    assert listings.spreads == [PERIOD_SECONDS] * 3


async def test_a_gap_during_a_listing_leads_to_another() -> None:
    listings = Listings()
    async with listing_again(listings) as core:
        listings.while_listing = core.hear_gap
        core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 2)
    assert len(listings.times) == 2


async def test_after_a_listing_has_succeeded_the_next_gap_is_not_waited_for_longer() -> None:
    listings = Listings(fails=3)
    async with listing_again(listings) as core:
        core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 2)
        again = now()
        core.hear_gap()
        await asyncio.sleep(PERIOD_SECONDS / 4)
    assert listings.times[-1] == again + GAP_SETTLING_SECONDS


async def test_a_server_that_is_away_for_long_is_asked_often_enough() -> None:
    listings = Listings(fails=1000)
    async with listing_again(listings) as core:
        core.hear_gap()
        await asyncio.sleep(10 * PERIOD_SECONDS)
    waits = [later - earlier for earlier, later in itertools.pairwise(listings.times)]
    assert max(waits) == GAP_RETRY_MAX_SECONDS


class Changing(Quiet):
    """What it answers to lists can be changed; a list may fail, and something be heard while it is read."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self.job = job
        self.empty = ""
        self.fails = ""
        self.while_read: tuple[str, Callable[[], None]] | None = None
        self.core = make_core(self)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if method != "GET":
            return await super()._send(method, path, query, body)
        if self.fails and path.endswith(self.fails):
            return 500, "{}", {}
        found = await super()._send(method, path, query, body)
        if self.while_read is not None and path.endswith(self.while_read[0]):
            happens, self.while_read = self.while_read[1], None
            happens()
        return found

    def _answer(self, path: str, body: Json | None) -> Json:
        return {"items": []} if self.empty and path.endswith(self.empty) else super()._answer(path, body)

    def item(self, path: str) -> dict[str, Any]:
        return cast(dict[str, Any], super()._answer(path, None)["items"][0])


async def changing() -> Changing:
    """An operator has looked at all there is, and waits."""
    cluster = Changing((await settled()).job)
    await cluster.core.list_all(is_first=True)
    await cluster.core.reconciler.reconcile(KEY)
    cluster.core.queue._due.clear()
    return cluster


async def test_a_listing_after_a_gap_wakes_nobody_of_whom_it_shows_nothing_new() -> None:
    cluster = await changing()
    await cluster.core.list_all()
    assert not cluster.core.queue._due


@pytest.mark.parametrize("kind", ["/nodes", "/pods", "/spottrainingjobs"])
async def test_a_listing_wakes_those_of_whom_something_is_not_there_any_more(kind: str) -> None:
    cluster = await changing()
    cluster.empty = kind
    await cluster.core.list_all()
    assert KEY in cluster.core.queue._due


TAINT = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}


@pytest.mark.parametrize("what", ["notice", "gone", "cordoned by hand"])
async def test_a_notice_that_a_listing_shows_first_is_as_urgent_as_one_that_is_heard(what: str) -> None:
    cluster = await changing()
    match what:
        case "notice":
            cluster.taints = [TAINT]
        case "gone":
            cluster.empty = "/nodes"
        case _:
            cluster.is_cordoned = True
    await cluster.core.list_all()
    if what != "gone":
        cluster.core.hear_node(cluster.item("/nodes"))
    assert cluster.core.queue._due[KEY][0] == (ORDINARY if what == "cordoned by hand" else URGENT)


async def test_a_listing_wakes_a_job_that_others_have_written() -> None:
    cluster = await changing()
    cluster.job = cast(dict[str, Any], with_version(cluster.job, "30"))
    await cluster.core.list_all()
    assert KEY in cluster.core.queue._due


@pytest.mark.parametrize(
    ("gone", "fails"),
    list(itertools.permutations(("/nodes", "/pods", "/spottrainingjobs"), 2)),
)
async def test_what_a_listing_shows_is_looked_at_also_where_a_part_of_it_fails(gone: str, fails: str) -> None:
    """The next one finds nothing new there."""
    cluster = await changing()
    cluster.empty, cluster.fails = gone, fails
    with pytest.raises(KubeError):
        await cluster.core.list_all()
    assert KEY in cluster.core.queue._due


async def test_a_first_listing_that_fails_has_all_jobs_looked_at_when_it_succeeds() -> None:
    cluster = Changing((await settled()).job)
    cluster.fails = "/spottrainingjobs"
    with pytest.raises(KubeError):
        await cluster.core.list_all(is_first=True)
    cluster.fails = ""
    await cluster.core.list_all(is_first=True)
    assert KEY in cluster.core.queue._due


async def test_a_node_that_is_heard_of_while_nodes_are_listed_stays() -> None:
    cluster = await changing()
    other = {"metadata": {"name": "spot-b", "uid": "node-uid-b"}, "spec": {}}
    cluster.while_read = "/nodes", lambda: cluster.core.hear_node(other)
    await cluster.core.list_all()
    assert cluster.core.nodes.get("spot-b") is not None


async def test_a_pod_that_is_heard_to_be_gone_while_pods_are_listed_is_gone() -> None:
    cluster = await changing()
    pod = cluster.item("/pods")
    cluster.while_read = "/pods", lambda: cluster.core.hear_pod(pod, deleted=True)
    await cluster.core.list_all()
    assert cluster.core.pods.present(JOB_UID) == ()


async def test_a_job_that_is_heard_of_while_jobs_are_listed_is_not_taken_for_gone() -> None:
    cluster = await changing()
    cluster.empty = "/spottrainingjobs"
    cluster.while_read = "/spottrainingjobs", lambda: cluster.core.hear_job(cluster.job)
    await cluster.core.list_all()
    assert not cluster.core.queue._due


async def test_the_own_write_of_a_look_under_way_is_no_reason_for_another() -> None:
    cluster = await changing()
    cluster.core.known.begin_look(KEY)
    cluster.job = cast(dict[str, Any], with_version(cluster.job, "30"))
    await cluster.core.list_all()
    assert not cluster.core.queue._due
    cluster.core.known.note_written(KEY, cluster.job)
    assert not cluster.core.known.end_look(KEY)


async def test_a_listing_in_its_turn_has_everybody_looked_at_some_time() -> None:
    cluster = await changing()
    await cluster.core.list_all(spread_seconds=PERIOD_SECONDS)
    assert cluster.core.queue._due.keys() == {KEY}
