"""The next incarnation is prepared while the last one still saves, and takes nothing away from it."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.directives import directives
from spot_operator.decide.pods import build_pod
from spot_operator.model import (
    UNKNOWN,
    CheckpointSpec,
    CreatePod,
    Decision,
    DeletePod,
    FallbackSpec,
    JobSpec,
    JobStatus,
    Observation,
    PodRecord,
    PodRefusal,
    PodView,
    PolicySettings,
    Taint,
    VolumeLocation,
)
from spot_operator.names import CapacityType, Cause, Phase, Reason
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_outcome,
    make_pod,
    make_spec,
    make_status,
    seconds,
)
from spot_operator.wire import status_from_json, status_to_json
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()
SPOT_ITN = Taint(key="aws-node-termination-handler/spot-itn", effect="NoSchedule")
RECLAIMED = {"spot-a": make_node(taints=(SPOT_ITN,))}
NEXT = "digits-0c5e1-2-0"


def step(observation: Observation, *, after: float = 0, settings: PolicySettings = SETTINGS) -> Decision:
    return decide(observation, NOW + seconds(after), settings)


def created(decision: Decision) -> list[str]:
    return [action.name for action in decision.actions if isinstance(action, CreatePod)]


def deleted(decision: Decision) -> list[str]:
    return [action.uid for action in decision.actions if isinstance(action, DeletePod)]


def incarnations(status: JobStatus) -> tuple[int | None, int | None]:
    return tuple(g.incarnation if g is not None else None for g in (status.predecessor, status.gang))  # type: ignore[return-value]


def stopping_pod(**changes: Any) -> PodView:
    return make_pod(deletion_timestamp=NOW + seconds(120), deletion_grace_seconds=120, **changes)


def next_pod(**changes: Any) -> PodView:
    return make_pod(name=NEXT, uid="uid-2", incarnation=2, node_name=None, **changes)


def ended_pod(outcome: OutcomeKind = OutcomeKind.STOPPED, code: int = 75, **changes: Any) -> PodView:
    return make_ended_pod(
        code,
        outcome=make_outcome(outcome, "Notice", step=70, checkpoint=70),
        deletion_timestamp=NOW + seconds(120),
        deletion_grace_seconds=120,
        **changes,
    )


def begun() -> JobStatus:
    return step(make_observation(nodes=RECLAIMED)).status


def test_the_next_pod_is_created_in_the_look_that_stops_the_last_one() -> None:
    decision = step(make_observation(nodes=RECLAIMED))
    assert (deleted(decision), created(decision)) == ([POD_UID], [NEXT])
    assert incarnations(decision.status) == (1, 2)
    assert decision.status.predecessor is not None
    assert decision.status.predecessor.stop is not None
    assert decision.status.recent_restarts == ()
    said = [event.message for event in decision.events]
    assert "launching incarnation 2 on spot while incarnation 1 saves" in said
    assert decision.status.message.startswith("incarnation 1 is saving (taint aws-node-termination-handler")
    assert status_from_json(status_to_json(decision.status)) == decision.status


def test_while_the_last_one_saves_nothing_is_asked_for_twice() -> None:
    observation = make_observation(status=begun(), pods=(stopping_pod(), next_pod()), nodes=RECLAIMED)
    decision = step(observation, after=5)
    assert (decision.actions, incarnations(decision.status)) == ((), (1, 2))


def test_a_delete_that_was_lost_with_its_process_is_repeated() -> None:
    observation = make_observation(status=begun(), pods=(make_pod(), next_pod()), nodes=RECLAIMED)
    assert deleted(step(observation, after=1)) == [POD_UID]


def test_the_predecessor_gets_its_verdict_and_the_successor_goes_on() -> None:
    pods = (ended_pod(), next_pod())
    decision = step(make_observation(status=begun(), pods=pods, nodes=RECLAIMED), after=8)
    assert (created(decision), incarnations(decision.status)) == ([], (None, 2))
    (restart,) = decision.status.recent_restarts
    assert (restart.incarnation, restart.cause, restart.row) == (1, Cause.INTERRUPTION, "5")
    assert decision.status.restarts.interruptions == 1
    assert decision.status.progress.durable_step == 70
    assert decision.status.next_launch_time is None


def test_a_predecessor_that_was_done_completes_the_job_and_its_successor_is_stopped() -> None:
    pods = (ended_pod(OutcomeKind.COMPLETE, 0), next_pod())
    decision = step(make_observation(status=begun(), pods=pods, nodes=RECLAIMED), after=8)
    assert (decision.status.phase, incarnations(decision.status)) == (Phase.COMPLETE, (None, None))
    assert deleted(decision) == ["uid-2", POD_UID] or deleted(decision) == ["uid-2"]


def test_a_predecessor_on_a_dead_node_is_given_up_and_the_successor_is_told() -> None:
    status = begun()
    assert directives(make_observation(status=status), 2).predecessor_dead is None
    observation = make_observation(status=status, pods=(stopping_pod(), next_pod()), nodes={"spot-a": None})
    decision = step(observation, after=20)
    assert incarnations(decision.status) == (None, 2)
    answer = replace(observation, status=decision.status)
    assert directives(answer, 2).predecessor_dead == 1
    assert directives(answer, 1).stop == "Superseded"
    assert directives(answer, 2).stop is None


def test_a_node_that_cannot_be_read_ends_no_hand_over() -> None:
    observation = make_observation(
        status=begun(), pods=(stopping_pod(), next_pod()), nodes={"spot-a": UNKNOWN}
    )
    assert incarnations(step(observation, after=20).status) == (1, 2)


BEFORE = make_gang(
    incarnation=0, pods=(PodRecord(name="digits-0c5e1-0-0", rank=0, uid="uid-0", node_name="spot-a"),)
)
VOLUMES = {"spec": {"containers": [], "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}
QUEUED = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "spec": {}}
ON_VOLUME = CheckpointSpec(location=VolumeLocation(claim_name="c"), run_id="r")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": make_status(claims=False)},
        {"spec": make_spec(checkpoint=ON_VOLUME)},
        {"spec": make_spec(template=VOLUMES)},
        {"spec": make_spec(template=QUEUED)},
        {"spec": make_spec(suspend=True)},
        {
            "status": make_status(predecessor=BEFORE),
            "pods": (make_pod(), stopping_pod(name="digits-0c5e1-0-0", uid="uid-0", incarnation=0)),
        },
    ],
    ids=["plain container", "volume", "volume in the template", "Kueue", "suspended", "already under way"],
)
def test_where_two_pods_are_too_many_the_replacement_waits_for_the_end(changes: dict[str, Any]) -> None:
    decision = step(make_observation(nodes=RECLAIMED, **changes))
    assert (created(decision), deleted(decision)) == ([], [POD_UID])
    assert decision.status.gang is not None
    assert decision.status.gang.incarnation == 1


def test_the_platform_can_forbid_it() -> None:
    decision = step(make_observation(nodes=RECLAIMED), settings=PolicySettings(hand_over=False))
    assert created(decision) == []


def test_a_move_to_on_demand_hands_over_as_well() -> None:
    spec = make_spec(fallback=FallbackSpec(interruptions_count=1))
    decision = step(make_observation(spec=spec, nodes=RECLAIMED))
    assert decision.status.gang is not None
    # The reclaim that is under way is the one that reaches the limit: no third launch is needed for that.
    assert decision.status.gang.capacity_type is CapacityType.ON_DEMAND
    assert created(decision) == [NEXT]


def test_a_chosen_disruption_does_not_reach_the_limit_of_interruptions() -> None:
    spec = make_spec(fallback=FallbackSpec(interruptions_count=1))
    taint = Taint(key="ToBeDeletedByClusterAutoscaler", effect="NoSchedule")
    decision = step(make_observation(spec=spec, nodes={"spot-a": make_node(taints=(taint,))}))
    assert decision.status.gang is not None
    assert decision.status.gang.capacity_type is CapacityType.SPOT


def test_a_quota_that_has_no_room_for_two_is_asked_again_at_the_end_of_the_first() -> None:
    refusal = PodRefusal(pod_name=NEXT, message="exceeded quota: gpus", time=NOW + seconds(2))
    status = begun()
    waiting = step(
        make_observation(status=status, pods=(stopping_pod(),), nodes=RECLAIMED, refusal=refusal), after=3
    )
    assert (created(waiting), incarnations(waiting.status)) == ([], (1, 2))
    ended = step(
        make_observation(status=waiting.status, pods=(ended_pod(),), nodes=RECLAIMED, refusal=refusal),
        after=4,
    )
    assert created(ended) == [NEXT]


def test_suspending_a_hand_over_stops_both_and_is_done_when_both_have_ended() -> None:
    spec = make_spec(suspend=True)
    both = step(make_observation(spec=spec, status=begun(), pods=(stopping_pod(), next_pod())), after=2)
    assert deleted(both) == ["uid-2"]
    one = step(make_observation(spec=spec, status=both.status, pods=(stopping_pod(),)), after=3)
    assert (one.status.phase is Phase.SUSPENDED, created(one)) == (False, [])
    none = step(make_observation(spec=spec, status=one.status, pods=(ended_pod(),)), after=4)
    assert (none.status.phase, incarnations(none.status)) == (Phase.SUSPENDED, (None, None))


def test_a_successor_that_ends_first_is_followed_while_the_predecessor_still_saves() -> None:
    status = begun()
    lost = replace(next_pod(), node_name="spot-b", phase="Failed", status_reason="OutOfcpu")
    pods = (stopping_pod(), lost)
    nodes = {**RECLAIMED, "spot-b": make_node(name="spot-b", uid="b")}
    decision = step(make_observation(status=status, pods=pods, nodes=nodes), after=5)
    assert incarnations(decision.status) == (1, 3)
    assert decision.status.gang is not None
    assert decision.status.gang.hands_over_from == 1
    assert [restart.incarnation for restart in decision.status.recent_restarts] == [2]


@pytest.mark.parametrize(("hands_over_from", "wait"), [(None, "0"), (2, "130")])
def test_the_successors_claim_waits_no_longer_than_the_grace_period(
    hands_over_from: int | None, wait: str
) -> None:
    spec: JobSpec = make_spec(grace_seconds=120)
    gang = make_gang(incarnation=3, hands_over_from=hands_over_from)
    pod = build_pod(make_observation(), spec, gang=gang, rank=0, settings=SETTINGS)
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert environment["SPOT_HANDOVER_SECONDS"] == wait


def test_node_time_of_both_is_paid_for() -> None:
    status = begun()
    assert status.gang is not None
    gang = replace(
        status.gang, pods=(replace(status.gang.pods[0], uid="uid-2", scheduled_time=NOW + seconds(2)),)
    )
    running = replace(next_pod(), node_name="spot-b")
    before = status.cost.spot_node_seconds
    decision = step(
        make_observation(
            status=replace(status, gang=gang),
            pods=(stopping_pod(), running),
            nodes={**RECLAIMED, "spot-b": make_node(name="spot-b", uid="b")},
        ),
        after=12,
    )
    assert decision.status.cost.spot_node_seconds - before == 12 + 10
    assert decision.status.capacity is not None
    assert decision.status.capacity.reason is Reason.SPOT_FIRST
