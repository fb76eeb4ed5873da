"""How often spot nodes are taken away: counted once, by zone, and expected with a prior."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.rates import MAX_ZONES, and_seen, count_loss, seen, with_estimates
from spot_operator.model import (
    CapacityStatus,
    Decision,
    InterruptionRate,
    NodeView,
    Observation,
    PodRecord,
    PolicySettings,
    Taint,
    ZoneInterruptions,
)
from spot_operator.names import CapacityType, Cause, Reason
from spot_operator.policy import Interruptions
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_pod,
    make_status,
    seconds,
)
from spot_operator.wire import status_from_json, status_to_json

SETTINGS = PolicySettings(interruption_prior_count=1, interruption_prior_node_hours=10)
RECLAIM = (Taint(key="karpenter.sh/disrupted"), Taint(key="aws-node-termination-handler/spot-itn"))
HOUR = 3600.0


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def lost(**changes: Any) -> Observation:
    """The node of the pod has been gone since now, and it was a spot node."""
    return make_observation(**({"nodes": {"spot-a": None}, "pods": ()} | changes))


def own(decision: Decision) -> dict[str, Interruptions]:
    return seen(decision.status.interruption_rate)


def test_a_spot_node_that_was_lost_counts_in_its_zone_with_the_time_it_was_there() -> None:
    running = step(make_observation(), after=HOUR).status
    assert own(step(make_observation(status=running), after=HOUR)) == {"zone-a": Interruptions(0, HOUR)}
    decision = step(lost(status=running), after=2 * HOUR)
    assert decision.status.restarts.interruptions == 1
    assert own(decision) == {"zone-a": Interruptions(1, 2 * HOUR)}
    # Looked at again from what was written, nothing is counted twice.
    again = step(lost(status=status_from_json(status_to_json(decision.status))), after=2 * HOUR + 1)
    assert own(again) == own(decision)


def test_a_program_that_fails_by_itself_is_no_interruption() -> None:
    ended = make_ended_pod(1, finished_at=NOW + seconds(60))
    decision = step(make_observation(pods=(ended,)), after=HOUR)
    assert decision.status.recent_restarts[-1].cause is Cause.FAILURE
    assert own(decision) == {"zone-a": Interruptions(0, 60.0)}


def test_on_demand_says_nothing_of_spot() -> None:
    capacity = CapacityStatus(type=CapacityType.ON_DEMAND, since=NOW, reason=Reason.ON_DEMAND_ONLY)
    status = make_status(gang=make_gang(CapacityType.ON_DEMAND), capacity=capacity)
    decision = step(lost(status=status), after=HOUR)
    assert decision.status.recent_restarts[-1].cause is Cause.NODE_LOST
    assert own(decision) == {}
    assert decision.status.interruption_rate.node_hours_per_interruption is None


def test_a_pod_that_never_had_a_node_lost_none() -> None:
    record = PodRecord(name="digits-0c5e1-1-0", rank=0, uid=POD_UID)
    decision = step(lost(status=make_status(gang=make_gang(pods=(record,), accounted_until=None)), nodes={}))
    assert own(decision) == {}


def test_a_verdict_that_turns_into_an_interruption_is_counted_then_and_once() -> None:
    failed = step(make_observation(pods=(make_ended_pod(1),)))
    assert own(failed) == {}
    assert failed.status.recent_restarts[-1].zone == "zone-a"
    upgraded = step(lost(status=failed.status), after=20)
    assert upgraded.status.recent_restarts[-1].cause is Cause.INTERRUPTION
    assert own(upgraded)["zone-a"].count == 1
    assert own(step(lost(status=upgraded.status), after=40))["zone-a"].count == 1


def test_another_word_for_the_same_loss_is_no_other_loss() -> None:
    status = step(lost(), after=10).status
    interruption = status.recent_restarts[-1]
    words = {cause: replace(interruption, cause=cause) for cause in Cause}
    changes = {
        (before, after): count_loss(status, words[after], words[before])
        .interruption_rate.zones[0]
        .interruptions
        for before in (Cause.NODE_LOST, Cause.VOLUNTARY_EVICTION)
        for after in (Cause.INTERRUPTION, Cause.FAILURE)
    }
    assert changes == {
        (Cause.NODE_LOST, Cause.INTERRUPTION): 1,
        (Cause.NODE_LOST, Cause.FAILURE): 0,
        (Cause.VOLUNTARY_EVICTION, Cause.INTERRUPTION): 2,
        (Cause.VOLUNTARY_EVICTION, Cause.FAILURE): 1,
    }


def test_who_was_on_no_spot_node_has_lost_none() -> None:
    status = step(lost(), after=10).status
    interruption = status.recent_restarts[-1]
    for other in ({"node_name": None}, {"capacity_type": CapacityType.ON_DEMAND}):
        assert count_loss(status, replace(interruption, **other)) == status  # type: ignore[arg-type]


@pytest.mark.parametrize(("node", "zone"), [(make_node(zone=""), ""), (make_node(zone="zone-b"), "zone-b")])
def test_a_zone_that_is_not_known_is_counted_as_such(node: NodeView, zone: str) -> None:
    record = replace(make_gang().pods[0], zone=None, node_uid=None)
    status = make_status(gang=make_gang(pods=(record,)))
    decision = step(make_observation(status=status, nodes={"spot-a": node}, pods=(make_pod(),)), after=HOUR)
    assert own(decision) == {zone: Interruptions(0, HOUR)}
    assert own(replace(decision, status=status_from_json(status_to_json(decision.status)))) == own(decision)


def test_a_status_holds_no_more_than_so_many_zones_and_loses_no_time() -> None:
    rate = InterruptionRate()
    for number in range(2 * MAX_ZONES):
        rate = and_seen(rate, f"zone-{number:02}", Interruptions(1, 10.0))
    assert len(rate.zones) == MAX_ZONES + 1
    assert sum(seen(rate).values(), Interruptions()) == Interruptions(2 * MAX_ZONES, 20.0 * MAX_ZONES)
    assert seen(rate)[""] == Interruptions(MAX_ZONES, 10.0 * MAX_ZONES)
    assert and_seen(rate, "zone-00", Interruptions(0, 1.0)).zones[1].node_seconds == 11.0


def test_what_is_expected_rests_on_the_job_on_others_and_on_the_prior() -> None:
    rate = InterruptionRate(
        zones=(
            ZoneInterruptions(zone="a", interruptions=2, node_seconds=6 * HOUR),
            ZoneInterruptions(zone="b", interruptions=0, node_seconds=4 * HOUR),
        )
    )
    known = {"b": Interruptions(3, 10 * HOUR), "c": Interruptions(0, 30 * HOUR)}
    prior = PolicySettings(interruption_prior_count=3, interruption_prior_node_hours=30)
    found = with_estimates(rate, known, prior)
    # Of all: 30 + 6 + 4 + 10 + 30 hours and 3 + 2 + 3 interruptions.
    assert found.node_hours_per_interruption == 10.0
    # a: 30 + 6 hours and 3 + 2; b: 30 + 4 + 10 hours and 3 + 3.
    assert [each.node_hours_per_interruption for each in found.zones] == [7.2, 7.333]
    assert seen(found) == seen(rate)


def test_a_job_that_has_seen_nothing_knows_what_others_have() -> None:
    known = {"a": Interruptions(1, 10 * HOUR)}
    waiting = make_status(gang=None)
    decision = step(make_observation(status=waiting, pods=(), known_interruptions=known))
    assert decision.status.interruption_rate == InterruptionRate(node_hours_per_interruption=10.0)
    decision = step(make_observation(status=waiting, pods=()))
    assert decision.status.interruption_rate == InterruptionRate()
