"""A pod that has a node and whose container does not get started: shown, moved, given up."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.stuck import GIVE_UP_AFTER, MOVE_AFTER
from spot_operator.model import (
    AvoidKind,
    ContainerView,
    Decision,
    DeletePod,
    Gang,
    JobStatus,
    PolicySettings,
    Progress,
    Restart,
    Stop,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Reason, StopReason
from spot_operator.testing import (
    NOW,
    make_ended_pod,
    make_gang,
    make_observation,
    make_pod,
    make_status,
    seconds,
)

BOUND = 99.0
"""Seconds before NOW at which the pod got its node."""
DUE = MOVE_AFTER.total_seconds() - BOUND
BACK_OFF = ContainerView(waiting_reason="ImagePullBackOff", waiting_message='Back-off pulling image "x"')


def waiting(stop: Stop | None = None, *, started: bool = False) -> Gang:
    gang = make_gang(stop=stop)
    started_time = gang.pods[0].started_time if started else None
    return replace(gang, pods=(replace(gang.pods[0], started_time=started_time),))


def new(**changes: Any) -> JobStatus:
    """Of a job whose first pod has not started yet."""
    return make_status(**({"gang": waiting(), "claims": False} | changes))


def look(status: JobStatus, *, after: float = 0.0, **pod: Any) -> Decision:
    shown = make_pod(**({"phase": "Pending", "trainer": BACK_OFF, "started_any_container": False} | pod))
    return decide(make_observation(status=status, pods=(shown,)), NOW + seconds(after), PolicySettings())


def gone(status: JobStatus, *, after: float = DUE + 1) -> Decision:
    """The pod was stopped for it, and its object is gone."""
    return decide(make_observation(status=status, pods=()), NOW + seconds(after), PolicySettings())


def stopped(*, started: bool = False) -> Gang:
    message = 'not started on spot-a within 10 min: ImagePullBackOff: Back-off pulling image "x"'
    return waiting(
        Stop(reason=StopReason.NEVER_STARTED, time=NOW + seconds(DUE), message=message), started=started
    )


def attempt(at: float, *, row: str = "15", ran: bool = False) -> Restart:
    return Restart(
        time=NOW + seconds(at),
        incarnation=1,
        capacity_type=CapacityType.SPOT,
        cause=Cause.INFRASTRUCTURE if row == "15" else Cause.INTERRUPTION,
        evidence="",
        row=row,
        pod_uid="earlier",
        charged=False,
        durable_step=None,
        ran=ran,
    )


def failed(decision: Decision) -> tuple[str, str] | None:
    found = [c for c in decision.status.conditions if c.type is ConditionType.FAILED and c.status]
    return (found[0].reason, found[0].message) if found else None


def test_for_ten_minutes_it_is_shown_and_then_looked_at_again() -> None:
    decision = look(new(), after=DUE - 5)
    assert decision.actions == ()
    assert decision.next_look == seconds(5)
    shown = next(c for c in decision.status.conditions if c.type is ConditionType.PODS_READY)
    assert (shown.reason, shown.message) == (
        Reason.IMAGE_PULL_FAILED,
        'ImagePullBackOff: Back-off pulling image "x"',
    )


@pytest.mark.parametrize("waits", ["ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"])
def test_then_its_node_is_paid_for_in_vain_no_longer(waits: str) -> None:
    decision = look(new(), after=DUE, trainer=replace(BACK_OFF, waiting_reason=waits))
    assert [type(action) for action in decision.actions] == [DeletePod]
    gang = decision.status.gang
    assert gang is not None
    assert gang.stop is not None
    assert gang.stop.reason is StopReason.NEVER_STARTED
    assert "not started on spot-a within 10 min" in gang.stop.message
    assert 'pulling image "x"' in gang.stop.message
    assert gang.stop.message in decision.events[-1].message


@pytest.mark.parametrize(
    "pod",
    [
        {"trainer": ContainerView(waiting_reason="ContainerCreating")},
        {"trainer": ContainerView(waiting_reason="ErrImagePull", waiting_message="reset by peer")},
        {"trainer": ContainerView(running_since=NOW)},
    ],
    ids=["an image that takes long", "a try that has just failed", "it runs"],
)
def test_what_may_still_come_to_something_is_left_alone(pod: dict[str, Any]) -> None:
    assert look(new(), after=DUE + 3600, **pod).actions == ()


def test_a_container_that_has_run_is_not_stuck() -> None:
    assert look(new(gang=waiting(started=True)), after=DUE + 3600).actions == ()


def test_it_is_tried_elsewhere_and_nobody_is_charged() -> None:
    decision = gone(new(gang=stopped()))
    (restart,) = decision.status.recent_restarts
    assert (restart.row, restart.cause, restart.charged) == ("15", Cause.INFRASTRUCTURE, False)
    assert [(each.kind, each.value) for each in decision.status.avoid] == [(AvoidKind.NODE, "spot-a")]
    assert decision.status.incarnation == 2
    assert failed(decision) is None


def test_a_pod_that_started_after_all_is_judged_by_how_it_ended() -> None:
    pods = (make_ended_pod(143, finished_at=NOW + seconds(DUE + 5), deletion_timestamp=NOW + seconds(DUE)),)
    status = new(gang=stopped(started=True))
    decision = decide(make_observation(status=status, pods=pods), NOW + seconds(DUE + 6), PolicySettings())
    assert [restart.row for restart in decision.status.recent_restarts] == ["18"]


def test_a_job_of_which_nothing_ever_ran_fails_when_that_has_lasted() -> None:
    early = DUE + 1 - GIVE_UP_AFTER.total_seconds()
    assert failed(gone(new(gang=stopped(), recent_restarts=(attempt(early + 1),)))) is None
    reason, message = failed(gone(new(gang=stopped(), recent_restarts=(attempt(early),)))) or ("", "")
    assert reason == Reason.NEVER_STARTED
    assert 'Back-off pulling image "x"' in message
    assert "correct spec.template" in message


def test_a_command_that_does_not_exist_fails_when_that_has_lasted() -> None:
    pods = (make_ended_pod(128, reason="StartError"),)
    status = new(recent_restarts=(attempt(-GIVE_UP_AFTER.total_seconds()),))
    decision = decide(make_observation(status=status, pods=pods), NOW, PolicySettings())
    assert (failed(decision) or ("", ""))[0] == Reason.NEVER_STARTED


@pytest.mark.parametrize(
    "ran_before",
    [
        {"recent_restarts": (attempt(-9000, row="9", ran=True), attempt(-7200))},
        {"recent_restarts": (attempt(-7200),), "progress": Progress(step=10)},
        {"recent_restarts": (attempt(-7200),), "progress": Progress(durable_step=10)},
    ],
    ids=["it was taken away", "it has reported", "it has saved"],
)
def test_what_has_run_before_is_tried_for_as_long_as_the_trouble_lasts(ran_before: dict[str, Any]) -> None:
    assert failed(gone(new(gang=stopped(), **ran_before))) is None


def test_what_was_taken_away_before_it_ran_does_not_count_as_having_run() -> None:
    earlier = (attempt(-9000, row="9"), attempt(-7200))
    assert failed(gone(new(gang=stopped(), recent_restarts=earlier))) is not None
