"""Which checkpoints count is a function of the claims and what they recorded."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_trainer import lineage
from spot_trainer.cadence import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Cadence
from spot_trainer.lineage import AttemptName, Claim, ClaimName, Lineage
from spot_trainer.retention import Published, superseded

CREATED = datetime(2026, 12, 1, tzinfo=UTC)


def claim(incarnation: int, base: AttemptName | None = None, *, job: str = "job", days: int = 0) -> Claim:
    name = ClaimName.make(CREATED + timedelta(days=days), job, incarnation)
    return Claim(name, f"{incarnation + 1000 * days:016x}", base=base)


def attempt(step: int, incarnation: int, count: int = 1) -> AttemptName:
    return AttemptName.make(step, incarnation, f"{incarnation:016x}", count)


OWN = ClaimName.make(CREATED, "job", 99)

CASES = {
    "an empty store means a fresh start": ([], [], []),
    "a claim without a base and without a checkpoint is skipped": (
        [claim(1), claim(2), claim(3)],
        [attempt(10, 1), attempt(20, 1)],
        [attempt(20, 1), attempt(10, 1)],
    ),
    "own checkpoints come before the base": (
        [claim(1), claim(2, attempt(10, 1))],
        [attempt(10, 1), attempt(15, 2)],
        [attempt(15, 2), attempt(10, 1)],
    ),
    "what a predecessor published after it was built upon does not count": (
        [claim(1), claim(2, attempt(10, 1))],
        [attempt(5, 1), attempt(10, 1), attempt(90, 1), attempt(15, 2)],
        [attempt(15, 2), attempt(10, 1), attempt(5, 1)],
    ),
    "a claim that died before its first checkpoint hands on its base, not what came later": (
        [claim(1), claim(2, attempt(10, 1))],
        [attempt(10, 1), attempt(90, 1)],
        [attempt(10, 1)],
    ),
    "a base is followed across several claims, over the ones that were given up": (
        [claim(1), claim(2, attempt(10, 1)), claim(3, attempt(10, 1)), claim(4, attempt(12, 3))],
        [attempt(10, 1), attempt(50, 2), attempt(12, 3), attempt(13, 3), attempt(14, 4)],
        [attempt(14, 4), attempt(12, 3), attempt(10, 1)],
    ),
    "an attempt that no claim explains is never a candidate": (
        [claim(1)],
        [attempt(10, 1), attempt(99, 7)],
        [attempt(10, 1)],
    ),
    "two saves at one step: the later one first": (
        [claim(1)],
        [attempt(10, 1, 1), attempt(10, 1, 2)],
        [attempt(10, 1, 2), attempt(10, 1, 1)],
    ),
}


@pytest.mark.parametrize(("claims", "published", "want"), CASES.values(), ids=CASES.keys())
def test_the_lineage_of_a_new_claim(
    claims: list[Claim], published: list[AttemptName], want: list[AttemptName]
) -> None:
    assert lineage.below(OWN, claims, published) == Lineage(tuple(want))


def test_a_recorded_base_that_is_gone_is_named() -> None:
    found = lineage.below(OWN, [claim(1), claim(2, attempt(10, 1))], [])
    assert found == Lineage((), (attempt(10, 1),))


def test_the_last_checkpoint_of_a_claim_that_was_closed_is_missed() -> None:
    closed = replace(claim(1), last=attempt(20, 1))
    found = lineage.below(OWN, [closed], [attempt(10, 1)])
    assert found == Lineage((attempt(10, 1),), (attempt(20, 1),))
    # A successor that has published may have deleted it.
    heir = claim(2, attempt(20, 1))
    assert lineage.below(OWN, [closed, heir], [attempt(30, 2)]).candidates == (attempt(30, 2),)
    assert lineage.below(OWN, [closed], [attempt(20, 1)]) == Lineage((attempt(20, 1),))


def test_a_greater_claim_has_no_say_in_what_we_build_on() -> None:
    own = ClaimName.make(CREATED, "job", 2)
    found = lineage.below(own, [claim(1), claim(3)], [attempt(10, 1), attempt(99, 3)])
    assert found.candidates == (attempt(10, 1),)


def test_a_later_job_is_greater_whatever_its_incarnation() -> None:
    old, new = ClaimName.make(CREATED, "zzz", 9), ClaimName.make(CREATED + timedelta(seconds=1), "aaa", 1)
    assert lineage.greater_than(old, [old, new]) == new
    assert lineage.greater_than(new, [old, new]) is None


@given(
    created=st.datetimes(datetime(2000, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),
    uid=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4}){0,4}", fullmatch=True),
    incarnation=st.integers(1, 10**8 - 1),
    step=st.integers(0, 10**12 - 1),
)
def test_names_survive_a_round_trip_and_sort_as_text(
    created: datetime, uid: str, incarnation: int, step: int
) -> None:
    name = ClaimName.make(created, uid, incarnation)
    assert ClaimName.parse(str(name)) == name
    attempt_name = AttemptName.make(step, incarnation, "0123456789abcdef", 7)
    assert AttemptName.parse(str(attempt_name)) == attempt_name
    assert attempt_name.claim_nonce == "0123456789abcdef"


@given(st.randoms(use_true_random=False), st.integers(2, 12))
def test_the_order_of_a_listing_does_not_matter(source: random.Random, num_claims: int) -> None:
    claims, published = make_history(source, num_claims)
    want = lineage.below(OWN, claims, published)
    source.shuffle(claims)
    source.shuffle(published)
    assert lineage.below(OWN, claims, published) == want


@given(st.randoms(use_true_random=False), st.integers(2, 12))
def test_steps_never_rise_along_a_lineage_and_claims_neither(source: random.Random, num_claims: int) -> None:
    claims, published = make_history(source, num_claims)
    found = lineage.below(OWN, claims, published).candidates
    assert [a.step for a in found] == sorted((a.step for a in found), reverse=True)
    assert [a.incarnation for a in found] == sorted((a.incarnation for a in found), reverse=True)


def make_history(source: random.Random, num_claims: int) -> tuple[list[Claim], list[AttemptName]]:
    """Claims that each build on what was the head of the lineage then, while the dead go on publishing."""
    claims: list[Claim] = []
    published: list[AttemptName] = []
    for number in range(1, num_claims + 1):
        own = ClaimName.make(CREATED, "job", number)
        found = lineage.below(own, claims, published).candidates
        base = found[0] if found else None
        claims.append(claim(number, base))
        for alive in source.sample(claims, k=min(len(claims), source.randint(0, 3))):
            start = alive.base.step if alive.base else 0
            step = start + source.randint(1, 50)
            published.append(attempt(step, alive.name.incarnation, len(published)))
    return claims, published


def published_at(*minutes: int, unverified: tuple[int, ...] = ()) -> list[Published]:
    """A lineage, newest first, published at these minutes."""
    return [
        Published(attempt(minute, 1), CREATED + timedelta(minutes=minute), minute not in unverified)
        for minute in minutes
    ]


@pytest.mark.parametrize(
    ("lineage_", "now", "want"),
    [
        (published_at(3, 2, 1), 60, []),
        (published_at(4, 3, 2, 1), 60, [1]),
        (published_at(40, 3, 2, 1), 41, []),  # superseded by the one of minute 40, a minute ago
        (published_at(40, 30, 20, 10, 5), 41, [5]),
        (published_at(5, 4, 3, 2, 1), 60, [1, 2]),
        (published_at(4, 3, 2, 1, unverified=(2, 1)), 60, []),
        (published_at(5, 4, 3, 2, 1, unverified=(4,)), 60, [1]),
    ],
)
def test_retention(lineage_: list[Published], now: int, want: list[int]) -> None:
    gone = superseded(lineage_, keep=3, now=CREATED + timedelta(minutes=now))
    assert [name.step for name in gone] == want


@given(
    minutes=st.lists(st.integers(0, 500), max_size=20, unique=True),
    flags=st.lists(st.booleans(), min_size=20, max_size=20),
    keep=st.integers(1, 5),
    now=st.integers(0, 600),
)
def test_retention_always_keeps_the_newest_verified(
    minutes: list[int], flags: list[bool], keep: int, now: int
) -> None:
    minutes.sort(reverse=True)
    lineage_ = published_at(*minutes, unverified=tuple(m for m, f in zip(minutes, flags, strict=False) if f))
    gone = set(superseded(lineage_, keep=keep, now=CREATED + timedelta(minutes=now)))
    verified = [entry.name for entry in lineage_ if entry.is_verified]
    assert not gone & set(verified[:keep])
    assert not gone or len(verified) >= keep


def test_a_save_is_due_one_interval_after_the_last_durable_one() -> None:
    cadence = Cadence(interval_seconds=30, last_durable=100)
    assert [cadence.is_due(now) for now in (100, 129.9, 130)] == [False, False, True]
    assert not cadence.after_success(135).is_due(160)
    assert cadence.with_interval(5).is_due(105)


def test_retries_wait_longer_each_time_up_to_a_bound() -> None:
    cadence = Cadence(interval_seconds=1, last_durable=0)
    waits = []
    for _ in range(8):
        cadence = cadence.after_failure(1000)
        waits.append(cadence.not_before - 1000)
        assert not cadence.may_retry(1000 + waits[-1] - 0.1)
        assert cadence.is_due(1000 + waits[-1])
    assert (waits[0], waits[-1]) == (FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
    assert waits == sorted(waits)
    assert cadence.after_success(2000).num_failures == 0
