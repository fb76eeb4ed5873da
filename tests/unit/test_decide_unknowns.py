"""What is not known, or only seems so: nodes, claims, gates, steps of others."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.capacity import interruptions_under_way
from spot_operator.model import (
    UNKNOWN,
    Decision,
    NodeCondition,
    Notice,
    Observation,
    PodCondition,
    PolicySettings,
    Progress,
)
from spot_operator.names import Cause, ConditionType, Reason
from spot_operator.testing import (
    NOW,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_pod,
    make_spec,
    make_status,
    seconds,
)

SETTINGS = PolicySettings()


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def created(decision: Decision) -> list[str]:
    return [action.name for action in decision.actions if type(action).__name__ == "CreatePod"]


def test_a_node_that_could_not_be_read_is_looked_at_again_soon() -> None:
    assert step(make_observation(nodes={"spot-a": UNKNOWN})).next_look == seconds(5)
    assert step(make_observation()).next_look is None


def test_another_template_has_not_shown_that_it_claims() -> None:
    known = replace(make_status(gang=None), template_fingerprint="another")
    assert not step(make_observation(status=known, pods=())).status.claims
    same = replace(known, template_fingerprint=make_spec().template_fingerprint)
    assert step(make_observation(status=same, pods=())).status.claims
    assert step(make_observation(status=make_status(gang=None), pods=())).status.claims


def test_a_plain_pod_that_was_deleted_by_force_may_run_on_when_its_node_is_back() -> None:
    """Only now does the kubelet hear of it; then the pod has its own grace."""
    forced = make_pod(deletion_timestamp=NOW - seconds(600), deletion_grace_seconds=0)
    back = make_node(
        conditions=(NodeCondition(type="Ready", status="True", last_transition_time=NOW - seconds(1)),)
    )
    gone = make_observation(
        spec=make_spec(grace_seconds=300),
        status=make_status(claims=False),
        pods=(),
        departed=(forced,),
        nodes={"spot-a": back},
    )
    waiting = step(gone)
    assert created(waiting) == []
    assert created(step(replace(gone, status=waiting.status), after=250)) == []
    assert created(step(replace(gone, status=waiting.status), after=300)) == ["digits-0c5e1-2-0"]


def test_a_wait_whose_time_is_over_does_not_look_every_second() -> None:
    forced = make_pod(deletion_timestamp=NOW - seconds(600), deletion_grace_seconds=0)
    gang = make_gang()
    record = replace(gang.pods[0], node_gone_time=NOW - seconds(600))
    gone = make_observation(
        status=make_status(claims=False, gang=replace(gang, pods=(record,))),
        pods=(),
        departed=(forced,),
        nodes={"spot-a": make_node(ready="Unknown")},
    )
    assert step(gone).next_look is None


@pytest.mark.parametrize(("confirmed", "count"), [(True, 1), (False, 0)])
def test_only_a_reclaim_that_is_certain_counts_before_its_verdict(confirmed: bool, count: int) -> None:
    notice = Notice(
        signal="taint karpenter.sh/disrupted",
        first_seen_time=NOW,
        confirmed_reclaim=confirmed,
        chosen_disruption=False,
    )
    gang = make_gang()
    status = make_status(gang=replace(gang, pods=(replace(gang.pods[0], notice=notice),)))
    assert interruptions_under_way(status) == count


def test_a_gated_pod_says_nothing_about_capacity() -> None:
    gate = PodCondition(type="PodScheduled", status="False", reason="SchedulingGated")
    gang = make_gang()
    record = replace(gang.pods[0], node_name=None, scheduled_time=None, started_time=None)
    pod = make_pod(phase="Pending", node_name=None, conditions=(gate,), trainer=replace(make_pod().trainer))
    pod = replace(pod, trainer=replace(pod.trainer, running_since=None))
    status = step(
        make_observation(status=make_status(gang=replace(gang, pods=(record,))), pods=(pod,))
    ).status
    found = {c.type: (c.status, c.reason) for c in status.conditions}
    assert found[ConditionType.CAPACITY_AVAILABLE] == (None, Reason.SCHEDULING_GATED)
    assert found[ConditionType.PODS_READY] == (False, Reason.SCHEDULING_GATED)


def test_what_is_taken_before_its_program_started_is_not_asked_for_in_a_hot_loop() -> None:
    gang = make_gang()
    record = replace(gang.pods[0], started_time=None)

    def taken(status: Any, incarnation: int) -> Any:
        number = replace(gang, incarnation=incarnation, pods=(record,))
        pod = make_pod(phase="Pending", trainer=replace(make_pod().trainer, running_since=None))
        seen = make_observation(status=replace(status, gang=number), pods=(pod,), nodes={"spot-a": None})
        return step(seen).status

    first = taken(make_status(), 1)
    assert first.recent_restarts[-1].cause is Cause.INTERRUPTION
    assert not first.recent_restarts[-1].ran
    assert first.next_launch_time is None
    second = taken(first, 2)
    assert second.next_launch_time is not None


def test_the_step_of_another_incarnation_is_not_lost_again() -> None:
    progress = Progress(
        step=1000, total_steps=2000, durable_step=900, steps_per_second=1.0, incarnation=1, reported_time=NOW
    )
    status = make_status(gang=make_gang(incarnation=2), progress=progress, incarnation=2)
    restart = step(make_observation(status=status, pods=(make_ended_pod(1),))).status.recent_restarts[-1]
    assert (restart.lost_steps, restart.lost_seconds) == (None, None)


def test_who_suspends_a_job_in_back_off_does_not_find_it_waiting_when_it_is_resumed() -> None:
    waiting = make_status(gang=None, next_launch_time=NOW + seconds(300))
    suspended = step(make_observation(spec=make_spec(suspend=True), status=waiting, pods=())).status
    assert suspended.next_launch_time is None
    assert created(step(make_observation(status=suspended, pods=()), after=1)) == ["digits-0c5e1-2-0"]
