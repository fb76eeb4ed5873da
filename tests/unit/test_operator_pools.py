"""Jobs of one pool share what they have measured; those of another do not."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_operator import pools
from spot_operator.decide.overheads import merged
from spot_operator.model import InterruptionRate, Overheads, Pool, ZoneInterruptions
from spot_operator.policy import Interruptions, Launches
from spot_operator.pools import MAX_JOBS, PoolBook
from spot_operator.testing import make_spec

KINDS = ("spot", "on_demand")
SLOW = Overheads(spot=Launches().and_one(300.0))
FAST = Overheads(spot=Launches().and_one(20.0), on_demand=Launches().and_one(90.0))


def test_others_of_the_pool_are_known_and_oneself_is_not() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, SLOW)
    book.learn("b", spec, FAST)
    others = book.known("a", spec)
    assert others.on_demand == FAST.on_demand
    # Every use adds what the job has measured itself; the extremes of all are then the same.
    assert merged(SLOW.spot, others.spot) == merged(SLOW.spot, FAST.spot)
    assert book.known("c", spec).spot == Launches(2, 320.0, 20.0, 300.0)


def test_another_pool_is_another_matter() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, FAST)
    elsewhere = replace(spec, spot=Pool(node_selector={"pool": "other"}))
    assert book.known("c", elsewhere) == Overheads(on_demand=FAST.on_demand)


def test_a_job_is_counted_once_with_what_it_says_last() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, SLOW)
    book.learn("a", spec, FAST)
    assert book.known("b", spec) == FAST


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(KINDS), st.integers(1, 500)),
        min_size=1,
        max_size=12,
    )
)
def test_what_is_known_is_what_adding_all_others_gives(seen: list[tuple[str, str, int]]) -> None:
    book, spec = PoolBook(), make_spec()
    every: dict[str, Overheads] = {}
    for uid, kind, taken in seen:
        before = every.get(uid, Overheads())
        every[uid] = replace(before, **{kind: getattr(before, kind).and_one(float(taken))})
        book.learn(uid, spec, every[uid])
        for asked, of in itertools.product("abcx", KINDS):
            own = getattr(every.get(asked, Overheads()), of)
            want = own
            for other, overheads in every.items():
                want = want if other == asked else merged(want, getattr(overheads, of))
            assert merged(own, getattr(book.known(asked, spec), of)) == want


def test_the_book_is_bounded() -> None:
    book, spec = PoolBook(), make_spec()
    for number in range(MAX_JOBS + 5):
        book.learn(f"job-{number}", spec, FAST)
    assert book.known("x", spec).spot.count == MAX_JOBS


def test_what_was_looked_at_last_is_not_what_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_JOBS", 2)
    book, spec = PoolBook(), make_spec()
    for uid in ("a", "b", "a", "c"):
        book.learn(uid, spec, FAST)
    # "b" was: those who ask count themselves out.
    assert [book.known(uid, spec).spot.count for uid in "abc"] == [1, 2, 1]


def test_pools_of_which_nobody_knows_anything_leave_nothing_behind() -> None:
    book = PoolBook()
    for number in range(50):
        spec = make_spec(spot=Pool(node_selector={"run": str(number)}))
        book.learn("a", spec, Overheads(), rate(("x", 1, 10.0)))
        book.known("a", spec)
        book.learn("a", spec, Overheads())
    assert (book._launches, book._interruptions) == ({}, {})


def rate(*zones: tuple[str, int, float]) -> InterruptionRate:
    return InterruptionRate(
        zones=tuple(ZoneInterruptions(zone=z, interruptions=n, node_seconds=s) for z, n, s in zones)
    )


def test_interruptions_of_others_in_the_spot_pool_are_known_by_zone() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, Overheads(), rate(("x", 1, 100.0), ("y", 0, 50.0)))
    book.learn("b", spec, Overheads(), rate(("x", 2, 10.5)))
    assert book.known_interruptions("c", spec) == {"x": Interruptions(3, 110.5), "y": Interruptions(0, 50.0)}
    assert book.known_interruptions("a", spec) == {"x": Interruptions(2, 10.5)}
    elsewhere = replace(spec, spot=Pool(node_selector={"pool": "other"}))
    assert book.known_interruptions("c", elsewhere) == {}
    assert book.known_interruptions("a", elsewhere) == {}
    other_on_demand = replace(spec, on_demand=Pool(node_selector={"pool": "other"}))
    assert book.known_interruptions("a", other_on_demand) == {"x": Interruptions(2, 10.5)}


def test_a_job_that_has_seen_nothing_is_not_remembered() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, FAST)
    for number in range(MAX_JOBS):
        book.learn(f"idle-{number}", spec, Overheads())
    assert book.known("x", spec) == FAST


zones = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 9), st.floats(0, 1e7).map(lambda s: round(s, 3))),
    max_size=3,
    unique_by=lambda each: each[0],
)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), zones), max_size=12))
def test_however_often_jobs_are_looked_at_each_counts_once(
    looks: list[tuple[int, bool, list[tuple[str, int, float]]]],
) -> None:
    book, pools = PoolBook(), (make_spec(), make_spec(spot=Pool(node_selector={"pool": "other"})))
    newest: dict[int, tuple[bool, list[tuple[str, int, float]]]] = {}
    for job, is_other, seen in looks:
        book.learn(str(job), pools[is_other], Overheads(), rate(*seen))
        before = newest.get(job, (False, []))
        # A job that says the same as before is where it was.
        newest[job] = before if sorted(before[1]) == sorted(seen) else (is_other, seen)
    for asking in range(5):
        for is_other, spec in enumerate(pools):
            want: dict[str, Interruptions] = {}
            for job, (where, seen) in newest.items():
                if job != asking and where == bool(is_other):
                    for zone, count, time in seen:
                        old = want.get(zone, Interruptions())
                        want[zone] = Interruptions(old.count + count, round(old.node_seconds + time, 3))
            want = {zone: each for zone, each in want.items() if each != Interruptions()}
            found = book.known_interruptions(str(asking), spec)
            assert {z: (i.count, round(i.node_seconds, 2)) for z, i in found.items()} == {
                z: (i.count, round(i.node_seconds, 2)) for z, i in want.items()
            }


def test_who_is_forgotten_is_not_counted_any_more() -> None:
    book, spec = PoolBook(), make_spec()
    for number in range(MAX_JOBS + 5):
        book.learn(f"job-{number}", spec, Overheads(), rate(("x", 1, 1.0)))
    assert book.known_interruptions("x", spec) == {"x": Interruptions(MAX_JOBS, float(MAX_JOBS))}


def test_taking_in_the_jobs_of_a_large_pool_adds_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    added = 0

    def count(first: Launches, second: Launches) -> Launches:
        nonlocal added
        added += 1
        return merged(first, second)

    monkeypatch.setattr(pools, "merged", count)
    book, spec = PoolBook(), make_spec()
    for number in range(300):
        book.learn(f"job-{number}", spec, FAST)
        book.known(f"job-{number}", spec)
    assert added <= 2 * 300
