"""What people read: conditions, the printed line, events, cost, directives, and the records behind them."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.conditions import with_condition
from spot_operator.decide.directives import directives
from spot_operator.decide.losses import mean_seconds_between_losses
from spot_operator.decide.progress import merge_report, remaining_work_seconds
from spot_operator.decide.restarts import MAX_RECENT_RESTARTS
from spot_operator.model import (
    CapacityStatus,
    Cost,
    DeadlineSpec,
    InvalidSpec,
    JobStatus,
    NodeCondition,
    NodeView,
    PodView,
    PolicySettings,
    Progress,
    Report,
    Restart,
    RestartCounts,
    Stop,
    Taint,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Reason, StopReason
from spot_operator.testing import (
    NODE_UID,
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
from spot_trainer.contract import IntervalPolicy, OutcomeKind

SETTINGS = PolicySettings()


def set_ready(status: JobStatus, value: bool, message: str, *, after: float, keep: bool = False) -> JobStatus:
    return with_condition(
        status,
        ConditionType.PODS_READY,
        value,
        Reason.POD_STARTING,
        message,
        now=NOW + seconds(after),
        generation=2,
        keep_message=keep,
    )


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    status = set_ready(JobStatus(), False, "a", after=0)
    same = set_ready(status, False, "b", after=10).conditions[0]
    assert (same.last_transition_time, same.message) == (NOW, "b")
    changed = set_ready(status, True, "c", after=10).conditions[0]
    assert changed.last_transition_time == NOW + seconds(10)


def test_a_message_with_numbers_is_kept_while_nothing_else_changes() -> None:
    status = set_ready(JobStatus(), False, "100 s left", after=0)
    assert set_ready(status, False, "99 s left", after=1, keep=True).conditions[0].message == "100 s left"
    assert set_ready(status, True, "98 s left", after=2, keep=True).conditions[0].message == "98 s left"


def test_the_printed_line_says_where_it_runs_and_what_is_safe() -> None:
    progress = Progress(step=150, total_steps=1000, durable_step=0)
    status = decide(make_observation(status=make_status(progress=progress)), NOW, SETTINGS).status
    assert status.message == "on spot-a (spot), step 150/1000, safe up to 0"


def test_a_stop_on_a_signal_and_any_other_stop_have_different_events() -> None:
    node = make_node(taints=(Taint(key="karpenter.sh/disrupted"),))
    signalled = decide(make_observation(nodes={"spot-a": node}), NOW, SETTINGS)
    assert [event.reason for event in signalled.events if "stopping" in event.message] == [Reason.STOP_SIGNAL]
    suspended = decide(make_observation(spec=make_spec(suspend=True)), NOW, SETTINGS)
    assert [event.reason for event in suspended.events] == [Reason.STOPPING]


def test_an_event_is_sent_when_a_condition_changes_and_not_again() -> None:
    invalid = make_observation(spec=InvalidSpec(field="spec.x", why="no"), status=JobStatus(), pods=())
    first = decide(invalid, NOW, SETTINGS)
    assert [(event.type, event.message) for event in first.events] == [("Warning", "spec.x: no")]
    assert decide(replace(invalid, status=first.status), NOW, SETTINGS).events == ()


def test_an_invalid_edit_does_not_hide_that_the_pod_runs() -> None:
    running = decide(make_observation(), NOW, SETTINGS).status
    edited = make_observation(spec=InvalidSpec(field="spec.x", why="no"), status=running)
    decision = decide(edited, NOW, SETTINGS)
    ready = next(c for c in decision.status.conditions if c.type is ConditionType.PODS_READY)
    assert (ready.status, decision.actions, decision.status.gang) == (True, (), running.gang)


def test_suspension_is_announced() -> None:
    resting = make_observation(spec=make_spec(suspend=True), status=JobStatus(), pods=())
    decision = decide(resting, NOW, SETTINGS)
    assert [(event.type, event.reason) for event in decision.events] == [("Normal", Reason.SUSPENDED)]


def test_a_job_that_was_never_suspended_has_no_word_about_it() -> None:
    status = decide(make_observation(), NOW, SETTINGS).status
    assert all(c.type is not ConditionType.SUSPENDED for c in status.conditions)


def test_start_time_is_that_of_the_first_launch() -> None:
    status = decide(make_observation(nodes={"spot-a": None}), NOW, SETTINGS).status
    assert status.start_time == make_status().start_time


def test_the_record_of_a_pod_gains_and_never_loses() -> None:
    bare = replace(make_gang().pods[0], uid=None, node_uid=None, zone=None, boot_id=None, scheduled_time=None)
    gang = decide(
        make_observation(status=make_status(gang=make_gang(pods=(bare,)))), NOW, SETTINGS
    ).status.gang
    assert gang is not None
    (record,) = gang.pods
    assert (record.uid, record.node_uid, record.zone, record.boot_id) == (
        POD_UID,
        NODE_UID,
        "zone-a",
        "boot-1",
    )
    assert record.scheduled_time == NOW - seconds(99)
    later = decide(
        make_observation(
            status=make_status(gang=gang), nodes={"spot-a": make_node(zone="zone-z", boot_id="boot-2")}
        ),
        NOW,
        SETTINGS,
    ).status.gang
    assert later is not None
    assert later.pods == gang.pods


def test_the_last_failure_shows_the_programs_own_words() -> None:
    outcome = replace(make_outcome(OutcomeKind.FAILED, "UncaughtException"), message="ValueError: boom")
    pod = make_ended_pod(1, outcome=outcome)
    failure = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status.last_failure
    assert failure is not None
    assert (failure.pod, failure.container, failure.message) == (pod.name, "trainer", "ValueError: boom")


def test_an_interruption_is_no_failure_to_look_at() -> None:
    assert decide(make_observation(nodes={"spot-a": None}), NOW, SETTINGS).status.last_failure is None


def test_an_outcome_shows_that_the_container_claims() -> None:
    pod = make_ended_pod(1, outcome=make_outcome(OutcomeKind.FAILED, "UncaughtException"))
    status = make_status(claims=False)
    assert decide(make_observation(status=status, pods=(pod,)), NOW, SETTINGS).status.claims
    assert not decide(make_observation(status=status, pods=(make_ended_pod(1),)), NOW, SETTINGS).status.claims


def test_a_gone_pod_that_never_had_a_node_is_replaced_even_if_it_claims_nothing() -> None:
    unbound = replace(make_gang().pods[0], node_name=None, node_uid=None)
    status = make_status(claims=False, gang=make_gang(pods=(unbound,)))
    decision = decide(make_observation(status=status, pods=(), nodes={}), NOW, SETTINGS)
    assert decision.status.incarnation == 2


def test_a_plain_container_whose_pod_vanished_from_a_silent_node_is_waited_for() -> None:
    status = make_status(claims=False)
    silent = make_observation(status=status, pods=(), nodes={"spot-a": make_node(ready="Unknown")})
    assert decide(silent, NOW, SETTINGS).status.incarnation == 1
    ready = replace(silent, nodes={"spot-a": make_node()})
    assert decide(ready, NOW, SETTINGS).status.incarnation == 2


def report(at: float, step: int, **changes: object) -> Report:
    return replace(
        Report(pod_uid=POD_UID, received=NOW + seconds(at), incarnation=1, step=step, total_steps=1000),
        **changes,
    )


def test_the_rate_is_a_moving_average_of_intervals_of_at_least_a_second() -> None:
    progress = merge_report(Progress(), report(0, 0))
    progress = merge_report(progress, report(1, 10))
    assert progress.steps_per_second == 10.0
    assert merge_report(progress, report(1.5, 100)).steps_per_second == 10.0
    assert merge_report(progress, report(2, 30)).steps_per_second == 13.0
    assert merge_report(progress, report(2, 5)).steps_per_second == 10.0


def test_downtime_between_incarnations_is_not_taken_for_a_slow_rate() -> None:
    progress = merge_report(merge_report(Progress(), report(0, 0)), report(1, 10))
    assert merge_report(progress, report(600, 11, incarnation=2)).steps_per_second == 10.0


def test_a_first_durable_step_of_zero_counts() -> None:
    assert merge_report(Progress(), report(0, 5, durable_step=0)).durable_step == 0


def test_work_left_without_a_rate_is_the_undone_share_of_the_expected_duration() -> None:
    deadline = DeadlineSpec(finish_by=NOW + timedelta(hours=9), expected_duration_seconds=1000)
    status = make_status(progress=Progress(total_steps=100, durable_step=25))
    assert remaining_work_seconds(status, make_spec(deadline=deadline)) == 750.0
    assert remaining_work_seconds(make_status(), make_spec(deadline=deadline)) == 1000.0
    assert remaining_work_seconds(make_status(), make_spec()) is None


@pytest.mark.parametrize(
    ("capacity_type", "spot", "on_demand", "spent"),
    [
        (CapacityType.SPOT, 7200.0, 1800.0, Decimal("3.4700")),
        (CapacityType.ON_DEMAND, 3600.0, 5400.0, Decimal("5.5600")),
    ],
)
def test_node_time_goes_to_the_capacity_it_was_spent_on(
    capacity_type: CapacityType, spot: float, on_demand: float, spent: Decimal
) -> None:
    before = Cost(spot_node_seconds=3600.0, on_demand_node_seconds=1800.0)
    capacity = CapacityStatus(type=capacity_type, since=NOW, reason=Reason.AFTER_PENDING)
    status = make_status(cost=before, gang=make_gang(capacity_type), capacity=capacity)
    found = decide(make_observation(status=status), NOW + seconds(3600), SETTINGS).status
    cost = found.cost
    assert (cost.spot_node_seconds, cost.on_demand_node_seconds, cost.spent) == (spot, on_demand, spent)
    assert found.gang is not None
    assert found.gang.accounted_until == NOW + seconds(3600)


def test_directives_carry_the_stop_the_deadline_and_the_wish_for_a_checkpoint() -> None:
    gang = make_gang(stop=Stop(reason=StopReason.SUSPENDED, time=NOW, message="x"))
    answer = directives(
        make_observation(
            status=make_status(gang=gang),
            spec=make_spec(deadline=DeadlineSpec(finish_by=NOW)),
            annotations={"spottraining.io/checkpoint-requested-at": "one"},
        ),
        1,
    )
    assert (answer.stop, answer.deadline, answer.checkpoint_now) == ("Suspended", NOW, "one")
    calm = directives(make_observation(), 1)
    assert (calm.stop, calm.deadline, calm.checkpoint_now) == (None, None, None)


def make_restart(**changes: Any) -> Restart:
    restart = Restart(
        time=NOW,
        incarnation=1,
        capacity_type=CapacityType.SPOT,
        cause=Cause.INTERRUPTION,
        evidence="x",
        row="x",
        pod_uid=POD_UID,
        charged=False,
    )
    return replace(restart, **changes)


@pytest.mark.parametrize(
    ("node", "signal"),
    [
        (make_node(unschedulable=True), "cordon"),
        (
            make_node(taints=(Taint(key="aws-node-termination-handler/rebalance-recommendation"),)),
            "taint aws",
        ),
        (make_node(conditions=(NodeCondition(type="RebootScheduled", status="True"),)), "condition Reboot"),
        (make_node(), None),
        (make_node(conditions=(NodeCondition(type="RebootScheduled", status="False"),)), None),
    ],
)
def test_a_hint_is_worth_a_checkpoint_and_no_stop(node: NodeView, signal: str | None) -> None:
    decision = decide(make_observation(nodes={"spot-a": node}), NOW, SETTINGS)
    answer = directives(make_observation(status=decision.status), 1)
    assert (decision.actions, answer.stop) == ((), None)
    assert (answer.checkpoint_now is not None) == (signal is not None)
    assert [e.reason for e in decision.events if e.reason == Reason.NODE_HINT] == (
        [Reason.NODE_HINT] if signal else []
    )
    if signal is not None:
        assert decision.status.gang is not None
        hint = decision.status.gang.pods[0].hint
        assert hint is not None
        assert hint.signal.startswith(signal)
        later = decide(
            make_observation(nodes={"spot-a": node}, status=decision.status), NOW + seconds(60), SETTINGS
        )
        again = make_observation(status=later.status)
        assert directives(again, 1).checkpoint_now == answer.checkpoint_now
        assert not [e for e in later.events if e.reason == Reason.NODE_HINT]
        annotated = make_observation(
            status=later.status, annotations={"spottraining.io/checkpoint-requested-at": "one"}
        )
        assert directives(annotated, 1).checkpoint_now == f"{answer.checkpoint_now}+one"


def test_a_hint_that_is_withdrawn_is_forgotten_and_a_later_one_is_new() -> None:
    cordoned, calm = {"spot-a": make_node(unschedulable=True)}, {"spot-a": make_node()}
    status, ids = make_status(), []
    for after, nodes in ((0, cordoned), (10, calm), (20, cordoned)):
        status = decide(make_observation(status=status, nodes=nodes), NOW + seconds(after), SETTINGS).status
        ids.append(directives(make_observation(status=status), 1).checkpoint_now)
    assert ids[1] is None
    assert None not in (ids[0], ids[2])
    assert ids[0] != ids[2]


@pytest.mark.parametrize(
    ("lost_steps", "node_seconds", "mean"),
    [
        ((), 0, 7200),
        ((), 36000, 43200),
        ((5,), 7200, 7200),
        ((5, 0, None, 3), 7200, 4800),  # what a notice or nobody's report made free does not count
    ],
)
def test_an_automatic_interval_learns_how_often_work_is_lost(
    lost_steps: tuple[int | None, ...], node_seconds: float, mean: int
) -> None:
    status = replace(
        make_status(),
        recent_restarts=tuple(make_restart(lost_steps=lost) for lost in lost_steps),
        cost=Cost(spot_node_seconds=node_seconds / 2, on_demand_node_seconds=node_seconds / 2),
    )
    spec = make_spec()
    auto = replace(spec, checkpoint=replace(spec.checkpoint, interval_policy=IntervalPolicy.AUTO))
    assert directives(make_observation(spec=auto, status=status), 1).mean_seconds_between_losses == mean
    assert directives(make_observation(spec=spec, status=status), 1).mean_seconds_between_losses is None


def test_forgotten_restarts_do_not_make_losses_look_rare() -> None:
    """Only the newest are remembered: the time before them says nothing of how often work is lost now."""
    restarts = tuple(
        make_restart(lost_steps=1, time=NOW + seconds(60 * i)) for i in range(MAX_RECENT_RESTARTS)
    )
    status = replace(make_status(), recent_restarts=restarts, cost=Cost(spot_node_seconds=1e6))
    assert mean_seconds_between_losses(status) == round((7200 + 60 * 49) / 51)


def test_a_missing_bucket_is_forgotten_when_the_trainer_reports_again() -> None:
    pod = make_ended_pod(78, outcome=make_outcome(OutcomeKind.FAILED, "NoSuchBucket"))
    waiting = decide(make_observation(pods=(pod,)), NOW, SETTINGS).status
    relaunched = decide(make_observation(status=waiting, pods=()), NOW + seconds(10), SETTINGS).status
    ready = next(c for c in relaunched.conditions if c.type is ConditionType.CHECKPOINT_READY)
    assert ready.reason == Reason.NO_SUCH_BUCKET
    seen = make_observation(
        status=relaunched,
        pods=(make_pod(name="digits-0c5e1-2-0", uid="second", incarnation=2),),
        report=report(12, 0, incarnation=2),
    )
    healed = decide(seen, NOW + seconds(12), SETTINGS).status
    ready = next(c for c in healed.conditions if c.type is ConditionType.CHECKPOINT_READY)
    assert ready.reason == Reason.NO_CHECKPOINT_YET


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (make_ended_pod(1), RestartCounts(failures=1)),
        (make_ended_pod(137, reason="OOMKilled"), RestartCounts(out_of_memory=1)),
        (make_ended_pod(76), RestartCounts(infrastructure=1)),
        (make_ended_pod(75), RestartCounts(requested=1)),
    ],
)
def test_each_ending_is_counted_once_and_under_its_kind(pod: PodView, expected: RestartCounts) -> None:
    assert decide(make_observation(pods=(pod,)), NOW, SETTINGS).status.restarts == expected


def test_code_78_without_an_outcome_says_what_it_means() -> None:
    status = decide(make_observation(pods=(make_ended_pod(78),)), NOW, SETTINGS).status
    failed = next(c for c in status.conditions if c.type is ConditionType.FAILED)
    assert (failed.reason, failed.message) == (
        Reason.TRAINER_REFUSED,
        "the container exited with code 78 (EX_CONFIG)",
    )


def test_resuming_is_announced() -> None:
    resting = decide(
        make_observation(spec=make_spec(suspend=True), status=JobStatus(), pods=()), NOW, SETTINGS
    ).status
    resumed = decide(make_observation(status=resting, pods=()), NOW, SETTINGS)
    assert Reason.RESUMED in [event.reason for event in resumed.events]


def test_the_signal_that_names_a_reclaim_is_the_one_that_is_shown() -> None:
    taints = (Taint(key="karpenter.sh/disrupted"), Taint(key="aws-node-termination-handler/spot-itn"))
    status = make_status(claims=False)
    decision = decide(
        make_observation(nodes={"spot-a": make_node(taints=taints)}, status=status), NOW, SETTINGS
    )
    gang = decision.status.gang
    assert gang is not None
    assert gang.stop is not None
    assert gang.stop.message == "taint aws-node-termination-handler/spot-itn on spot-a"
