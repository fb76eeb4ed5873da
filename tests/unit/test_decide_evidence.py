"""What is seen of an end and of what may have caused it, both at once: which of them came first, and what
the trainer itself has said, count."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.model import (
    UNKNOWN,
    FailurePolicy,
    NodeCondition,
    NodeView,
    Notice,
    Observation,
    PodCondition,
    PodRecord,
    PodView,
    PolicySettings,
    Restart,
    Stop,
    Taint,
)
from spot_operator.names import Cause, Phase, StopReason
from spot_operator.testing import (
    NOW,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_outcome,
    make_spec,
    make_status,
    seconds,
)
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()
STOPPED = make_outcome(OutcomeKind.STOPPED, "StopRequested", checkpoint=100)
BROKEN_DEVICE = make_node(
    conditions=(NodeCondition(type="Ready", status="True"), NodeCondition(type="XIDErrors", status="True"))
)


def ago(number: float) -> datetime:
    return NOW - seconds(number)


def reclaimed(told: float) -> NodeView:
    key = "aws-node-termination-handler/spot-itn"
    return make_node(taints=(Taint(key=key, effect="NoSchedule", time_added=ago(told)),))


def deleted(asked: float, grace: int = 120) -> dict[str, Any]:
    return {"deletion_timestamp": ago(asked) + seconds(grace), "deletion_grace_seconds": grace}


def disrupted(reason: str, at: datetime | None) -> dict[str, Any]:
    found = PodCondition(type="DisruptionTarget", status="True", reason=reason, last_transition_time=at)
    return {"conditions": (found,)}


def record(**changes: Any) -> PodRecord:
    return replace(make_gang().pods[0], **changes)


def seen(
    pod: PodView, *, stop: Stop | None = None, node: NodeView | None = None, **changes: Any
) -> Observation:
    gang = make_gang(stop=stop, pods=(record(**changes),))
    return make_observation(status=make_status(gang=gang), pods=(pod,), nodes={"spot-a": node or make_node()})


def verdict(observation: Observation) -> Restart:
    (restart,) = decide(observation, NOW, SETTINGS).status.recent_restarts
    return restart


def phase_later(observation: Observation) -> Phase:
    """When the hold of an exit 0 is over."""
    first = decide(observation, NOW, SETTINGS)
    status = decide(replace(observation, status=first.status), NOW + seconds(11), SETTINGS).status
    assert status.phase is not None
    return status.phase


# --- exit 0 without a word completes a job, for ever; so nothing may have told it to stop

TOLD = 20.0
NOTICE = Notice(
    signal="node cordoned", first_seen_time=ago(TOLD), confirmed_reclaim=False, chosen_disruption=True
)
STOP = Stop(reason=StopReason.NODE_SIGNAL, time=ago(TOLD), message="taint")
ENDED = make_ended_pod(0, finished_at=ago(TOLD - 8))


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(seen(ENDED, stop=STOP), id="the operator"),
        pytest.param(seen(ENDED, notice=NOTICE), id="its node"),
        pytest.param(seen(replace(ENDED, **disrupted("EvictionByEvictionAPI", ago(TOLD)))), id="an eviction"),
        pytest.param(
            seen(replace(ENDED, **disrupted("EvictionByEvictionAPI", None))), id="an eviction at no time"
        ),
        pytest.param(seen(replace(ENDED, **deleted(TOLD))), id="a deletion"),
        pytest.param(seen(replace(ENDED, status_reason="NodeLost")), id="whoever gave its node up"),
        pytest.param(
            seen(replace(ENDED, **deleted(TOLD - 15, grace=1))), id="a deletion with its grace cut short"
        ),
        pytest.param(
            seen(replace(ENDED, **deleted(TOLD - 15)), notice=NOTICE), id="the first of two that did"
        ),
    ],
)
def test_a_program_that_was_told_to_stop_and_exits_with_0_has_not_finished(observation: Observation) -> None:
    assert phase_later(observation) is not Phase.COMPLETE


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(seen(ENDED), id="nothing told it"),
        pytest.param(seen(replace(ENDED, **deleted(TOLD - 14))), id="deleted when it had ended"),
        pytest.param(
            seen(make_ended_pod(0, finished_at=ago(200), **deleted(TOLD, grace=1))),
            id="deleted in a hurry long after it had ended",
        ),
        pytest.param(
            seen(make_ended_pod(0, finished_at=ago(40), **deleted(TOLD, grace=30))),
            id="deleted with less time when it had ended",
        ),
    ],
)
def test_a_program_that_exits_with_0_before_anything_tells_it_to_stop_has_finished(
    observation: Observation,
) -> None:
    assert phase_later(observation) is Phase.COMPLETE


# --- the outcome counts for more than the exit code: torchrun makes 1 of every code


@pytest.mark.parametrize("exit_code", [75, 1])
def test_a_stop_that_the_trainer_tells_of_is_no_failure_whatever_came_after_it(exit_code: int) -> None:
    asked = Stop(reason=StopReason.SUSPENDED, message="suspended", time=ago(1))
    pod = make_ended_pod(exit_code, outcome=STOPPED, finished_at=ago(7), **deleted(1))
    restart = verdict(seen(pod, stop=asked))
    assert (restart.row, restart.cause, restart.charged) == ("17", Cause.REQUESTED, False)
    assert restart.finished_time == ago(7)
    soon = verdict(seen(make_ended_pod(exit_code, outcome=STOPPED, finished_at=ago(4))))
    assert soon.finished_time is None  # status stays small where it says nothing
    told = seen(make_ended_pod(exit_code, outcome=STOPPED, finished_at=ago(30)), node=reclaimed(20))
    restart = verdict(told)
    assert (restart.row, restart.cause, restart.charged) == ("5", Cause.INTERRUPTION, False)
    strict = replace(told, spec=make_spec(failure_policy=FailurePolicy(backoff_limit=0)))
    assert decide(strict, NOW, SETTINGS).status.phase is not Phase.FAILED


@pytest.mark.parametrize("exit_code", [78, 1])
def test_what_no_restart_can_cure_fails_the_job_whatever_the_exit_code(exit_code: int) -> None:
    outcome = make_outcome(OutcomeKind.FAILED, "CheckpointConflict")
    status = decide(seen(make_ended_pod(exit_code, outcome=outcome)), NOW, SETTINGS).status
    assert status.phase is Phase.FAILED
    failed = next(condition for condition in status.conditions if condition.type == "Failed")
    assert failed.reason == "CheckpointConflict"


@pytest.mark.parametrize("exit_code", [78, 1])
def test_a_missing_bucket_is_waited_for_whatever_the_exit_code(exit_code: int) -> None:
    outcome = make_outcome(OutcomeKind.FAILED, "NoSuchBucket")
    restart = verdict(seen(make_ended_pod(exit_code, outcome=outcome)))
    assert (restart.cause, restart.charged) == (Cause.MISSING_OBJECT, False)


@pytest.mark.parametrize("exit_code", [1, 3])
def test_a_store_that_is_away_is_tried_again(exit_code: int) -> None:
    outcome = make_outcome(OutcomeKind.FAILED, "StoreUnreachable")
    restart = verdict(seen(make_ended_pod(exit_code, outcome=outcome)))
    assert (restart.row, restart.charged) == ("21", True)


# --- row 17's limit


def stopped_before(**changes: Any) -> Restart:
    found = verdict(seen(make_ended_pod(75)))
    assert found.row == "17"
    return replace(found, **changes)


@pytest.mark.parametrize("exit_code", [75, 1])
def test_a_stop_on_a_node_that_is_gone_is_no_stop_too_many(exit_code: int) -> None:
    history = (stopped_before(), stopped_before())
    observation = make_observation(
        status=make_status(recent_restarts=history),
        pods=(make_ended_pod(exit_code, outcome=STOPPED),),
        nodes={"spot-a": None},
    )
    last = decide(observation, NOW, SETTINGS).status.recent_restarts[-1]
    assert (last.row, last.cause, last.charged) == ("9", Cause.INTERRUPTION, False)


@pytest.mark.parametrize(
    ("earlier", "is_charged"),
    [
        ({}, True),
        ({"durable_step": 7}, False),
        ({"row": "5", "cause": Cause.INTERRUPTION}, False),
    ],
    ids=["nothing but stops", "with progress", "a reclaim between"],
)
def test_only_stops_in_a_row_without_progress_are_charged(earlier: dict[str, Any], is_charged: bool) -> None:
    history = (stopped_before(**earlier), stopped_before())
    observation = make_observation(status=make_status(recent_restarts=history), pods=(make_ended_pod(75),))
    last = decide(observation, NOW, SETTINGS).status.recent_restarts[-1]
    assert (last.row, last.charged) == ("17", is_charged)


# --- a crash, and what is told of its pod or node afterwards


@pytest.mark.parametrize("exit_code", [137, 143])
def test_a_program_that_is_killed_shortly_before_its_node_says_that_it_goes_was_on_its_way_out(
    exit_code: int,
) -> None:
    restart = verdict(seen(make_ended_pod(exit_code, finished_at=ago(30)), node=reclaimed(20)))
    assert (restart.row, restart.charged) == ("5", False)


@pytest.mark.parametrize(("asked", "row"), [(20, "21"), (30, "18")])
def test_a_deletion_explains_only_what_came_after_it(asked: float, row: str) -> None:
    restart = verdict(seen(make_ended_pod(143, finished_at=ago(28), **deleted(asked))))
    assert (restart.row, restart.charged) == (row, row == "21")


@pytest.mark.parametrize("reason", ["StartError", "ContainerCannotRun"])
def test_a_container_that_could_not_start_did_not_crash_before_the_notice(reason: str) -> None:
    pod = make_ended_pod(128, reason=reason, finished_at=ago(40))
    for node in (make_node(), reclaimed(20)):
        assert (verdict(seen(pod, node=node)).row, verdict(seen(pod, node=node)).charged) == ("15", False)
        broken = replace(BROKEN_DEVICE, taints=node.taints)
        assert verdict(seen(pod, node=broken)).row == "11"


@pytest.mark.parametrize(
    ("node", "row"), [(BROKEN_DEVICE, "11"), (make_node(boot_id="boot-2"), "10")], ids=["broken", "rebooted"]
)
def test_what_explains_a_crash_explains_it_also_where_a_notice_came_after_it(
    node: NodeView, row: str
) -> None:
    for taints in ((), reclaimed(20).taints):
        there = replace(node, taints=taints)
        restart = verdict(seen(make_ended_pod(1, finished_at=ago(40)), node=there, boot_id="boot-1"))
        assert (restart.row, restart.cause, restart.charged) == (row, Cause.NODE_LOST, False)


def test_a_program_that_failed_before_its_node_said_that_the_accelerator_is_broken_is_not_to_blame() -> None:
    first = decide(seen(make_ended_pod(1)), NOW, SETTINGS).status
    assert first.recent_restarts[0].charged
    told = make_observation(status=first, pods=(), nodes={"spot-a": BROKEN_DEVICE})
    later = decide(told, NOW + seconds(40), SETTINGS).status
    (restart,) = later.recent_restarts
    assert (restart.row, restart.cause, restart.charged) == ("11", Cause.NODE_LOST, False)
    assert restart.evidence == "exit code 1; its node said XIDErrors=True 40 s later"
    assert [each.value for each in later.avoid] == ["spot-a"]
    too_late = decide(told, NOW + seconds(91), SETTINGS).status
    assert too_late.recent_restarts[0].charged


def test_a_later_pod_on_a_machine_proves_nothing_about_its_accelerator() -> None:
    first = decide(seen(make_ended_pod(1)), NOW, SETTINGS).status
    again = make_gang(incarnation=2, pods=(record(node_uid=make_node().uid, started_time=NOW),))
    told = make_observation(status=replace(first, gang=again), nodes={"spot-a": BROKEN_DEVICE})
    assert decide(told, NOW + seconds(20), SETTINGS).status.recent_restarts[0].row == "11"


def test_a_machine_that_took_a_later_pod_had_been_well_whatever_became_of_it() -> None:
    first = decide(seen(make_ended_pod(1)), NOW, SETTINGS).status
    again = make_gang(incarnation=2, pods=(record(node_uid=make_node().uid, started_time=NOW),))
    off = make_node(taints=(Taint(key="node.kubernetes.io/out-of-service", effect="NoExecute"),))
    for node in (off, None):
        told = make_observation(status=replace(first, gang=again), nodes={"spot-a": node})
        assert decide(told, NOW + seconds(20), SETTINGS).status.recent_restarts[0].charged


@pytest.mark.parametrize(
    ("node", "row", "cause"),
    [
        (replace(BROKEN_DEVICE, uid="another"), "9", Cause.INTERRUPTION),
        (
            replace(
                BROKEN_DEVICE, taints=(Taint(key="node.kubernetes.io/out-of-service", effect="NoExecute"),)
            ),
            "10",
            Cause.INTERRUPTION,
        ),
    ],
    ids=["of another node", "of one that is off"],
)
def test_a_broken_accelerator_counts_less_than_a_machine_that_is_not_there(
    node: NodeView, row: str, cause: Cause
) -> None:
    first = decide(seen(make_ended_pod(1)), NOW, SETTINGS).status
    told = make_observation(status=first, pods=(), nodes={"spot-a": node})
    restart = decide(told, NOW + seconds(40), SETTINGS).status.recent_restarts[0]
    assert (restart.row, restart.cause) == (row, cause)


def test_the_stop_that_is_one_too_many_fails_the_job_only_when_its_node_has_outlived_it() -> None:
    history = (stopped_before(), stopped_before())
    strict = make_spec(failure_policy=FailurePolicy(backoff_limit=0))
    last = make_observation(
        spec=strict, status=make_status(recent_restarts=history), pods=(make_ended_pod(75),)
    )
    settling = decide(last, NOW, SETTINGS).status
    assert settling.recent_restarts[-1].charged
    for node, has_failed in ((None, False), (make_node(), True)):
        status = settling
        for after in (0, 60, 90):
            assert status.phase is not Phase.FAILED
            there = {"spot-a": node if after else make_node()}
            later = replace(last, status=status, pods=(), nodes=there)
            status = decide(later, NOW + seconds(after), SETTINGS).status
        assert (status.phase is Phase.FAILED) is has_failed


@pytest.mark.parametrize(("ended", "row"), [(20, "17"), (5, "5")])
def test_a_stop_is_not_put_down_to_a_notice_that_came_long_after_it(ended: float, row: str) -> None:
    """Also where the stop itself is heard late, so that a moment lies between what is heard of both."""
    first = decide(seen(make_ended_pod(75, finished_at=ago(ended))), NOW, SETTINGS).status
    assert first.recent_restarts[0].row == "17"
    told = make_observation(status=first, pods=(), nodes={"spot-a": reclaimed(0)})
    later = decide(told, NOW + seconds(3), SETTINGS).status
    assert later.recent_restarts[0].row == row


def test_a_notice_without_a_time_may_have_been_there_where_the_node_could_not_be_read() -> None:
    ended = replace(seen(make_ended_pod(75, finished_at=ago(20))), nodes={"spot-a": UNKNOWN})
    first = decide(ended, NOW, SETTINGS).status
    assert first.recent_restarts[0].row == "17"
    timeless = make_node(taints=(replace(reclaimed(0).taints[0], time_added=None),))
    told = make_observation(status=first, pods=(), nodes={"spot-a": timeless})
    assert decide(told, NOW + seconds(3), SETTINGS).status.recent_restarts[0].row == "5"


def test_what_starts_when_it_is_given_up_and_stops_is_nobody_elses_deletion() -> None:
    given_up = Stop(reason=StopReason.NEVER_STARTED, time=ago(10), message="cannot pull the image")
    first = decide(
        seen(make_ended_pod(75, finished_at=ago(5), **deleted(10)), stop=given_up), NOW, SETTINGS
    ).status
    (restart,) = first.recent_restarts
    assert (restart.cause, restart.charged) == (Cause.INFRASTRUCTURE, False)
    assert restart.evidence == "started when it was given up: cannot pull the image"
    again = make_gang(incarnation=2, stop=given_up, pods=(record(started_time=None),))
    later = make_observation(status=replace(first, gang=again), pods=())
    # It has run once: what keeps it from starting now may pass as well.
    assert decide(later, NOW + seconds(700), SETTINGS).status.phase is not Phase.FAILED


# --- who ended it


@pytest.mark.parametrize(
    ("pod", "row", "cause"),
    [
        pytest.param(
            make_ended_pod(1, status_reason="NodeLost"), "10", Cause.NODE_LOST, id="the node's controller"
        ),
        pytest.param(
            make_ended_pod(1, **disrupted("DeletionByDeviceTaintManager", ago(3))),
            "11",
            Cause.NODE_LOST,
            id="a taint of its device",
        ),
        pytest.param(
            make_ended_pod(0, finished_at=ago(1), **disrupted("SomeController", ago(9))),
            "8",
            Cause.VOLUNTARY_EVICTION,
            id="a writer that is not known",
        ),
        pytest.param(
            make_ended_pod(0, status_reason="Preempting"), "12", Cause.NODE_PRESSURE, id="a critical pod"
        ),
        pytest.param(
            make_ended_pod(137, status_reason="DeadlineExceeded", **deleted(2)),
            "16",
            Cause.FAILURE,
            id="its own time limit",
        ),
    ],
)
def test_who_ended_it_is_named(pod: PodView, row: str, cause: Cause) -> None:
    restart = verdict(seen(pod))
    assert (restart.row, restart.cause) == (row, cause)
