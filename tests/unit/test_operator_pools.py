"""Jobs of one pool share what they have measured; those of another do not."""

from dataclasses import replace

from spot_operator.model import Overheads, Pool
from spot_operator.policy import Launches
from spot_operator.pools import MAX_JOBS, PoolBook
from spot_operator.testing import make_spec

SLOW = Overheads(spot=Launches().and_one(300.0))
FAST = Overheads(spot=Launches().and_one(20.0), on_demand=Launches().and_one(90.0))


def test_others_of_the_pool_are_known_and_oneself_is_not() -> None:
    book, spec = PoolBook(), make_spec()
    book.learn("a", spec, SLOW)
    book.learn("b", spec, FAST)
    assert book.known("a", spec) == FAST
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


def test_the_book_is_bounded() -> None:
    book, spec = PoolBook(), make_spec()
    for number in range(MAX_JOBS + 5):
        book.learn(f"job-{number}", spec, FAST)
    assert book.known("x", spec).spot.count == MAX_JOBS
