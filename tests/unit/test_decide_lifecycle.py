"""From apply to Complete: what is launched, stopped, waited for and said."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.model import (
    UNKNOWN,
    CapacityStatus,
    ContainerView,
    CreatePod,
    DeadlineAction,
    DeadlineSpec,
    Decision,
    DeletePod,
    FailurePolicy,
    FallbackPolicy,
    FallbackSpec,
    InvalidSpec,
    JobStatus,
    Observation,
    PodCondition,
    PodRecord,
    PodRefusal,
    PodRetention,
    PolicySettings,
    Report,
    Restart,
    Taint,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Phase, Reason, StopReason
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
RECLAIM = Taint(key="karpenter.sh/disrupted", effect="NoSchedule")
PLAIN = make_status(claims=False)
"""Of a container that does not claim its store, so that nothing is handed over."""


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def condition(status: JobStatus, type_: ConditionType) -> tuple[bool | None, str]:
    found = next(c for c in status.conditions if c.type is type_)
    return found.status, found.reason


def created(decision: Decision) -> list[str]:
    return [action.name for action in decision.actions if isinstance(action, CreatePod)]


def deleted(decision: Decision) -> list[str]:
    return [action.uid for action in decision.actions if isinstance(action, DeletePod)]


def interruption(ago: float, **changes: Any) -> Restart:
    restart = Restart(
        time=NOW - seconds(ago),
        incarnation=1,
        capacity_type=CapacityType.SPOT,
        cause=Cause.INTERRUPTION,
        evidence="",
        row="5",
        pod_uid="x",
        charged=False,
    )
    return replace(restart, **changes)


def new_job(**changes: Any) -> Observation:
    return make_observation(**{"status": JobStatus(), "pods": (), "nodes": {}, **changes})


# --- launch ---------------------------------------------------------------------------------


def test_a_new_job_is_launched_on_spot_with_its_intent_in_status() -> None:
    decision = step(new_job())
    gang = decision.status.gang
    assert gang is not None
    assert (decision.status.incarnation, gang.capacity_type) == (1, CapacityType.SPOT)
    assert created(decision) == ["digits-0c5e1-1-0"] == [record.name for record in gang.pods]
    assert decision.status.phase is Phase.PENDING


def test_a_crash_after_the_intent_creates_the_same_pod_again() -> None:
    intended = step(new_job())
    again = step(new_job(status=intended.status), after=5)
    assert created(again) == created(intended)
    assert again.status.incarnation == 1


def test_a_pod_that_may_have_existed_is_not_created_again_but_replaced_by_the_next() -> None:
    """After a crash of the operator an absent pod was never created, or has run and is gone: who knows."""
    intended = step(new_job())
    again = step(new_job(status=intended.status, knows_creations=False), after=5)
    assert again.status.incarnation == 2
    assert created(again) == ["digits-0c5e1-2-0"]
    assert again.status.recent_restarts == ()
    (said,) = (event.message for event in again.events if event.reason == "PodUnseen")
    assert "incarnation 1" in said


def test_a_pod_that_came_and_went_between_two_looks_is_judged_and_not_created_again() -> None:
    intended = step(new_job())
    name = created(intended)[0]
    gone = step(new_job(status=intended.status, created_uids={name: "uid-1"}, nodes={}), after=1)
    assert name not in created(gone)
    assert [(r.row, r.pod_uid) for r in gone.status.recent_restarts] == [("23", "uid-1")]


def test_nothing_is_done_when_nothing_changed() -> None:
    settled = step(make_observation())
    again = step(make_observation(status=settled.status), after=0)
    assert (again.status, again.actions, again.events) == (settled.status, (), ())


def test_unknown_pods_forbid_every_action() -> None:
    observation = make_observation(pods=UNKNOWN, spec=make_spec(suspend=True))
    decision = step(observation)
    assert (decision.status, decision.actions) == (observation.status, ())
    assert decision.next_look is not None


def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    assert step(make_observation(deletion_requested=True, pods=())).actions == ()


def test_an_invalid_spec_is_shown_and_never_acted_on() -> None:
    decision = step(new_job(spec=InvalidSpec(field="spec.numNodes", why="2 is not supported yet; use 1")))
    assert decision.actions == ()
    assert condition(decision.status, ConditionType.ACCEPTED) == (False, Reason.INVALID_SPEC)
    assert decision.status.message == "spec.numNodes: 2 is not supported yet; use 1"
    assert [event.reason for event in decision.events] == [Reason.INVALID_SPEC]


def test_a_refused_pod_is_shown_and_asked_for_again_later() -> None:
    intended = step(new_job()).status
    refusal = PodRefusal(pod_name="digits-0c5e1-1-0", message="exceeded quota: gpus", time=NOW)
    shown = step(new_job(status=intended, refusal=refusal), after=1)
    assert (created(shown), shown.next_look) == ([], seconds(9))
    assert condition(shown.status, ConditionType.PODS_READY) == (False, Reason.POD_CREATION_REFUSED)
    assert created(step(new_job(status=intended, refusal=refusal), after=10)) == ["digits-0c5e1-1-0"]


# --- stop -----------------------------------------------------------------------------------


def test_a_stop_signal_stops_the_pod_gracefully_at_once() -> None:
    decision = step(make_observation(nodes={"spot-a": make_node(taints=(RECLAIM,))}, status=PLAIN))
    gang = decision.status.gang
    assert gang is not None
    assert gang.stop is not None
    assert (deleted(decision), gang.stop.reason) == ([POD_UID], StopReason.NODE_SIGNAL)
    assert decision.status.phase is Phase.STOPPING


def test_a_cordon_alone_stops_nothing() -> None:
    assert step(make_observation(nodes={"spot-a": make_node(unschedulable=True)})).actions == ()


def test_a_node_that_is_not_ready_alone_stops_nothing() -> None:
    assert step(make_observation(nodes={"spot-a": make_node(ready="Unknown")})).actions == ()


def test_a_pod_that_is_being_deleted_is_not_deleted_again() -> None:
    first = step(make_observation(nodes={"spot-a": make_node(taints=(RECLAIM,))}, status=PLAIN))
    terminating = make_pod(deletion_timestamp=NOW + seconds(120), deletion_grace_seconds=120)
    again = step(make_observation(status=first.status, pods=(terminating,)), after=2)
    assert (again.actions, again.status.incarnation) == ((), 1)


def test_the_replacement_is_created_in_the_look_that_sees_the_end() -> None:
    stopping = step(make_observation(nodes={"spot-a": make_node(taints=(RECLAIM,))}, status=PLAIN)).status
    decision = step(make_observation(status=stopping, pods=()), after=20)
    assert created(decision) == ["digits-0c5e1-2-0"]
    assert decision.status.restarts.interruptions == 1


def test_suspend_stops_and_resume_starts_the_next_incarnation() -> None:
    suspended = make_spec(suspend=True)
    stopping = step(make_observation(spec=suspended))
    assert deleted(stopping) == [POD_UID]
    outcome = make_outcome(OutcomeKind.STOPPED, "Notice", step=70, checkpoint=70)
    pod = make_ended_pod(
        75, outcome=outcome, deletion_timestamp=NOW + seconds(120), deletion_grace_seconds=120
    )
    resting = step(make_observation(spec=suspended, status=stopping.status, pods=(pod,)), after=3)
    assert (resting.status.phase, resting.status.gang) == (Phase.SUSPENDED, None)
    assert condition(resting.status, ConditionType.SUSPENDED) == (True, Reason.SUSPENDED)
    resumed = step(make_observation(status=resting.status, pods=(), nodes={}), after=60)
    assert created(resumed) == ["digits-0c5e1-2-0"]
    assert condition(resumed.status, ConditionType.SUSPENDED) == (False, Reason.RESUMED)
    assert resumed.status.restarts.requested == 1


def test_a_job_that_is_created_suspended_creates_nothing() -> None:
    decision = step(new_job(spec=make_spec(suspend=True)))
    assert (decision.actions, decision.status.phase, decision.status.incarnation) == ((), Phase.SUSPENDED, 0)


# --- death of nodes -------------------------------------------------------------------------


def test_a_claiming_job_is_relaunched_at_once_when_its_node_object_is_gone() -> None:
    assert created(step(make_observation(nodes={"spot-a": None}))) == ["digits-0c5e1-2-0"]


def test_a_plain_container_waits_until_its_node_has_been_absent_for_two_minutes() -> None:
    observation = make_observation(status=make_status(claims=False), nodes={"spot-a": None})
    waiting = step(observation)
    assert created(waiting) == []
    assert condition(waiting.status, ConditionType.PODS_READY) == (False, Reason.WAITING_FOR_OLD_POD)
    later = replace(observation, status=waiting.status)
    assert created(step(later, after=119)) == []
    assert created(step(later, after=120)) == ["digits-0c5e1-2-0"]


def test_a_plain_container_that_was_deleted_by_force_is_not_taken_for_ended() -> None:
    """Its node is Ready, and may be out of reach all the same (recordings/deletion-forced.json)."""
    forced = make_pod(deletion_timestamp=NOW, deletion_grace_seconds=0)
    observation = make_observation(status=make_status(claims=False), pods=(), departed=(forced,))
    waiting = step(observation)
    assert created(waiting) == []
    assert condition(waiting.status, ConditionType.PODS_READY) == (False, Reason.WAITING_FOR_OLD_POD)
    later = replace(observation, status=waiting.status)
    assert created(step(later, after=119)) == []
    assert created(step(later, after=120)) == ["digits-0c5e1-2-0"]


def test_a_plain_container_is_replaced_at_once_when_its_node_is_out_of_service() -> None:
    taint = Taint(key="node.kubernetes.io/out-of-service", effect="NoExecute")
    observation = make_observation(
        status=make_status(claims=False), nodes={"spot-a": make_node(ready="Unknown", taints=(taint,))}
    )
    assert created(step(observation)) == ["digits-0c5e1-2-0"]


def test_a_node_that_could_not_be_read_is_not_a_dead_node() -> None:
    assert step(make_observation(nodes={"spot-a": UNKNOWN})).actions == ()


def test_a_stray_pod_of_an_older_incarnation_is_deleted() -> None:
    status = make_status(
        incarnation=2, gang=make_gang(incarnation=2, pods=(PodRecord(name="digits-0c5e1-2-0", rank=0),))
    )
    stray = make_pod()
    decision = step(make_observation(status=status, pods=(stray,)))
    assert (created(decision), deleted(decision)) == (["digits-0c5e1-2-0"], [POD_UID])


# --- fallback -------------------------------------------------------------------------------


def test_the_threshold_of_interruptions_moves_the_job_to_on_demand() -> None:
    fallback = FallbackSpec(interruptions_count=2, interruptions_window_seconds=3600)
    status = make_status(recent_restarts=(interruption(600),))
    decision = step(
        make_observation(spec=make_spec(fallback=fallback), status=status, nodes={"spot-a": None})
    )
    gang, capacity = decision.status.gang, decision.status.capacity
    assert gang is not None
    assert capacity is not None
    assert (gang.capacity_type, capacity.reason) == (CapacityType.ON_DEMAND, Reason.AFTER_INTERRUPTIONS)


@pytest.mark.parametrize(
    "restart",
    [
        interruption(3601),
        interruption(600, cause=Cause.VOLUNTARY_EVICTION),
        interruption(600, cause=Cause.FAILURE),
        interruption(600, capacity_type=CapacityType.ON_DEMAND),
    ],
    ids=["outside the window", "voluntary", "the program's fault", "on on-demand"],
)
def test_only_recent_losses_of_spot_capacity_count_towards_the_threshold(restart: Restart) -> None:
    fallback = FallbackSpec(interruptions_count=2, interruptions_window_seconds=3600)
    status = make_status(recent_restarts=(restart,))
    decision = step(
        make_observation(spec=make_spec(fallback=fallback), status=status, nodes={"spot-a": None})
    )
    assert decision.status.gang is not None
    assert decision.status.gang.capacity_type is CapacityType.SPOT


def test_there_is_no_way_back_to_spot_when_the_window_has_passed() -> None:
    capacity = CapacityStatus(type=CapacityType.ON_DEMAND, since=NOW, reason=Reason.AFTER_INTERRUPTIONS)
    status = make_status(capacity=capacity, gang=make_gang(CapacityType.ON_DEMAND))
    fallback = FallbackSpec(interruptions_count=2)
    decision = step(make_observation(spec=make_spec(fallback=fallback), status=status), after=7200)
    assert (decision.actions, decision.status.capacity) == ((), capacity)


def deadline_spec(finish_in: float, **changes: Any) -> Any:
    deadline = DeadlineSpec(finish_by=NOW + seconds(finish_in), **changes)
    return make_spec(deadline=deadline, fallback=FallbackSpec(before_deadline_seconds=60))


def test_the_deadline_moves_the_job_when_work_and_reserve_just_fit() -> None:
    progress = replace(
        make_status().progress, total_steps=1000, durable_step=500, step=550, steps_per_second=5.0
    )
    status = make_status(progress=progress)
    calm = step(make_observation(spec=deadline_spec(161), status=status))
    assert (calm.actions, calm.next_look) == ((), seconds(1))
    moved = step(make_observation(spec=deadline_spec(160), status=status))
    assert deleted(moved) == [POD_UID]
    assert moved.status.capacity is not None
    assert moved.status.capacity.reason is Reason.DEADLINE_NEAR


def test_without_reports_the_expected_duration_stands_for_the_work() -> None:
    assert step(make_observation(spec=deadline_spec(161, expected_duration_seconds=100))).actions == ()
    assert deleted(step(make_observation(spec=deadline_spec(160, expected_duration_seconds=100)))) == [
        POD_UID
    ]


def test_an_infeasible_deadline_is_said_with_its_numbers() -> None:
    decision = step(make_observation(spec=deadline_spec(50, expected_duration_seconds=100)))
    found = next(c for c in decision.status.conditions if c.type is ConditionType.DEADLINE_AT_RISK)
    told = "by the expected duration alone: 100 s of work left, 180 s to start, 50 s to the deadline; a later"
    assert (found.status, found.message[: len(told)]) == (True, told)


@pytest.mark.parametrize(
    ("action", "phase"),
    [(DeadlineAction.FAIL, Phase.FAILED), (DeadlineAction.SUSPEND, Phase.SUSPENDED)],
)
def test_a_missed_deadline_ends_the_gang_as_its_action_says(action: DeadlineAction, phase: Phase) -> None:
    spec = deadline_spec(-1, action=action)
    stopping = step(make_observation(spec=spec))
    assert deleted(stopping) == [POD_UID]
    assert step(make_observation(spec=spec, status=stopping.status, pods=())).status.phase is phase


def test_a_missed_deadline_goes_on_by_default() -> None:
    status = make_status(gang=make_gang(CapacityType.ON_DEMAND))
    decision = step(make_observation(spec=deadline_spec(-1), status=status))
    assert decision.actions == ()
    assert condition(decision.status, ConditionType.DEADLINE_AT_RISK) == (True, Reason.DEADLINE_EXCEEDED)


def pending(scheduler_message: str = "0/3 nodes are available") -> Observation:
    gang = make_gang(pods=(PodRecord(name="digits-0c5e1-1-0", rank=0, uid=POD_UID),))
    pod = make_pod(
        phase="Pending",
        node_name=None,
        trainer=ContainerView(),
        conditions=(PodCondition(type="PodScheduled", status="False", message=scheduler_message),),
    )
    return make_observation(status=make_status(gang=gang), pods=(pod,), nodes={})


def test_waiting_for_spot_too_long_moves_the_job_to_on_demand() -> None:
    observation = replace(pending(), spec=make_spec(fallback=FallbackSpec(after_pending_seconds=300)))
    observation = replace(observation, status=step(observation).status)
    assert step(observation, after=299).actions == ()
    moved = step(observation, after=300)
    assert deleted(moved) == [POD_UID]
    gone = step(replace(observation, status=moved.status, pods=()), after=301)
    assert gone.status.gang is not None
    assert gone.status.gang.capacity_type is CapacityType.ON_DEMAND
    assert gone.status.restarts.interruptions == 0


def test_the_wait_for_spot_counts_from_the_pod_that_waits() -> None:
    """Not from the condition of a pod before: the job may have been suspended for hours in between."""
    observation = replace(pending(), spec=make_spec(fallback=FallbackSpec(after_pending_seconds=300)))
    before = step(observation).status
    assert before.gang is not None
    late = replace(before, gang=replace(before.gang, created_time=NOW + seconds(1000)))
    again = replace(observation, status=late)
    assert step(again, after=1299).actions == ()
    assert deleted(step(again, after=1300)) == [POD_UID]


def test_spot_only_waits_and_on_demand_only_never_uses_spot() -> None:
    on_demand_only = make_spec(fallback=FallbackSpec(policy=FallbackPolicy.ON_DEMAND_ONLY))
    gang = step(new_job(spec=on_demand_only)).status.gang
    assert gang is not None
    assert gang.capacity_type is CapacityType.ON_DEMAND
    spot_only = make_spec(
        fallback=FallbackSpec(policy=FallbackPolicy.SPOT_ONLY, interruptions_count=1, after_pending_seconds=1)
    )
    assert step(replace(pending(), spec=spot_only), after=9999).actions == ()


# --- what is missing ------------------------------------------------------------------------


def test_a_missing_volume_claim_is_named() -> None:
    decision = step(pending('persistentvolumeclaim "ckpt" not found'))
    assert condition(decision.status, ConditionType.PODS_READY) == (False, Reason.MISSING_OBJECT)
    assert decision.status.message == 'persistentvolumeclaim "ckpt" not found'


@pytest.mark.parametrize(
    ("waiting", "message", "reason"),
    [
        ("CreateContainerConfigError", 'secret "s3" not found', Reason.CONTAINER_CONFIG_ERROR),
        ("ImagePullBackOff", 'Back-off pulling image "x"', Reason.IMAGE_PULL_FAILED),
        ("ErrImageNeverPull", 'image "x" is not present', Reason.IMAGE_PULL_FAILED),
        ("ContainerCreating", "", Reason.POD_STARTING),
    ],
)
def test_what_keeps_the_container_waiting_is_said(waiting: str, message: str, reason: Reason) -> None:
    pod = make_pod(phase="Pending", trainer=ContainerView(waiting_reason=waiting, waiting_message=message))
    decision = step(make_observation(pods=(pod,)))
    assert condition(decision.status, ConditionType.PODS_READY) == (False, reason)
    assert message in decision.status.message


def test_no_capacity_is_a_state_that_is_shown() -> None:
    decision = step(pending())
    assert condition(decision.status, ConditionType.CAPACITY_AVAILABLE) == (False, Reason.UNSCHEDULABLE)
    assert decision.status.message == "0/3 nodes are available"


# --- failures and budgets -------------------------------------------------------------------


def crash(status: JobStatus, at: float) -> Decision:
    gang = make_gang(incarnation=status.incarnation)
    pod = make_ended_pod(1, finished_at=NOW + seconds(at))
    return step(make_observation(status=replace(status, gang=gang), pods=(pod,)), after=at)


def test_the_first_restart_is_immediate_and_the_second_without_progress_waits() -> None:
    first = crash(make_status(), 0)
    assert created(first) == ["digits-0c5e1-2-0"]
    second = crash(first.status, 10)
    assert (created(second), second.status.next_launch_time) == ([], NOW + seconds(20))
    assert second.status.phase is Phase.WAITING
    launched = step(new_job(status=second.status), after=20)
    assert created(launched) == ["digits-0c5e1-3-0"]


def test_durable_progress_resets_the_back_off() -> None:
    first = crash(make_status(), 0)
    progressed = replace(first.status, progress=replace(first.status.progress, durable_step=50))
    assert created(crash(progressed, 10)) == ["digits-0c5e1-3-0"]


def test_the_backoff_limit_fails_the_job_and_says_where_to_look() -> None:
    spec = make_spec(failure_policy=FailurePolicy(backoff_limit=1))
    status = make_status(recent_restarts=(interruption(60, cause=Cause.FAILURE, charged=True),))
    held = step(make_observation(spec=spec, status=status, pods=(make_ended_pod(1),)))
    decision = step(make_observation(spec=spec, status=held.status, pods=(make_ended_pod(1),)), after=90)
    assert condition(decision.status, ConditionType.FAILED) == (True, Reason.BACKOFF_LIMIT_EXCEEDED)
    assert decision.status.last_failure is not None
    assert (decision.status.last_failure.exit_code, created(decision)) == (1, [])


def test_failures_outside_the_window_are_forgiven() -> None:
    spec = make_spec(failure_policy=FailurePolicy(backoff_limit=1, window_seconds=3600))
    status = make_status(recent_restarts=(interruption(3600, cause=Cause.FAILURE, charged=True),))
    decision = step(make_observation(spec=spec, status=status, pods=(make_ended_pod(1),)))
    assert decision.status.phase is not Phase.FAILED


def test_out_of_memory_fails_the_job_after_its_own_small_budget() -> None:
    spec = make_spec(failure_policy=FailurePolicy(out_of_memory_limit=0))
    pod = make_ended_pod(137, reason="OOMKilled")
    decision = step(make_observation(spec=spec, pods=(pod,)))
    assert condition(decision.status, ConditionType.FAILED) == (True, Reason.OUT_OF_MEMORY)


def test_interruptions_never_use_up_the_failure_budget() -> None:
    spec = make_spec(failure_policy=FailurePolicy(backoff_limit=0))
    status = make_status(recent_restarts=tuple(interruption(n) for n in range(20, 0, -1)))
    decision = step(make_observation(spec=spec, status=status, nodes={"spot-a": None}))
    assert created(decision) == ["digits-0c5e1-2-0"]


# --- the end --------------------------------------------------------------------------------


def finished() -> Decision:
    outcome = make_outcome(OutcomeKind.COMPLETE, "Completed", step=500, checkpoint=500)
    return step(make_observation(pods=(make_ended_pod(0, outcome=outcome),)))


def test_a_complete_job_keeps_its_last_pod_for_the_logs_and_is_never_touched_again() -> None:
    done = finished()
    assert (done.status.phase, done.actions) == (Phase.COMPLETE, ())
    assert done.status.completion_time == NOW - seconds(1)
    again = step(make_observation(status=done.status, pods=(make_ended_pod(0),)), after=500)
    assert (again.status, again.actions, again.next_look) == (done.status, (), None)


def test_a_complete_job_is_not_launched_again_when_its_pod_is_gone() -> None:
    assert step(make_observation(status=finished().status, pods=()), after=500).actions == ()


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (PodRetention.ALL, {"failed-1", "failed-2", "stopped"}),
        (PodRetention.LAST_FAILED, {"failed-2"}),
        (PodRetention.NONE, set()),
    ],
)
def test_pods_of_the_past_are_kept_as_the_job_says(retention: PodRetention, kept: set[str]) -> None:
    past = {
        "failed-1": make_ended_pod(1, name="digits-0c5e1-1-0", uid="failed-1"),
        "failed-2": make_ended_pod(1, name="digits-0c5e1-2-0", uid="failed-2", incarnation=2),
        "stopped": make_ended_pod(75, name="digits-0c5e1-3-0", uid="stopped", incarnation=3),
    }
    first = crash(make_status(), 0).status
    assert first.last_failure is not None
    status = replace(
        first,
        last_failure=replace(first.last_failure, pod="digits-0c5e1-2-0"),
        gang=make_gang(incarnation=4, pods=(PodRecord(name="digits-0c5e1-4-0", rank=0),)),
    )
    spec = make_spec(pod_retention=retention)
    decision = step(make_observation(spec=spec, status=status, pods=tuple(past.values())))
    assert set(past) - set(deleted(decision)) == kept


# --- reports and memory ---------------------------------------------------------------------


def report(at: float, step_number: int, **changes: Any) -> Report:
    values = Report(
        pod_uid=POD_UID, received=NOW + seconds(at), incarnation=1, step=step_number, total_steps=1000
    )
    return replace(values, **changes)


def test_progress_rate_and_completion_come_from_successive_reports() -> None:
    first = step(make_observation(report=report(0, 100)))
    second = step(make_observation(status=first.status, report=report(10, 200)), after=10)
    progress = second.status.progress
    assert (progress.percentage, progress.steps_per_second) == (20, 10.0)
    assert progress.estimated_completion_time == NOW + seconds(90)


def test_durable_progress_never_goes_back() -> None:
    ahead = step(
        make_observation(report=report(0, 100, durable_step=80, durable_time=NOW, checkpoint_name="a"))
    )
    behind = step(
        make_observation(status=ahead.status, report=report(10, 90, durable_step=60, checkpoint_name="b")),
        after=10,
    )
    assert behind.status.progress.durable_step == 80
    assert behind.status.checkpoint is not None
    assert behind.status.checkpoint.name == "a"


def test_a_late_report_of_an_older_incarnation_adds_only_durable_progress() -> None:
    current = step(make_observation(report=report(0, 100, incarnation=2)))
    late = step(
        make_observation(status=current.status, report=report(5, 700, incarnation=1, durable_step=90)),
        after=5,
    )
    assert (late.status.progress.step, late.status.progress.durable_step) == (100, 90)


def test_a_report_that_names_its_incarnation_shows_that_the_container_claims() -> None:
    observation = make_observation(status=make_status(claims=False))
    assert step(replace(observation, report=report(0, 1))).status.claims is True
    assert step(replace(observation, report=report(0, 1, incarnation=None))).status.claims is False


def test_cost_is_node_time_at_the_jobs_prices() -> None:
    gang = make_gang(accounted_until=None)
    cost = step(make_observation(status=make_status(gang=gang)), after=3501).status.cost
    assert (cost.spot_node_seconds, str(cost.spent), str(cost.on_demand_only)) == (3600.0, "0.9700", "3.0600")


def test_status_survives_its_json() -> None:
    status = crash(
        step(make_observation(report=report(0, 100, durable_step=80, checkpoint_name="a"))).status, 5
    ).status
    assert status_from_json(status_to_json(status)) == status
