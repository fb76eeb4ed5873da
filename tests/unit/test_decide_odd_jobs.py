"""Jobs that are set up oddly must neither stand still nor be judged by what does not concern them."""

from dataclasses import replace

import pytest

from spot_operator.decide import decide
from spot_operator.decide.conditions import is_true
from spot_operator.model import (
    CheckpointStatus,
    ContainerTermination,
    ContainerView,
    Decision,
    DeletePod,
    FallbackPolicy,
    FallbackSpec,
    JobStatus,
    Observation,
    Overheads,
    PodCondition,
    PodRecord,
    PodRetention,
    PolicySettings,
    Progress,
    Report,
    S3Location,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Reason
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_observation,
    make_outcome,
    make_pod,
    make_spec,
    make_status,
    seconds,
)
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()
NAME = "digits-0c5e1-1-0"


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def deleted(decision: Decision) -> list[str]:
    return [action.uid for action in decision.actions if isinstance(action, DeletePod)]


# --- containers beside the trainer ----------------------------------------------------------


def sidecar_runs_on(*, ended_ago: float, code: int = 0) -> Observation:
    """The trainer of the last pod is done, another container of it is not."""
    outcome = make_outcome(OutcomeKind.COMPLETE, "Completed").to_json() if code == 0 else ""
    ended = ContainerTermination(
        exit_code=code, reason="", message=outcome, finished_at=NOW - seconds(ended_ago)
    )
    return make_observation(pods=(make_pod(trainer=ContainerView(terminated=ended)),))


def test_a_container_that_runs_on_beside_an_ended_trainer_is_stopped_after_a_while() -> None:
    observation = sidecar_runs_on(ended_ago=0)
    complete = step(observation)
    assert deleted(complete) == []
    later = replace(observation, status=complete.status)
    waiting = step(later, after=5)
    assert deleted(waiting) == []
    assert waiting.next_look == seconds(25)
    assert deleted(step(later, after=30)) == [POD_UID]


def test_the_pod_of_a_failure_is_not_kept_while_something_in_it_runs() -> None:
    observation = replace(
        sidecar_runs_on(ended_ago=31, code=1), spec=make_spec(pod_retention=PodRetention.ALL)
    )
    assert deleted(step(observation)) == [POD_UID]


def test_an_ended_pod_is_kept_for_its_logs() -> None:
    observation = make_observation(
        pods=(make_ended_pod(1, finished_at=NOW - seconds(60)),),
        spec=make_spec(pod_retention=PodRetention.ALL),
    )
    assert deleted(step(observation)) == []


# --- waiting that is no lack of capacity ----------------------------------------------------


def waits(message: str) -> Observation:
    gang = make_gang(pods=(PodRecord(name=NAME, rank=0, uid=POD_UID),))
    pod = make_pod(
        phase="Pending",
        node_name=None,
        trainer=ContainerView(),
        conditions=(PodCondition(type="PodScheduled", status="False", message=message),),
    )
    spec = make_spec(fallback=FallbackSpec(after_pending_seconds=20))
    return make_observation(spec=spec, status=make_status(gang=gang), pods=(pod,), nodes={})


def test_waiting_for_a_volume_claim_is_not_waiting_for_spot() -> None:
    observation = waits('persistentvolumeclaim "data" not found')
    observation = replace(observation, status=step(observation).status)
    later = step(observation, after=1000)
    assert later.status.capacity is not None
    assert later.status.capacity.type is CapacityType.SPOT


def test_a_pod_that_cannot_be_created_is_not_waiting_for_spot() -> None:
    gang = make_gang(pods=(PodRecord(name=NAME, rank=0),))
    spec = make_spec(fallback=FallbackSpec(after_pending_seconds=20))
    observation = make_observation(spec=spec, status=make_status(gang=gang), pods=(), nodes={})
    later = step(replace(observation, status=step(observation).status), after=1000)
    assert later.status.capacity is not None
    assert later.status.capacity.type is CapacityType.SPOT


def test_only_the_wait_for_a_node_counts_not_the_one_before_it() -> None:
    """The claim appears late; from then on there is no spot node."""
    observation = waits('persistentvolumeclaim "data" not found')
    observation = replace(observation, status=step(observation).status)
    starved = replace(waits("0/3 nodes are available"), status=observation.status)
    starved = replace(starved, status=step(starved, after=500).status)
    assert deleted(step(starved, after=519)) == []
    assert deleted(step(starved, after=520)) == [POD_UID]


def test_a_gang_without_pods_is_stopped_without_waiting_for_an_event() -> None:
    gang = make_gang(pods=(PodRecord(name=NAME, rank=0),))
    spec = make_spec(suspend=True)
    observation = make_observation(spec=spec, status=make_status(gang=gang), pods=(), nodes={})
    stopping = step(observation)
    assert stopping.next_look is not None
    assert stopping.next_look <= seconds(1)
    assert step(replace(observation, status=stopping.status), after=1).status.gang is None


# --- another store --------------------------------------------------------------------------


def moved(*, location: str) -> Decision:
    spec = make_spec()
    spec = replace(spec, checkpoint=replace(spec.checkpoint, location=S3Location(bucket="b", prefix="new")))
    status = make_status(
        gang=None,
        progress=Progress(step=990, durable_step=981, total_steps=1000, incarnation=1),
        checkpoint=CheckpointStatus(name="a", step=981, time=NOW, location=location),
    )
    old_report = Report(
        pod_uid=POD_UID,
        received=NOW - seconds(1),
        incarnation=1,
        step=990,
        durable_step=981,
        checkpoint_name="a",
    )
    return step(make_observation(spec=spec, status=status, pods=(), report=old_report))


def test_progress_in_another_store_is_no_progress() -> None:
    first = moved(location="s3://b/old")
    assert first.status.checkpoint is None
    assert (first.status.progress.durable_step, first.status.progress.step) == (None, None)
    assert [event.reason for event in first.events].count(Reason.STORAGE_CHANGED) == 1
    # The last report about the old store is still known, and does not bring its numbers back.
    report = Report(
        pod_uid=POD_UID,
        received=NOW - seconds(1),
        incarnation=1,
        step=990,
        durable_step=981,
        checkpoint_name="a",
    )
    again = step(make_observation(status=first.status, pods=(), report=report), after=1)
    assert again.status.checkpoint is None
    assert again.status.progress.durable_step is None


def test_the_same_store_and_one_that_was_not_recorded_keep_the_progress() -> None:
    for location in ("s3://b/new", ""):
        same = moved(location=location)
        assert same.status.progress.durable_step == 981
        assert same.status.checkpoint is not None


def test_a_checkpoint_is_remembered_with_its_place() -> None:
    report = Report(
        pod_uid=POD_UID,
        received=NOW,
        incarnation=1,
        step=5,
        durable_step=4,
        checkpoint_name="x",
        durable_time=NOW,
    )
    seen = step(make_observation(report=report)).status.checkpoint
    assert seen is not None
    assert seen.location.startswith("s3://")


# --- exit 0 in the middle -------------------------------------------------------------------


def exits_with_zero(progress: Progress) -> Decision:
    pod = make_ended_pod(0, finished_at=NOW - seconds(60))
    gang = make_gang()
    record = replace(gang.pods[0], exit_time=NOW - seconds(60))
    status = make_status(gang=replace(gang, pods=(record,)), progress=progress)
    return step(make_observation(pods=(pod,), status=status))


def test_a_program_that_leaves_in_the_middle_is_not_done() -> None:
    decision = exits_with_zero(Progress(step=1, total_steps=1000, incarnation=1))
    (restart,) = decision.status.recent_restarts
    assert (restart.cause, restart.charged) == (Cause.FAILURE, True)
    assert restart.evidence == "exit code 0 without an outcome, at step 1 of 1000"


def test_exit_zero_is_complete_where_the_library_does_not_speak_for_this_pod() -> None:
    for progress in (
        Progress(),
        Progress(step=1000, total_steps=1000, incarnation=1),
        Progress(step=1, total_steps=1000),
        Progress(step=1, incarnation=1),
    ):
        status = exits_with_zero(progress).status
        complete = next(c for c in status.conditions if c.type is ConditionType.COMPLETE)
        assert complete.status is True


# --- pods and statuses that somebody else has changed ------------------------------------------


def test_a_pod_without_its_marks_is_named_and_stopped_like_any_other() -> None:
    unmarked = make_observation(pods=(make_pod(is_heard=False),))
    decision = step(unmarked)
    assert decision.next_look == seconds(10)
    (event,) = (event for event in decision.events if event.reason == Reason.POD_UNMARKED)
    assert (event.type, "spottraining.io/job-uid" in event.message) == ("Warning", True)
    suspended = make_observation(pods=(make_pod(is_heard=False),), spec=make_spec(suspend=True))
    actions = step(suspended).actions
    assert [type(action) for action in actions] == [DeletePod]


def test_what_runs_is_taken_up_when_status_was_emptied() -> None:
    """Numbers that begin anew would end it, and be fenced by the claims of those before."""
    seventh = make_pod(name="digits-0c5e1-7-0", incarnation=7, capacity_type=CapacityType.ON_DEMAND)
    spec = make_spec(fallback=FallbackSpec(policy=FallbackPolicy.ON_DEMAND_ONLY))
    decision = step(make_observation(status=JobStatus(), spec=spec, pods=(seventh,)))
    assert decision.actions == ()
    assert decision.status.incarnation == 7
    gang = decision.status.gang
    assert gang is not None
    assert (gang.incarnation, gang.capacity_type, gang.pods[0].uid) == (7, "on-demand", POD_UID)
    assert gang.pods[0].node_name == "spot-a"
    assert [event.reason for event in decision.events] == [Reason.ADOPTED]


def test_the_one_that_works_goes_on_where_spot_was_asked_for_beside_it() -> None:
    sixth = make_pod(name="digits-0c5e1-6-0", incarnation=6, capacity_type=CapacityType.ON_DEMAND)
    waits = {"phase": "Pending", "node_name": None, "trainer": ContainerView(), "conditions": ()}
    asks = make_pod(name="digits-0c5e1-7-0", incarnation=7, uid="uid-7", **waits)
    for policy in (FallbackPolicy.RULES, FallbackPolicy.AUTO):
        spec = make_spec(fallback=FallbackSpec(policy=policy))
        decision = step(make_observation(status=JobStatus(), spec=spec, pods=(sixth, asks)))
        deleted = [action.uid for action in decision.actions if isinstance(action, DeletePod)]
        assert POD_UID not in deleted
        status = decision.status
        works = status.predecessor or status.gang
        assert works is not None
        assert (works.incarnation, works.capacity_type, works.stop) == (6, "on-demand", None)


def test_what_had_fallen_back_to_on_demand_stays_there() -> None:
    seventh = make_pod(name="digits-0c5e1-7-0", incarnation=7, capacity_type=CapacityType.ON_DEMAND)
    spec = make_spec(fallback=FallbackSpec(policy=FallbackPolicy.RULES))
    decision = step(make_observation(status=JobStatus(), spec=spec, pods=(seventh,)))
    assert decision.actions == ()
    assert decision.status.capacity is not None
    assert (decision.status.capacity.type, decision.status.capacity.reason) == ("on-demand", Reason.ADOPTED)


def test_how_long_it_has_run_is_no_launch() -> None:
    old = NOW - seconds(72_000)
    seventh = make_pod(
        name="digits-0c5e1-7-0", incarnation=7, created=old, trainer=ContainerView(running_since=old)
    )
    report = Report(pod_uid=POD_UID, received=NOW, incarnation=7, step=5000, total_steps=10_000)
    decision = step(make_observation(status=JobStatus(), pods=(seventh,), report=report))
    assert decision.status.overheads == Overheads()


def test_a_pod_that_only_claims_to_be_of_the_job_is_not_taken_up() -> None:
    forged = make_pod(name="other-0c5e1-999-0", incarnation=999)
    decision = step(make_observation(status=JobStatus(), pods=(forged,)))
    assert decision.status.incarnation == 1


def test_an_end_that_an_emptied_status_has_forgotten_is_judged_again() -> None:
    outcome = make_outcome(OutcomeKind.COMPLETE, "Completed")
    done = make_ended_pod(0, outcome=outcome, name="digits-0c5e1-7-0", incarnation=7)
    decision = step(make_observation(status=JobStatus(), pods=(done,)))
    assert is_true(decision.status, ConditionType.COMPLETE)


def test_a_status_from_a_backup_gives_way_to_the_newer_pod() -> None:
    seventh = make_pod(name="digits-0c5e1-7-0", incarnation=7)
    decision = step(make_observation(pods=(seventh,)))
    assert decision.actions == ()
    assert decision.status.gang is not None
    assert decision.status.gang.incarnation == 7


# --- pods that do not end -------------------------------------------------------------------


def said(decision: Decision, type_: ConditionType) -> tuple[bool | None, str]:
    (found,) = (each for each in decision.status.conditions if each.type is type_)
    return found.status, found.reason


@pytest.mark.parametrize("suspend", [False, True])
def test_a_pod_that_should_have_ended_long_ago_is_told_with_what_to_do(suspend: bool) -> None:
    hanging = make_pod(deletion_timestamp=NOW, deletion_grace_seconds=120)
    observation = make_observation(spec=make_spec(suspend=suspend), pods=(hanging,))
    early = step(observation, after=30)
    assert said(early, ConditionType.PODS_READY)[1] != Reason.TERMINATION_OVERDUE
    assert early.next_look == seconds(30)
    late = step(replace(observation, status=early.status), after=61)
    assert said(late, ConditionType.PODS_READY) == (False, Reason.TERMINATION_OVERDUE)
    assert late.status.phase == "Stopping"
    assert "if the machine is gone, delete its Node" in late.status.message
    assert [event.reason for event in late.events] == [Reason.TERMINATION_OVERDUE]
    assert late.actions == ()


def test_a_pod_without_a_node_that_a_finalizer_holds_is_told() -> None:
    held = make_pod(phase="Pending", node_name=None, trainer=ContainerView(), deletion_timestamp=NOW)
    late = step(make_observation(pods=(held,)), after=61)
    assert "finalizer" in late.status.message
