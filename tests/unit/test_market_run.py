"""One simulated run: what it costs, what it loses, and what its policy is asked and told."""

from typing import Any

import pytest

from spot_operator.market import Market, MarketView, Move, Outcome, Overheads, Scenario, play
from spot_operator.policy import Action, Running

HOUR = 3600.0
STARTS_IN_360 = Overheads(detect=0, provision_spot=360, provision_on_demand=360, pull=0, restore=0, spread=0)
ALWAYS = Market(name="always", times=(0.0,), available=(True,))
NEVER = Market(name="never", times=(0.0,), available=(False,))


def scenario(**changes: Any) -> Scenario:
    values: dict[str, Any] = {
        "work_seconds": 10 * HOUR,
        "overheads": STARTS_IN_360,
        "checkpoint_interval": HOUR,
        "checkpoint_seconds": 0.0,
        "checkpoint_stall": 0.0,
        "notice_reliability": 0.0,
        "spot_price": 1.0,
        "on_demand_price": 3.0,
        "limit_seconds": 1000 * HOUR,
    }
    return Scenario(**(values | changes))


def recorded(*changes: tuple[float, bool], length: float = 100 * HOUR) -> Market:
    return Market(
        name="recorded",
        times=tuple(at for at, _ in changes),
        available=tuple(up for _, up in changes),
        length_seconds=length,
    )


def run(
    market: Market, wish: Action = Action.SPOT, *, offset: float = 0.0, seed: str = "", **changes: Any
) -> Outcome:
    return play(scenario(**changes), market, offset=offset, decide=lambda _: Move(wish), seed=seed)


def test_a_quiet_run_is_paid_from_the_launch_to_the_end() -> None:
    found = run(ALWAYS)
    assert found.finish_seconds == 10 * HOUR + 360
    assert found.cost == pytest.approx(10.1)
    assert (found.launches, found.interruptions, found.lost_seconds) == (1, 0, 0)
    assert run(ALWAYS, Action.ON_DEMAND).cost == pytest.approx(30.3)


def test_an_interruption_loses_what_came_after_the_last_checkpoint() -> None:
    found = run(recorded((0, True), (3.35 * HOUR, False), (5 * HOUR, True)))
    assert found.lost_seconds == pytest.approx(0.25 * HOUR)
    assert found.interruptions == 1
    assert found.waiting_seconds == pytest.approx(1.65 * HOUR)
    assert found.finish_seconds == pytest.approx(5 * HOUR + 360 + 7 * HOUR)


def test_a_last_checkpoint_that_lands_loses_nothing() -> None:
    found = run(recorded((0, True), (3.35 * HOUR, False), (5 * HOUR, True)), notice_reliability=1.0)
    assert found.lost_seconds == 0
    assert found.finish_seconds == pytest.approx(5 * HOUR + 360 + 6.75 * HOUR)


def test_a_change_that_the_policy_chose_loses_nothing_and_pays_for_the_save() -> None:
    def decide(view: MarketView) -> Move:
        return Move(Action.SPOT, 3.5 * HOUR) if view.now < 3 * HOUR else Move(Action.ON_DEMAND)

    found = play(scenario(checkpoint_seconds=36.0), ALWAYS, offset=0, decide=decide, seed="")
    assert (found.launches, found.lost_seconds) == (2, 0)
    assert found.finish_seconds == pytest.approx(10 * HOUR + 720)
    assert found.cost == pytest.approx(3.5 * 1 + 0.01 + (10 * HOUR + 720 - 3.5 * HOUR) / HOUR * 3)


def test_a_pod_waits_where_there_is_no_spot_and_what_runs_goes_on() -> None:
    asked: list[MarketView] = []

    def decide(view: MarketView) -> Move:
        asked.append(view)
        return Move(Action.SPOT, HOUR)

    market = recorded((0, False), (2 * HOUR, True))
    found = play(scenario(), market, offset=0, decide=decide, seed="")
    assert [view.pending_since for view in asked[:3]] == [None, 0.0, 0.0]
    assert found.finish_seconds == pytest.approx(12 * HOUR + 360)

    def from_on_demand(view: MarketView) -> Move:
        return Move(Action.SPOT if view.running is Running.ON_DEMAND else Action.ON_DEMAND, HOUR)

    found = play(scenario(), NEVER, offset=0, decide=from_on_demand, seed="")
    assert (found.launches, found.on_demand_seconds) == (1, 10 * HOUR + 360)


def test_a_run_goes_from_event_to_event() -> None:
    looks: list[float] = []

    def decide(view: MarketView) -> Move:
        looks.append(view.now)
        return Move(Action.SPOT, 4 * HOUR)

    market = recorded((0, True), (HOUR, False), (2 * HOUR, True))
    play(scenario(), market, offset=0, decide=decide, seed="")
    assert looks == [0, HOUR, 2 * HOUR, 6 * HOUR, 10 * HOUR]


def test_a_look_at_once_is_put_off_for_a_second() -> None:
    looks = 0

    def decide(_: MarketView) -> Move:
        nonlocal looks
        looks += 1
        return Move(Action.SPOT, 0.0)

    play(scenario(work_seconds=100), ALWAYS, offset=0, decide=decide, seed="")
    assert looks == 460


def test_after_its_end_a_recording_begins_again() -> None:
    market = recorded((0, True), (HOUR, False), length=2 * HOUR)
    found = run(market, offset=0.5 * HOUR, checkpoint_interval=0.0)
    assert found.interruptions == 11
    assert found.finish_seconds == pytest.approx(
        0.5 * HOUR + 10 * 2 * HOUR + HOUR + 360 + 0.5 * HOUR, abs=HOUR
    )


def test_an_endless_run_is_cut_off() -> None:
    found = run(NEVER)
    assert (found.finish_seconds, found.on_time, found.cost) == (None, False, 0)
    assert run(NEVER, limit_seconds=float("inf")).finish_seconds is None


def test_a_deadline_that_ends_the_job_ends_the_run() -> None:
    late = {"deadline_seconds": 5 * HOUR}
    assert run(ALWAYS, **late).finish_seconds == 10 * HOUR + 360
    found = run(ALWAYS, ends_at_deadline=True, **late)
    assert (found.finish_seconds, found.on_time) == (None, False)
    assert found.cost == pytest.approx(5)


def test_on_on_demand_spot_is_seen_when_it_is_looked_for() -> None:
    seen: list[tuple[float, bool]] = []

    def decide(view: MarketView) -> Move:
        seen.append((view.now, view.spot_available))
        return Move(Action.ON_DEMAND)

    market = recorded((0, False), (1.2 * HOUR, True), (3.2 * HOUR, False))
    play(scenario(probe_seconds=HOUR), market, offset=0, decide=decide, seed="")
    at_probes = [look for look in seen if look[0] % HOUR == 0][:5]
    assert at_probes == [(0, False), (HOUR, False), (2 * HOUR, True), (3 * HOUR, True), (4 * HOUR, False)]


def test_startups_are_measured_when_they_are_over() -> None:
    measured: list[int] = []

    def decide(view: MarketView) -> Move:
        measured.append(len(view.startups))
        return Move(Action.SPOT, 200)

    play(scenario(), ALWAYS, offset=0, decide=decide, seed="")
    assert measured[:4] == [0, 0, 1, 1]


def test_every_policy_meets_the_same_startups_and_notices() -> None:
    spread = Overheads(spread=0.5)
    market = recorded(*((i * HOUR, i % 2 == 0) for i in range(50)))
    first = run(market, seed="7", overheads=spread, notice_reliability=0.5)
    assert first == run(market, seed="7", overheads=spread, notice_reliability=0.5)
    assert first != run(market, seed="8", overheads=spread, notice_reliability=0.5)
