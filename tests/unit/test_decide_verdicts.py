"""Why an incarnation ended: one case for each row of the classification table."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.model import (
    ContainerView,
    JobStatus,
    NodeView,
    Notice,
    Observation,
    PodCondition,
    PolicySettings,
    Progress,
    Restart,
    Stop,
    Taint,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Phase, Reason, StopReason
from spot_operator.testing import (
    NODE_UID,
    NOW,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_outcome,
    make_pod,
    make_status,
    seconds,
)
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()


def verdict(observation: Observation) -> Restart:
    """The one restart that the decision records."""
    restarts = decide(observation, NOW, SETTINGS).status.recent_restarts
    assert len(restarts) == 1
    return restarts[0]


def make_record(**changes: Any) -> Any:
    return replace(make_gang().pods[0], **changes)


def noticed(*, confirmed: bool = False, chosen: bool = False, ago: float = 30) -> Notice:
    return Notice(
        signal="taint karpenter.sh/disrupted",
        first_seen_time=NOW - seconds(ago),
        confirmed_reclaim=confirmed,
        chosen_disruption=chosen,
    )


def disrupted(reason: str) -> tuple[PodCondition, ...]:
    return (
        PodCondition(
            type="DisruptionTarget", status="True", reason=reason, last_transition_time=NOW - seconds(20)
        ),
    )


def with_notice(
    notice: Notice, *, capacity_type: CapacityType = CapacityType.SPOT, **pod: Any
) -> Observation:
    outcome = make_outcome(OutcomeKind.STOPPED, "Notice", step=120, checkpoint=120)
    gang = make_gang(
        capacity_type,
        pods=(make_record(notice=notice),),
        stop=Stop(reason=StopReason.NODE_SIGNAL, time=NOW - seconds(29), message="notice"),
    )
    return make_observation(
        status=make_status(gang=gang),
        pods=(make_ended_pod(75, outcome=outcome, deletion_timestamp=NOW, deletion_grace_seconds=29, **pod),),
    )


def test_row_0_a_stop_that_the_operator_intended_is_no_interruption() -> None:
    gang = make_gang(stop=Stop(reason=StopReason.SUSPENDED, time=NOW - seconds(20), message="suspended"))
    observation = make_observation(status=make_status(gang=gang), pods=(make_ended_pod(75),))
    assert (verdict(observation).row, verdict(observation).cause) == ("0", Cause.REQUESTED)


def test_row_0_does_not_cover_a_crash_before_the_stop() -> None:
    gang = make_gang(stop=Stop(reason=StopReason.SUSPENDED, time=NOW, message="suspended"))
    pod = make_ended_pod(1, finished_at=NOW - seconds(30))
    restart = verdict(make_observation(status=make_status(gang=gang), pods=(pod,)))
    assert (restart.cause, restart.charged) == (Cause.FAILURE, True)


def test_row_1_outcome_complete_completes_whatever_the_exit_code() -> None:
    pod = make_ended_pod(1, outcome=make_outcome(OutcomeKind.COMPLETE, "Completed", step=500, checkpoint=500))
    status = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    assert [c.status for c in status.conditions if c.type is ConditionType.COMPLETE] == [True]
    assert status.recent_restarts == ()
    assert status.progress.step == 500


def test_row_2_out_of_memory_has_its_own_budget() -> None:
    restart = verdict(make_observation(pods=(make_ended_pod(137, reason="OOMKilled"),)))
    assert (restart.row, restart.cause, restart.charged) == ("2", Cause.OUT_OF_MEMORY, False)


def test_row_2_out_of_memory_during_the_grace_period_is_the_interruption() -> None:
    observation = with_notice(noticed(confirmed=True))
    pod = make_ended_pod(137, reason="OOMKilled", deletion_timestamp=NOW, deletion_grace_seconds=29)
    assert verdict(replace(observation, pods=(pod,))).cause is Cause.INTERRUPTION


def test_row_4_scheduler_preemption() -> None:
    pod = make_ended_pod(75, conditions=disrupted("PreemptionByScheduler"))
    assert verdict(make_observation(pods=(pod,))).cause is Cause.SCHEDULER_PREEMPTION


@pytest.mark.parametrize(
    ("capacity_type", "cause"),
    [(CapacityType.SPOT, Cause.INTERRUPTION), (CapacityType.ON_DEMAND, Cause.NODE_LOST)],
)
def test_row_5_a_confirmed_reclaim(capacity_type: CapacityType, cause: Cause) -> None:
    restart = verdict(with_notice(noticed(confirmed=True), capacity_type=capacity_type))
    assert (restart.row, restart.cause, restart.charged) == ("5", cause, False)
    assert restart.lost_steps == 0


def test_row_6_node_shutdown() -> None:
    pod = make_ended_pod(
        143,
        status_reason="Terminated",
        status_message="Pod was terminated in response to imminent node shutdown.",
    )
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause) == ("6", Cause.INTERRUPTION)


def test_row_7_a_drain_of_a_spot_node_is_probably_a_reclaim() -> None:
    restart = verdict(with_notice(noticed()))
    assert (restart.row, restart.cause) == ("7", Cause.INTERRUPTION)


def test_row_8_a_disruption_that_the_cluster_chose_is_voluntary() -> None:
    restart = verdict(with_notice(noticed(chosen=True)))
    assert (restart.row, restart.cause) == ("8", Cause.VOLUNTARY_EVICTION)


def test_row_8_an_eviction_without_any_sign_is_voluntary() -> None:
    pod = make_ended_pod(75, conditions=disrupted("EvictionByEvictionAPI"))
    assert verdict(make_observation(pods=(pod,))).cause is Cause.VOLUNTARY_EVICTION


def test_row_7_upgrades_an_eviction_whose_node_vanished_soon_afterwards() -> None:
    pod = make_ended_pod(75, conditions=disrupted("EvictionByEvictionAPI"))
    first = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    later = make_observation(status=first, pods=(), nodes={"spot-a": None})
    status = decide(later, NOW + seconds(60), SETTINGS).status
    assert status.recent_restarts[0].cause is Cause.INTERRUPTION
    assert (status.restarts.interruptions, status.restarts.infrastructure) == (1, 0)


def test_row_7_upgrades_nothing_after_five_minutes() -> None:
    pod = make_ended_pod(75, conditions=disrupted("EvictionByEvictionAPI"))
    first = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    later = make_observation(status=first, pods=(), nodes={"spot-a": None})
    status = decide(later, NOW + seconds(301), SETTINGS).status
    assert status.recent_restarts[0].cause is Cause.VOLUNTARY_EVICTION


def test_row_7_upgrades_a_stop_that_nobody_asked_for() -> None:
    """The kubelet of a machine that goes tells its pods to stop; the API server may never hear why."""
    first = decide(make_observation(pods=(make_ended_pod(75),)), NOW, SETTINGS).status
    assert first.recent_restarts[0].row == "17"
    later = make_observation(status=first, pods=(), nodes={"spot-a": None})
    status = decide(later, NOW + seconds(60), SETTINGS).status
    assert status.recent_restarts[0].cause is Cause.INTERRUPTION
    assert (status.restarts.interruptions, status.restarts.requested) == (1, 0)


@pytest.mark.parametrize(
    ("node", "cause"), [(None, Cause.INTERRUPTION), (make_node(), Cause.NODE_LOST)], ids=["gone", "back"]
)
def test_row_10_a_spot_node_that_fell_silent_and_vanished_was_reclaimed(
    node: NodeView | None, cause: Cause
) -> None:
    pod = make_ended_pod(137, conditions=disrupted("DeletionByTaintManager"))
    silent = make_node(ready="Unknown")
    first = decide(make_observation(pods=(pod,), nodes={"spot-a": silent}), NOW, SETTINGS).status
    assert first.recent_restarts[0].cause is Cause.NODE_LOST
    later = make_observation(status=first, pods=(), nodes={"spot-a": node})
    assert decide(later, NOW + seconds(200), SETTINGS).status.recent_restarts[0].cause is cause


def test_row_9_a_stop_that_nobody_asked_for_on_a_node_that_is_gone() -> None:
    restart = verdict(make_observation(pods=(make_ended_pod(75),), nodes={"spot-a": None}))
    assert (restart.row, restart.cause) == ("9", Cause.INTERRUPTION)


@pytest.mark.parametrize("exit_code", [137, 143])
def test_row_9_a_program_that_was_killed_on_a_node_that_is_gone_is_not_to_blame(exit_code: int) -> None:
    restart = verdict(make_observation(pods=(make_ended_pod(exit_code),), nodes={"spot-a": None}))
    assert (restart.row, restart.cause, restart.charged) == ("9", Cause.INTERRUPTION, False)
    alive = verdict(make_observation(pods=(make_ended_pod(exit_code),)))
    assert (alive.cause, alive.charged) == (Cause.FAILURE, True)


@pytest.mark.parametrize("exit_code", [75, 137, 143])
@pytest.mark.parametrize(("ended_before", "row"), [(6, "9"), (4, "18")])
def test_row_9_a_deletion_does_not_explain_an_end_before_it(
    exit_code: int, ended_before: float, row: str
) -> None:
    """The pod of a node that is gone is deleted by whoever cleans up after it."""
    pod = make_ended_pod(
        exit_code,
        finished_at=NOW - seconds(ended_before),
        deletion_timestamp=NOW + seconds(120),
        deletion_grace_seconds=120,
    )
    restart = verdict(make_observation(pods=(pod,), nodes={"spot-a": None}))
    assert (restart.row, restart.charged) == (row, False)


def test_row_8_comes_first_where_the_cluster_had_chosen_the_node_that_is_gone() -> None:
    pod = make_ended_pod(137, finished_at=NOW - seconds(40))
    seen = replace(with_notice(noticed(chosen=True)), pods=(pod,), nodes={"spot-a": None})
    assert (verdict(seen).row, verdict(seen).cause) == ("8", Cause.VOLUNTARY_EVICTION)


def test_row_9_a_suspension_does_not_explain_a_machine_that_was_gone_before() -> None:
    gang = make_gang(stop=Stop(reason=StopReason.SUSPENDED, time=NOW, message="x"))
    record = replace(gang.pods[0], node_gone_time=NOW - seconds(200))
    status = make_status(gang=replace(gang, pods=(record,)))
    restart = verdict(make_observation(status=status, pods=(), nodes={"spot-a": None}))
    assert (restart.row, restart.cause) == ("9", Cause.INTERRUPTION)


def test_row_9_node_object_gone() -> None:
    restart = verdict(make_observation(nodes={"spot-a": None}))
    assert (restart.row, restart.cause) == ("9", Cause.INTERRUPTION)


def test_row_9_a_new_node_of_the_same_name_is_not_the_pods_node() -> None:
    another = make_node(uid="another", boot_id="boot-2")
    restart = verdict(make_observation(nodes={"spot-a": another}))
    assert restart.row == "9"


def test_row_10_unreachable_past_the_toleration() -> None:
    taint = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW - seconds(61))
    restart = verdict(make_observation(nodes={"spot-a": make_node(ready="Unknown", taints=(taint,))}))
    assert (restart.row, restart.cause) == ("10", Cause.NODE_LOST)


def test_row_10_unreachable_within_the_toleration_is_nothing_yet() -> None:
    taint = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW - seconds(59))
    looking = decide(make_observation(nodes={"spot-a": make_node(taints=(taint,))}), NOW, SETTINGS)
    assert looking.next_look == seconds(1)
    observation = make_observation(nodes={"spot-a": make_node(ready="Unknown", taints=(taint,))})
    decision = decide(observation, NOW, SETTINGS)
    assert (decision.status.recent_restarts, decision.actions) == ((), ())


def test_row_10_a_node_that_was_out_of_reach_and_is_back() -> None:
    """The taint manager evicted its pod; by the time of the verdict the node is Ready again."""
    taint = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW - seconds(10))
    seen = make_observation(nodes={"spot-a": make_node(ready="Unknown", taints=(taint,))})
    status = decide(seen, NOW, SETTINGS).status
    assert status.gang is not None
    assert status.gang.pods[0].unreachable_time == NOW
    pod = make_ended_pod(143, conditions=disrupted("DeletionByTaintManager"))
    later = decide(make_observation(status=status, pods=(pod,)), NOW + seconds(60), SETTINGS).status
    assert later.recent_restarts[0].cause is Cause.NODE_LOST
    never = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    assert never.recent_restarts[0].cause is Cause.VOLUNTARY_EVICTION


def test_row_10_a_container_that_the_restarted_kubelet_lost() -> None:
    pod = make_ended_pod(137, reason="ContainerStatusUnknown", finished_at=None)
    assert verdict(make_observation(pods=(pod,))).cause is Cause.NODE_LOST


def test_row_10_a_failed_pod_whose_container_has_no_end() -> None:
    """A kubelet that came back without its containers (tests/data/recordings/reboot.json)."""
    pod = make_pod(phase="Failed", trainer=ContainerView(waiting_reason="ContainerCreating"))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("10", Cause.NODE_LOST, False)


def test_row_21_a_pod_whose_init_container_failed() -> None:
    pod = make_pod(phase="Failed", trainer=ContainerView(waiting_reason="PodInitializing"))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("21", Cause.FAILURE, True)


def test_row_18_a_pod_that_was_deleted_before_its_container_was_created() -> None:
    """The kubelet says ContainerStatusUnknown of it too (tests/data/recordings/deletion-creating.json)."""
    gang = make_gang()
    gang = replace(gang, pods=(replace(gang.pods[0], started_time=None),))
    pod = make_ended_pod(
        137,
        reason="ContainerStatusUnknown",
        finished_at=None,
        deletion_timestamp=NOW,
        deletion_grace_seconds=30,
    )
    restart = verdict(make_observation(status=make_status(gang=gang), pods=(pod,)))
    assert (restart.row, restart.cause) == ("18", Cause.VOLUNTARY_EVICTION)


@pytest.mark.parametrize(("code", "cause"), [(255, Cause.NODE_LOST), (1, Cause.NODE_LOST)])
def test_row_10_what_ended_on_a_machine_that_was_booted_again_is_not_to_blame(
    code: int, cause: Cause
) -> None:
    restart = verdict(
        make_observation(pods=(make_ended_pod(code),), nodes={"spot-a": make_node(boot_id="boot-2")})
    )
    assert (restart.row, restart.cause, restart.charged) == ("10", cause, False)


def test_row_10_the_taint_manager_on_a_machine_that_was_booted_again_lost_its_pod() -> None:
    """It was silent while it booted; by the time that it could be read it was Ready again."""
    pod = make_ended_pod(137, conditions=disrupted("DeletionByTaintManager"))
    restart = verdict(make_observation(pods=(pod,), nodes={"spot-a": make_node(boot_id="boot-2")}))
    assert (restart.row, restart.cause) == ("10", Cause.NODE_LOST)


def test_row_22_the_time_of_a_deletion_is_kept_from_before_the_removal() -> None:
    """The kubelet's own deletion moves deletionTimestamp to the removal, long after the exit."""
    asked = make_pod(deletion_timestamp=NOW + seconds(20), deletion_grace_seconds=30)
    status = decide(make_observation(pods=(asked,)), NOW, SETTINGS).status
    removed = make_ended_pod(
        0, finished_at=NOW + seconds(5), deletion_timestamp=NOW + seconds(40), deletion_grace_seconds=0
    )
    gone = make_observation(status=status, pods=(), departed=(removed,))
    restarts = decide(gone, NOW + seconds(41), SETTINGS).status.recent_restarts
    assert [(r.row, r.cause) for r in restarts] == [("22", Cause.VOLUNTARY_EVICTION)]


def test_row_22_of_a_pod_first_seen_at_its_removal_nobody_knows_whether_it_was_done() -> None:
    removed = make_ended_pod(
        0, finished_at=NOW - seconds(30), deletion_timestamp=NOW, deletion_grace_seconds=0
    )
    restart = verdict(make_observation(pods=(), departed=(removed,)))
    assert (restart.row, restart.cause) == ("22", Cause.VOLUNTARY_EVICTION)


def test_row_22_an_exit_that_was_seen_before_the_removal_counts() -> None:
    ended = make_ended_pod(0, finished_at=NOW - seconds(1))
    status = decide(make_observation(pods=(ended,)), NOW, SETTINGS).status
    removed = replace(ended, deletion_timestamp=NOW + seconds(7), deletion_grace_seconds=0)
    gone = make_observation(status=status, pods=(), departed=(removed,))
    later = decide(gone, NOW + seconds(8), SETTINGS).status
    done = decide(replace(gone, status=later), NOW + seconds(20), SETTINGS).status
    assert done.phase is Phase.COMPLETE


def test_row_9_a_node_that_was_registered_again_by_the_same_machine_is_no_loss() -> None:
    again = make_observation(nodes={"spot-a": make_node(uid="another")})
    decision = decide(again, NOW, SETTINGS)
    assert (decision.status.recent_restarts, decision.actions) == ((), ())
    assert decision.status.gang is not None
    assert decision.status.gang.pods[0].node_uid == "another"


@pytest.mark.parametrize(
    ("reason", "row"), [("Evicted", "13"), ("DeadlineExceeded", "16")], ids=["its own limit", "its deadline"]
)
def test_an_exit_0_of_a_pod_that_its_kubelet_stopped_completes_nothing(reason: str, row: str) -> None:
    message = 'Usage of EmptyDir volume "x" exceeds the limit'
    pod = make_ended_pod(0, status_reason=reason, status_message=message)
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == (row, Cause.FAILURE, True)


def test_row_14_a_pod_that_a_node_under_pressure_did_not_take() -> None:
    pod = make_pod(
        phase="Failed",
        status_reason="Evicted",
        status_message="Pod was rejected: The node had condition: [DiskPressure]. ",
        trainer=ContainerView(),
        started_any_container=False,
    )
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("14", Cause.INFRASTRUCTURE, False)


@pytest.mark.parametrize("code", [1, 137, 143])
def test_row_18_whatever_a_program_ends_with_after_its_deletion_is_not_charged(code: int) -> None:
    pod = make_ended_pod(code, deletion_timestamp=NOW + seconds(20), deletion_grace_seconds=30)
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("18", Cause.VOLUNTARY_EVICTION, False)


def test_row_8_a_disruption_by_somebody_unknown_is_not_charged() -> None:
    pod = make_ended_pod(1, conditions=disrupted("DeletionBySomeNewController"))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("8", Cause.VOLUNTARY_EVICTION, False)


def test_row_12_node_pressure_is_not_charged() -> None:
    pod = make_ended_pod(137, status_reason="Evicted", conditions=disrupted("TerminationByKubelet"))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("12", Cause.NODE_PRESSURE, False)


@pytest.mark.parametrize(("later_seconds", "row"), [(6, "12"), (4, "5")])
def test_row_12_a_notice_that_comes_clearly_after_the_eviction_is_not_why(
    later_seconds: int, row: str
) -> None:
    notice = noticed(confirmed=True, ago=20)
    pod = make_ended_pod(
        137,
        finished_at=notice.first_seen_time - seconds(later_seconds),
        status_reason="Evicted",
        conditions=disrupted("TerminationByKubelet"),
    )
    assert verdict(replace(with_notice(notice), pods=(pod,))).row == row


def test_row_13_the_pods_own_limit_is_charged() -> None:
    pod = make_ended_pod(137, status_reason="Evicted", status_message='Usage of EmptyDir volume "x" exceeds')
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("13", Cause.FAILURE, True)


def test_row_14_never_admitted() -> None:
    pod = make_pod(
        phase="Failed",
        status_reason="OutOfnvidia.com/gpu",
        trainer=replace(make_pod().trainer, running_since=None),
        started_any_container=False,
    )
    assert verdict(make_observation(pods=(pod,))).cause is Cause.INFRASTRUCTURE


@pytest.mark.parametrize("reason", ["OutOfnvidia.com/gpu", "NodeAffinity", "UnexpectedAdmissionError"])
def test_row_14_a_machine_that_came_back_refuses_the_pod_that_ran_on_it(reason: str) -> None:
    pod = make_pod(phase="Failed", status_reason=reason, started_any_container=True)
    restart = verdict(make_observation(pods=(pod,), nodes={"spot-a": make_node(uid="the-next-one")}))
    assert (restart.row, restart.cause, restart.charged) == ("14", Cause.INFRASTRUCTURE, False)


def test_row_14_does_not_cover_a_program_that_ended_by_itself() -> None:
    pod = make_ended_pod(1, status_reason="OutOfcpu", started_any_container=True)
    assert verdict(make_observation(pods=(pod,))).cause is Cause.FAILURE


def test_row_17_stopped_on_purpose() -> None:
    pod = make_ended_pod(75, outcome=make_outcome(OutcomeKind.STOPPED, "StopRequested", checkpoint=100))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause, restart.charged) == ("17", Cause.REQUESTED, False)


def test_row_17_a_stop_on_purpose_is_not_put_down_to_a_deletion_that_was_asked_for_after_it() -> None:
    """It was told late, when its node was in reach again, and suspension had deleted the pod meanwhile."""
    asked = NOW - seconds(1)
    stop = Stop(reason=StopReason.SUSPENDED, message="suspended", time=asked)
    pod = make_ended_pod(
        75,
        finished_at=asked - seconds(6),
        deletion_timestamp=asked + seconds(120),
        deletion_grace_seconds=120,
    )
    restart = verdict(make_observation(status=make_status(gang=make_gang(stop=stop)), pods=(pod,)))
    assert (restart.row, restart.cause) == ("17", Cause.REQUESTED)
    near = replace(pod, trainer=make_ended_pod(75, finished_at=asked - seconds(4)).trainer)
    restart = verdict(make_observation(pods=(near,)))
    assert (restart.row, restart.cause) == ("18", Cause.VOLUNTARY_EVICTION)


def stopped_thrice() -> list[JobStatus]:
    status, after = make_status(), []
    for _ in range(3):
        decision = decide(make_observation(status=status, pods=(make_ended_pod(75),)), NOW, SETTINGS)
        after.append(decision.status)
        status = replace(decision.status, gang=make_gang())
    return after


def test_row_17_stopping_again_and_again_without_progress_is_a_failure() -> None:
    last = [status.recent_restarts[-1] for status in stopped_thrice()]
    causes = [(restart.cause, restart.charged) for restart in last]
    assert causes == [(Cause.REQUESTED, False), (Cause.REQUESTED, False), (Cause.FAILURE, True)]


RECLAIMED = make_node(
    taints=(
        Taint(key="aws-node-termination-handler/spot-itn", effect="NoSchedule", time_added=NOW - seconds(10)),
    )
)


@pytest.mark.parametrize(("node", "row"), [(None, "7"), (RECLAIMED, "5")], ids=["vanished", "said so"])
def test_also_the_stop_that_was_charged_as_one_too_many_may_turn_out_to_be_a_reclaim(
    node: NodeView | None, row: str
) -> None:
    first = stopped_thrice()[-1]
    later = make_observation(status=first, pods=(), nodes={"spot-a": node})
    status = decide(later, NOW + seconds(60), SETTINGS).status
    last = status.recent_restarts[-1]
    assert (last.cause, last.row, last.charged) == (Cause.INTERRUPTION, row, False)
    assert status.restarts.failures == 0


def test_row_17b_fenced_starts_the_next_incarnation_uncharged() -> None:
    pod = make_ended_pod(76, outcome=make_outcome(OutcomeKind.FENCED, "Superseded"))
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.cause, restart.charged) == (Cause.FENCED, False)


def test_row_17b_another_jobs_claim_fails_the_job() -> None:
    pod = make_ended_pod(76, outcome=make_outcome(OutcomeKind.FENCED, "ClaimConflict"))
    status = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    failed = next(c for c in status.conditions if c.type is ConditionType.FAILED)
    assert (failed.status, failed.reason) == (True, Reason.CLAIM_CONFLICT)


def test_row_17b_a_restart_that_cannot_help_fails_the_job_with_the_trainers_reason() -> None:
    pod = make_ended_pod(78, outcome=make_outcome(OutcomeKind.FAILED, "CheckpointConflict"))
    status = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    failed = next(c for c in status.conditions if c.type is ConditionType.FAILED)
    assert (failed.status, failed.reason, status.gang) == (True, "CheckpointConflict", None)


def test_row_17b_a_missing_bucket_is_waited_for() -> None:
    pod = make_ended_pod(78, outcome=make_outcome(OutcomeKind.FAILED, "NoSuchBucket"))
    decision = decide(make_observation(pods=(pod,)), NOW, SETTINGS)
    ready = next(c for c in decision.status.conditions if c.type is ConditionType.CHECKPOINT_READY)
    assert (ready.status, ready.reason) == (False, Reason.NO_SUCH_BUCKET)
    assert decision.status.next_launch_time == NOW + seconds(10)
    assert decision.status.recent_restarts[0].charged is False


def test_row_18_deleted_by_someone_else() -> None:
    pod = make_ended_pod(143, deletion_timestamp=NOW + seconds(119), deletion_grace_seconds=120)
    restart = verdict(make_observation(pods=(pod,)))
    assert (restart.row, restart.cause) == ("18", Cause.VOLUNTARY_EVICTION)


@pytest.mark.parametrize("exit_code", [1, 2, 134, 137, 139, 143])
def test_row_21_any_other_exit_is_charged_to_the_application(exit_code: int) -> None:
    restart = verdict(make_observation(pods=(make_ended_pod(exit_code),)))
    assert (restart.row, restart.cause, restart.charged) == ("21", Cause.FAILURE, True)


def test_a_crash_clearly_before_the_notice_is_a_crash() -> None:
    observation = with_notice(noticed(confirmed=True, ago=3))
    pod = make_ended_pod(1, finished_at=NOW - seconds(60))
    restart = verdict(replace(observation, pods=(pod,)))
    assert (restart.cause, restart.charged) == (Cause.FAILURE, True)


def test_row_22_exit_zero_is_held_for_ten_seconds_because_complete_is_final() -> None:
    observation = make_observation(pods=(make_ended_pod(0),))
    held = decide(observation, NOW, SETTINGS)
    assert (held.status.gang is not None, held.next_look) == (True, seconds(10))
    done = decide(replace(observation, status=held.status), NOW + seconds(10), SETTINGS)
    assert done.status.phase == "Complete"


def test_row_22_an_exit_zero_that_was_seen_counts_although_the_pod_is_gone_by_now() -> None:
    """Its hold was on when the operator died, and its pod was deleted meanwhile."""
    held = decide(make_observation(pods=(make_ended_pod(0),)), NOW, SETTINGS).status
    gone = decide(make_observation(status=held, pods=()), NOW + seconds(60), SETTINGS).status
    assert gone.phase == "Complete"


def test_row_22_exit_zero_after_it_was_told_to_stop_is_not_done() -> None:
    pod = make_ended_pod(0, deletion_timestamp=NOW + seconds(110), deletion_grace_seconds=120)
    status = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    assert (status.phase, status.recent_restarts[0].row) == ("Pending", "22")


def test_row_22_exit_zero_on_a_node_with_a_notice_is_the_interruption() -> None:
    observation = with_notice(noticed(confirmed=True))
    assert verdict(replace(observation, pods=(make_ended_pod(0),))).cause is Cause.INTERRUPTION


@pytest.mark.parametrize(
    ("unreachable", "reported", "row"),
    [(40, None, "10"), (40, 60, "10"), (40, 20, "23"), (599, None, "10"), (601, None, "23")],
)
def test_row_10_a_pod_that_nobody_heard_of_since_its_node_was_out_of_reach(
    unreachable: float, reported: float | None, row: str
) -> None:
    """Its last words may have been lost with the connection; the node is back by now."""
    record = make_record(unreachable_time=NOW - seconds(unreachable))
    told = None if reported is None else NOW - seconds(reported)
    status = make_status(gang=make_gang(pods=(record,)), progress=Progress(reported_time=told))
    assert verdict(make_observation(status=status, pods=())).row == row


@pytest.mark.parametrize(("before", "expected"), [(None, 0), (300, 0), (5, 5)])
def test_of_several_silences_of_a_node_the_last_is_remembered(before: float | None, expected: float) -> None:
    record = make_record(unreachable_time=None if before is None else NOW - seconds(before))
    taint = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW - seconds(10))
    silent = make_node(ready="Unknown", taints=(taint,))
    status = make_status(gang=make_gang(pods=(record,)))
    seen = make_observation(status=status, nodes={"spot-a": silent})
    gang = decide(seen, NOW, SETTINGS).status.gang
    assert gang is not None
    assert gang.pods[0].unreachable_time == NOW - seconds(expected)


def test_row_23_a_pod_that_vanished_from_a_live_node() -> None:
    restart = verdict(make_observation(pods=()))
    assert (restart.row, restart.cause) == ("23", Cause.VOLUNTARY_EVICTION)


def test_a_pod_that_vanished_is_judged_by_its_last_known_state() -> None:
    outcome = make_outcome(OutcomeKind.COMPLETE, "Completed", step=500, checkpoint=500)
    status = decide(
        make_observation(pods=(), departed=(make_ended_pod(0, outcome=outcome),)), NOW, SETTINGS
    ).status
    assert status.phase == "Complete"


def test_a_stale_disruption_target_says_nothing() -> None:
    stale = (PodCondition(type="DisruptionTarget", status="False", reason="PreemptionByScheduler"),)
    assert verdict(make_observation(pods=(make_ended_pod(1, conditions=stale),))).cause is Cause.FAILURE


def test_garbage_in_the_termination_message_is_no_outcome() -> None:
    pod = make_ended_pod(1)
    assert pod.trainer.terminated is not None
    termination = replace(pod.trainer.terminated, message='{"outcome":"complete"')
    pod = replace(pod, trainer=replace(pod.trainer, terminated=termination))
    assert verdict(make_observation(pods=(pod,))).cause is Cause.FAILURE


def test_lost_steps_are_counted_from_the_last_durable_one() -> None:
    progress = replace(
        make_status().progress, step=150, durable_step=100, steps_per_second=10.0, incarnation=1
    )
    restart = verdict(make_observation(status=make_status(progress=progress), nodes={"spot-a": None}))
    assert (restart.lost_steps, restart.lost_seconds, restart.node_uid) == (50, 5.0, NODE_UID)
