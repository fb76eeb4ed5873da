"""Two replicas and one Lease, under virtual time, against a store with true versions."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spot_operator.kube import AlreadyExists, Conflict, Unreachable
from spot_operator.lease import LOOKS_PER_RENEWAL, Elector, LostLease
from spot_operator.settings import LeaseSettings

pytestmark = pytest.mark.looptime
SETTINGS = LeaseSettings()


class ScriptedStore:
    """One Lease with optimistic concurrency; `down` and `hangs` play an API server in trouble."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.down = self.hangs = False

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.sleep(10_000)
        if self.down:
            raise Unreachable("no answer")

    def _lease(self) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(self.spec or {})}

    async def read(self) -> dict[str, Any] | None:
        await self._answer()
        return self._lease() if self.spec is not None else None

    async def create(self, spec: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if self.spec is not None:
            raise AlreadyExists("lease")
        self.spec, self.version = spec, self.version + 1
        return self._lease()

    async def replace(self, lease: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if lease["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("lease")
        self.spec, self.version = spec, self.version + 1
        return self._lease()


def make_elector(
    store: ScriptedStore, identity: str, *, looks_per_renewal: int = LOOKS_PER_RENEWAL
) -> Elector:
    start = datetime(2026, 11, 23, tzinfo=UTC)

    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    return Elector(
        store,
        identity,
        SETTINGS,
        clock=lambda: start + timedelta(seconds=monotonic()),
        monotonic=monotonic,
        looks_per_renewal=looks_per_renewal,
    )


async def test_first_comer_leads_at_once_and_the_other_waits() -> None:
    store = ScriptedStore()
    first, second = make_elector(store, "a"), make_elector(store, "b")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(300)
    assert first.is_leading()
    assert not waiting.done()
    for task in (holding, waiting):
        task.cancel()


async def test_dead_leader_is_replaced_within_the_duration_and_one_retry() -> None:
    store = ScriptedStore()
    dead, second = make_elector(store, "a"), make_elector(store, "b")
    await dead.acquire()
    start = asyncio.get_running_loop().time()
    await second.acquire()
    waited = asyncio.get_running_loop().time() - start
    assert SETTINGS.duration_seconds <= waited <= SETTINGS.duration_seconds + SETTINGS.retry_seconds
    assert not dead.is_leading()
    assert store.spec is not None
    assert store.spec["leaseTransitions"] == 1


@pytest.mark.parametrize(("looks_per_renewal", "most_late"), [(LOOKS_PER_RENEWAL, 1 / 8), (2, 1 / 2)])
async def test_a_leader_that_renewed_and_died_is_replaced_a_fraction_of_a_retry_after_the_duration(
    looks_per_renewal: int, most_late: float
) -> None:
    store = ScriptedStore()
    dying = make_elector(store, "a")
    second = make_elector(store, "b", looks_per_renewal=looks_per_renewal)
    await dying.acquire()
    holding = asyncio.create_task(dying.hold())
    await asyncio.sleep(0.2 * SETTINGS.retry_seconds)  # looks and renewals are not in step
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(4.8 * SETTINGS.retry_seconds + 0.001)  # just after a renewal
    holding.cancel()
    died = asyncio.get_running_loop().time()
    await waiting
    waited = asyncio.get_running_loop().time() - died
    late = (waited - SETTINGS.duration_seconds) / SETTINGS.retry_seconds
    assert most_late / 4 < late <= most_late


async def test_a_lease_that_is_deleted_stays_with_its_holder() -> None:
    """The other could create it first, and then both would lead until the holder's next renewal."""
    store = ScriptedStore()
    first, second = make_elector(store, "a"), make_elector(store, "b")
    await first.acquire()
    holding, waiting = asyncio.create_task(first.hold()), asyncio.create_task(second.acquire())
    await asyncio.sleep(10.1)
    store.spec = None
    await asyncio.sleep(60)
    assert store.spec is not None
    assert (store.spec["holderIdentity"], first.is_leading(), waiting.done()) == ("a", True, False)
    holding.cancel()
    waiting.cancel()


async def test_a_lease_that_is_deleted_with_its_dead_holder_is_taken_when_it_would_have_expired() -> None:
    store = ScriptedStore()
    dead, second = make_elector(store, "a"), make_elector(store, "b")
    await dead.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    store.spec = None
    start = asyncio.get_running_loop().time()
    await waiting
    waited = asyncio.get_running_loop().time() - start
    assert SETTINGS.duration_seconds - 1 <= waited <= SETTINGS.duration_seconds
    assert not dead.is_leading()


async def test_a_lease_of_which_nothing_is_left_but_its_name_is_taken_and_given_back() -> None:
    store = ScriptedStore()
    store.spec = {"leaseTransitions": None}
    only = make_elector(store, "a")
    await only.acquire()
    store.spec = {}
    await only.release()
    assert store.spec == {}


async def test_released_lease_is_taken_at_the_next_look() -> None:
    store = ScriptedStore()
    first, second = make_elector(store, "a"), make_elector(store, "b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    await first.release()
    assert not first.is_leading()
    await asyncio.wait_for(waiting, SETTINGS.retry_seconds + 0.1)
    assert second.is_leading()


async def test_container_restarted_in_its_pod_takes_its_own_lease_back() -> None:
    store = ScriptedStore()
    await make_elector(store, "a").acquire()
    again = make_elector(store, "a")
    await asyncio.wait_for(again.acquire(), 0.1)
    assert again.is_leading()


@pytest.mark.parametrize("trouble", ["down", "hangs"])
async def test_leader_that_cannot_renew_is_silent_before_another_may_begin(trouble: str) -> None:
    store = ScriptedStore()
    leader = make_elector(store, "a")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    setattr(store, trouble, True)
    await asyncio.sleep(SETTINGS.renew_deadline_seconds)
    assert not leader.is_leading()
    assert not holding.done()
    holding.cancel()


async def test_leader_leads_again_when_the_server_is_back_and_nobody_took_over() -> None:
    store = ScriptedStore()
    leader = make_elector(store, "a")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    store.down = True
    await asyncio.sleep(600)
    assert not leader.is_leading()
    store.down = False
    await asyncio.sleep(SETTINGS.retry_seconds + 0.1)
    assert leader.is_leading()
    holding.cancel()


@pytest.mark.parametrize("holder", ["b", ""])
async def test_deposed_leader_ends_itself(holder: str) -> None:
    store = ScriptedStore()
    leader = make_elector(store, "a")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    assert store.spec is not None
    store.spec, store.version = store.spec | {"holderIdentity": holder}, store.version + 1
    with pytest.raises(LostLease):
        await holding
    assert not leader.is_leading()


async def test_two_that_race_for_an_expired_lease_do_not_both_win() -> None:
    store = ScriptedStore()
    await make_elector(store, "dead").acquire()
    rivals = [make_elector(store, name) for name in "bc"]
    tasks = [asyncio.create_task(rival.acquire()) for rival in rivals]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert sum(rival.is_leading() for rival in rivals) == 1
    for task in tasks:
        task.cancel()


async def test_who_gives_the_lease_back_does_not_say_that_a_renewal_under_way_is_overdue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Slow(ScriptedStore):
        async def _answer(self) -> None:
            await asyncio.sleep(0.3)

    first = make_elector(Slow(), "a")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(SETTINGS.retry_seconds + 0.1)
    await first.release()
    await asyncio.sleep(SETTINGS.retry_seconds)
    holding.cancel()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_a_renewal_that_reads_what_giving_back_has_left_does_not_take_it_again() -> None:
    class Held(ScriptedStore):
        """The one request that is held on its way is served after all others."""

        holds = False

        async def read(self) -> dict[str, Any] | None:
            if self.holds:
                self.holds = False
                await asyncio.sleep(0.3)
            return await super().read()

    store = Held()
    first = make_elector(store, "a")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    store.holds = True
    await asyncio.sleep(SETTINGS.retry_seconds + 0.1)
    assert not store.holds
    await first.release()
    await asyncio.sleep(60)
    holding.cancel()
    assert store.spec is not None
    assert store.spec["holderIdentity"] == ""


async def test_a_renewal_under_way_does_not_keep_a_lease_that_is_given_back() -> None:
    class Renewing(ScriptedStore):
        """A renewal arrives between the look and the write of whoever gives the lease back."""

        renews = False

        async def read(self) -> dict[str, Any] | None:
            lease = await super().read()
            if self.renews:
                self.renews, self.version = False, self.version + 1
            return lease

    store = Renewing()
    first = make_elector(store, "a")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    store.renews = True
    await first.release()
    await asyncio.sleep(60)
    holding.cancel()
    assert store.spec is not None
    assert store.spec["holderIdentity"] == ""
    assert not first.is_leading()
