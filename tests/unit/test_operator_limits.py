"""Each key may go on at its rate, whatever the others do, and memory stays bounded."""

from spot_operator.limits import Buckets


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_burst_at_once_then_the_steady_rate() -> None:
    time = Time()
    buckets = Buckets[str](per_second=2, burst=3, monotonic=time)
    assert [buckets.take("a") for _ in range(5)] == [True, True, True, False, False]
    time.now += 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    time.now += 60
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_keys_do_not_share() -> None:
    buckets = Buckets[str](per_second=1, burst=1, monotonic=Time())
    assert [buckets.take(key) for key in "aabb"] == [True, False, True, False]


def test_refusals_do_not_delay_the_next_turn() -> None:
    time = Time()
    buckets = Buckets[str](per_second=1, burst=1, monotonic=time)
    assert buckets.take("a")
    assert not any(buckets.take("a") for _ in range(100))
    time.now += 1
    assert buckets.take("a")


def test_any_number_of_keys_takes_bounded_memory() -> None:
    time = Time()
    buckets = Buckets[int](per_second=1, burst=1, monotonic=time, max_keys=10)
    assert all(buckets.take(key) for key in range(10_000))
    assert len(buckets._full_at) <= 10


def test_keys_that_paused_are_forgotten_before_those_that_are_limited() -> None:
    time = Time()
    buckets = Buckets[str](per_second=1, burst=1, monotonic=time, max_keys=2)
    buckets.take("early")
    time.now += 2
    buckets.take("busy")
    buckets.take("new")
    assert not buckets.take("busy")
