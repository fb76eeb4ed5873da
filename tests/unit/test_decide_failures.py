"""Whose fault it was, as far as the user has a say, and when a job stops trying."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide, restarts
from spot_operator.model import (
    UNKNOWN,
    ConditionPattern,
    Decision,
    FailurePolicy,
    FailureRule,
    GoneNode,
    JobStatus,
    NodeCondition,
    Observation,
    PodCondition,
    PolicySettings,
    Progress,
    Restart,
    RuleAction,
    Taint,
)
from spot_operator.names import CapacityType, Cause, ConditionType, Phase, Reason
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
from spot_trainer.contract import OutcomeKind

SETTINGS = PolicySettings()


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def failed(status: JobStatus) -> tuple[str, str] | None:
    found = next((c for c in status.conditions if c.type is ConditionType.FAILED), None)
    return None if found is None else (found.reason, found.message)


def rule(action: RuleAction, *codes: int, **changes: Any) -> FailureRule:
    return replace(FailureRule(action=action, exit_codes=frozenset(codes)), **changes)


def ended(*rules: FailureRule, code: int = 42, **changes: Any) -> Decision:
    """What follows when the trainer ends with the code under these rules."""
    pod = make_ended_pod(code, exit_codes={"trainer": code}, **changes.pop("pod", {}))
    spec = make_spec(failure_policy=FailurePolicy(rules=rules))
    return step(make_observation(spec=spec, pods=(pod,), **changes))


# --- failurePolicy.rules --------------------------------------------------------------------


def test_a_rule_fails_the_job_and_says_which() -> None:
    decision = ended(rule(RuleAction.IGNORE, 1), rule(RuleAction.FAIL_JOB, 42))
    reason, message = failed(decision.status) or ("", "")
    assert reason == Reason.POD_FAILURE_POLICY
    what = "container trainer failed with exit code 42"
    assert message == f"{what}, matching the FailJob rule at index 1 of failurePolicy.rules"


def test_a_rule_ignores_a_failure_and_the_job_goes_on_without_a_charge() -> None:
    (restart,) = ended(rule(RuleAction.IGNORE, 42)).status.recent_restarts
    assert (restart.row, restart.cause, restart.charged) == ("20", Cause.FAILURE, False)


def test_a_rule_counts_what_would_fail_the_job_at_once() -> None:
    gang = make_gang()
    young = replace(gang, pods=(replace(gang.pods[0], started_time=NOW - seconds(9)),))
    status = make_status(gang=young, progress=Progress())
    assert failed(ended(code=127, status=status).status) is not None
    (restart,) = ended(rule(RuleAction.COUNT, 127), code=127, status=status).status.recent_restarts
    assert (restart.row, restart.charged) == ("20", True)


def test_the_first_rule_that_matches_decides() -> None:
    decision = ended(rule(RuleAction.IGNORE, 42), rule(RuleAction.FAIL_JOB, 42))
    assert failed(decision.status) is None


def test_not_in_matches_every_other_code_but_0() -> None:
    others = rule(RuleAction.FAIL_JOB, 1, matches_others=True)
    assert failed(ended(others, code=42).status) is not None
    assert failed(ended(others, code=1).status) is None
    assert failed(ended(others, code=0).status) is None


def test_a_rule_may_name_another_container() -> None:
    pod = {"exit_codes": {"trainer": 1, "data": 9}}
    spec = make_spec(failure_policy=FailurePolicy(rules=(rule(RuleAction.FAIL_JOB, 9, container="data"),)))
    decision = step(make_observation(spec=spec, pods=(make_ended_pod(1, **pod),)))
    assert "container data failed with exit code 9" in (failed(decision.status) or ("", ""))[1]


def test_a_rule_on_a_pod_condition_matches_its_status() -> None:
    wanted = FailureRule(action=RuleAction.FAIL_JOB, conditions=(ConditionPattern(type="ConfigIssue"),))
    issue = PodCondition(type="ConfigIssue", status="True")
    assert failed(ended(wanted, pod={"conditions": (issue,)}).status) is not None
    assert failed(ended(wanted, pod={"conditions": (replace(issue, status="False"),)}).status) is None


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (1, {"pod": {"deletion_timestamp": NOW + seconds(60), "deletion_grace_seconds": 120}}),
        (1, {"nodes": {"spot-a": None}}),
        (137, {"pod": {"reason": "ContainerStatusUnknown"}}),
        (75, {"pod": {"outcome": make_outcome(OutcomeKind.STOPPED, "Notice")}}),
    ],
    ids=["told to stop", "node gone", "lost by its kubelet", "stopped on purpose"],
)
def test_exit_codes_of_a_program_that_was_stopped_match_no_rule(code: int, changes: dict[str, Any]) -> None:
    assert failed(ended(rule(RuleAction.FAIL_JOB, 1, 75, 137), code=code, **changes).status) is None


# --- command lines that cannot work ---------------------------------------------------------


@pytest.mark.parametrize("code", [2, 126, 127])
def test_row_20_a_command_that_cannot_work_fails_the_job_at_once(code: int) -> None:
    gang = make_gang()
    young = replace(gang, pods=(replace(gang.pods[0], started_time=NOW - seconds(9)),))
    decision = ended(code=code, status=make_status(gang=young, progress=Progress()))
    assert (failed(decision.status) or ("", ""))[0] == Reason.INVALID_COMMAND


@pytest.mark.parametrize(
    ("progress", "age"),
    [(Progress(step=3), 9), (Progress(durable_step=1), 9), (Progress(), 90)],
    ids=["it has made a step", "an earlier one has saved", "it ran for a while"],
)
def test_row_20_a_program_that_got_anywhere_is_only_charged(progress: Progress, age: float) -> None:
    gang = make_gang()
    gang = replace(gang, pods=(replace(gang.pods[0], started_time=NOW - seconds(age)),))
    decision = ended(code=2, status=make_status(gang=gang, progress=progress))
    assert failed(decision.status) is None
    assert decision.status.recent_restarts[0].charged


# --- further rows ---------------------------------------------------------------------------


def restart_of(**pod: Any) -> Restart:
    code = pod.pop("code", 137)
    nodes = pod.pop("nodes", {"spot-a": make_node()})
    status = pod.pop("status", make_status())
    decision = step(make_observation(pods=(make_ended_pod(code, **pod),), nodes=nodes, status=status))
    (*_, newest) = decision.status.recent_restarts
    return newest


def test_row_3_kueues_preemption_is_the_schedulers() -> None:
    condition = PodCondition(type="TerminationTarget", status="True", reason="Preempted")
    restart = restart_of(conditions=(condition,))
    assert (restart.row, restart.cause, restart.charged) == ("3", Cause.SCHEDULER_PREEMPTION, False)


def test_row_11_a_program_that_fails_on_a_node_with_a_broken_gpu_is_not_to_blame() -> None:
    broken = make_node(conditions=(NodeCondition(type="XIDErrors", status="True"),))
    restart = restart_of(code=1, nodes={"spot-a": broken})
    assert (restart.row, restart.cause, restart.charged) == ("11", Cause.NODE_LOST, False)
    assert restart.evidence == "the node says XIDErrors=True"
    well = make_node(conditions=(NodeCondition(type="XIDErrors", status="False"),))
    assert restart_of(code=1, nodes={"spot-a": well}).charged


def test_row_12_pressure_on_many_nodes_is_the_programs_own() -> None:
    evicted = PodCondition(type="DisruptionTarget", status="True", reason="TerminationByKubelet")
    pod = {"status_reason": "Evicted", "conditions": (evicted,)}
    earlier = tuple(make_restart(n, cause=Cause.NODE_PRESSURE, row="12", node_name=f"n{n}") for n in range(3))
    assert not restart_of(**pod, status=make_status(recent_restarts=earlier[:2])).charged
    charged = restart_of(**pod, status=make_status(recent_restarts=earlier))
    assert (charged.row, charged.charged) == ("12", True)


def test_row_15_a_container_that_could_not_start_is_the_infrastructures() -> None:
    restart = restart_of(code=128, reason="StartError")
    assert (restart.row, restart.cause, restart.charged) == ("15", Cause.INFRASTRUCTURE, False)


def test_row_16_a_deadline_in_the_template_is_named() -> None:
    restart = restart_of(code=143, status_reason="DeadlineExceeded")
    assert (restart.row, restart.charged) == ("16", True)


# --- no progress ----------------------------------------------------------------------------


def make_restart(number: int, **changes: Any) -> Restart:
    restart = Restart(
        time=NOW - seconds(10_000 - number),
        incarnation=number,
        capacity_type=CapacityType.SPOT,
        cause=Cause.FAILURE,
        evidence="x",
        row="21",
        pod_uid=POD_UID,
        charged=True,
    )
    return replace(restart, **changes)


def at_step(step: int | None, *causes: Cause) -> tuple[Restart, ...]:
    return tuple(
        make_restart(n, cause=cause, charged=cause is Cause.FAILURE, durable_step=step)
        for n, cause in enumerate(causes)
    )


def crash_at(step_: int, history: tuple[Restart, ...], limit: int = 3) -> Decision:
    status = make_status(recent_restarts=history, progress=Progress(step=step_, durable_step=step_))
    spec = make_spec(failure_policy=FailurePolicy(backoff_limit=limit, window_seconds=60))
    settings = replace(SETTINGS, settle_seconds=0)
    return decide(make_observation(spec=spec, status=status, pods=(make_ended_pod(1),)), NOW, settings)


def test_a_program_that_always_fails_at_one_step_fails_however_far_apart() -> None:
    three = at_step(50, Cause.FAILURE, Cause.FAILURE, Cause.FAILURE)
    reason, message = failed(crash_at(50, three).status) or ("", "")
    assert reason == Reason.NO_PROGRESS
    assert message.startswith("failed 4 times in a row at durable step 50")
    assert failed(crash_at(50, three[:2]).status) is None
    assert failed(crash_at(60, three).status) is None


@pytest.mark.parametrize(("claims", "is_failed"), [(True, True), (False, False)])
def test_a_program_with_the_library_that_always_fails_before_its_first_checkpoint_fails(
    claims: bool, is_failed: bool
) -> None:
    three = at_step(None, Cause.FAILURE, Cause.FAILURE, Cause.FAILURE)
    status = make_status(recent_restarts=three, progress=Progress(), claims=claims)
    spec = make_spec(failure_policy=FailurePolicy(backoff_limit=3, window_seconds=60))
    observation = make_observation(spec=spec, status=status, pods=(make_ended_pod(1),))
    verdict = failed(decide(observation, NOW, replace(SETTINGS, settle_seconds=0)).status)
    assert (verdict is not None) is is_failed
    assert verdict is None or "4 times in a row before the first checkpoint" in verdict[1]


def test_what_is_taken_away_in_between_neither_counts_nor_forgives() -> None:
    mixed = at_step(50, Cause.FAILURE, Cause.INTERRUPTION, Cause.FAILURE, Cause.INTERRUPTION, Cause.FAILURE)
    assert failed(crash_at(50, mixed).status) is not None
    taken = at_step(50, *[Cause.INTERRUPTION] * 20)
    assert failed(crash_at(50, taken).status) is None


def stalled(history: tuple[Restart, ...], durable: int, **changes: Any) -> tuple[bool | None, str] | None:
    status = make_status(recent_restarts=history, progress=Progress(durable_step=durable), **changes)
    decision = step(make_observation(status=status))
    found = next((c for c in decision.status.conditions if c.type is ConditionType.STALLED), None)
    return None if found is None else (found.status, found.message)


def test_a_run_that_is_paid_for_and_does_not_get_on_says_so() -> None:
    four = at_step(50, *[Cause.INTERRUPTION] * 4)
    verdict = stalled(four, 50)
    assert verdict is not None
    assert verdict[0] is True
    assert "4 incarnations in a row ended at durable step 50" in verdict[1]
    assert stalled(four[:3], 50) is None
    assert stalled(four, 51) is None
    assert stalled(four, 50, claims=False) is None
    planned = at_step(50, Cause.REQUESTED, *[Cause.INTERRUPTION] * 3, Cause.CAPACITY_CHANGE)
    assert stalled(planned, 50) is None


def test_progress_ends_it() -> None:
    four = at_step(50, *[Cause.INTERRUPTION] * 4)
    status = make_status(recent_restarts=four, progress=Progress(durable_step=50))
    first = step(make_observation(status=status)).status
    assert [e.reason for e in step(make_observation(status=status)).events] == [Reason.NO_PROGRESS]
    later = step(make_observation(status=replace(first, progress=Progress(durable_step=60)))).status
    found = next(c for c in later.conditions if c.type is ConditionType.STALLED)
    assert (found.status, found.reason) == (False, Reason.PROGRESSING)


# --- back-off -------------------------------------------------------------------------------


def test_the_back_off_grows_and_is_spread_from_job_to_job() -> None:
    crashes = [tuple(make_restart(n) for n in range(count)) for count in range(1, 9)]
    assert [restarts.delay_seconds(each, SETTINGS) for each in crashes] == [0, 10, 20, 40, 80, 160, 300, 300]
    longest = [restarts.delay_seconds(each, SETTINGS, spread=0.999) for each in crashes]
    assert longest == [0, 12, 24, 49, 99, 199, 374, 374]
    spreads = {restarts.spread_of(f"uid-{n}", 3) for n in range(100)}
    assert len(spreads) == 100
    assert all(0 <= each < 1 for each in spreads)
    assert restarts.spread_of("uid", 3) == restarts.spread_of("uid", 3)


def test_a_taint_is_no_reason_to_ignore_a_rule() -> None:
    """A rule speaks of what the program did by itself, also where a hint was on the node."""
    node = make_node(taints=(Taint(key="aws-node-termination-handler/rebalance-recommendation"),))
    decision = ended(rule(RuleAction.FAIL_JOB, 42), nodes={"spot-a": node})
    assert decision.status.phase is Phase.FAILED


# --- the settle window ----------------------------------------------------------------------


OUT_OF_REACH = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW)
ONE = make_spec(failure_policy=FailurePolicy(backoff_limit=0))


def crash(**changes: Any) -> Decision:
    """The program ends with 1 while its node looks well; that is one more than the limit allows."""
    return step(make_observation(spec=ONE, pods=(make_ended_pod(1),), **changes))


def afterwards(decision: Decision, node: Any, after: float) -> Decision:
    pods = (make_ended_pod(1),)
    observation = make_observation(spec=ONE, status=decision.status, pods=pods, nodes={"spot-a": node})
    return step(observation, after=after)


def test_a_failure_fails_the_job_only_when_its_node_has_outlived_it_by_the_window() -> None:
    first = crash()
    assert (failed(first.status), first.next_look) == (None, seconds(90))
    ready = next(c for c in first.status.conditions if c.type is ConditionType.PODS_READY)
    assert ready.reason == Reason.SETTLING
    soon = afterwards(first, make_node(), 89)
    assert (failed(soon.status), soon.actions) == (None, ())
    late = afterwards(first, make_node(), 90)
    assert (failed(late.status) or ("", ""))[0] == Reason.BACKOFF_LIMIT_EXCEEDED


@pytest.mark.parametrize(("after", "is_charged"), [(20, True), (3, False)])
def test_a_node_that_says_later_that_it_goes_was_well_and_that_is_kept(
    after: float, is_charged: bool
) -> None:
    """The process that finds it gone may be another one, which has heard nothing of it."""
    going = make_node(taints=(Taint(key="aws-node-termination-handler/spot-itn", effect="NoSchedule"),))
    first = crash()
    announced = afterwards(first, going, after)
    assert {event.reason for event in announced.events} <= {Reason.BACKOFF_LIMIT_EXCEEDED}
    assert bool(failed(announced.status)) is is_charged  # nothing more has to be waited for
    plenty = step(make_observation(pods=(make_ended_pod(1),)))
    told = make_observation(status=plenty.status, pods=(), nodes={"spot-a": going})
    kept = step(told, after=after).status
    gone = step(make_observation(status=kept, pods=(), nodes={"spot-a": None}), after=60)
    assert gone.status.recent_restarts[0].charged is is_charged


def test_failures_do_not_slide_out_of_a_short_window_while_the_last_one_settles() -> None:
    short = make_spec(failure_policy=FailurePolicy(backoff_limit=1, window_seconds=60))
    before = Restart(
        time=NOW - seconds(30),
        incarnation=1,
        capacity_type=CapacityType.SPOT,
        cause=Cause.FAILURE,
        evidence="exit code 1",
        row="21",
        pod_uid="uid-0",
        charged=True,
    )
    crashed = make_observation(
        spec=short, status=make_status(recent_restarts=(before,)), pods=(make_ended_pod(1),)
    )
    settling = step(crashed).status
    assert failed(settling) is None
    settled = step(make_observation(spec=short, status=settling, pods=()), after=91).status
    assert (failed(settled) or ("",))[0] == Reason.BACKOFF_LIMIT_EXCEEDED


@pytest.mark.parametrize(
    ("node", "row", "evidence"),
    [
        (None, "9", "exit code 1; its node was gone 40 s later"),
        (make_node(uid="another"), "9", "exit code 1; its node was gone 40 s later"),
        (
            make_node(
                taints=(Taint(key="node.kubernetes.io/unreachable", effect="NoExecute", time_added=NOW),)
            ),
            "10",
            "exit code 1; its node was out of reach 40 s later",
        ),
    ],
    ids=["gone", "reused name", "out of reach"],
)
def test_a_machine_that_dies_within_the_window_takes_the_blame(node: Any, row: str, evidence: str) -> None:
    later = afterwards(crash(), node, 40)
    (restart,) = later.status.recent_restarts
    assert (restart.row, restart.cause, restart.charged) == (row, Cause.INTERRUPTION, False)
    assert restart.evidence == evidence
    assert (later.status.restarts.failures, later.status.restarts.interruptions) == (0, 1)
    assert [type(action).__name__ for action in later.actions] == ["CreatePod"]


@pytest.mark.parametrize("node", [make_node(), UNKNOWN], ids=["well", "could not be read"])
def test_without_evidence_the_blame_stays(node: Any) -> None:
    assert afterwards(crash(), node, 40).status.recent_restarts[0].charged


def test_a_machine_that_dies_after_the_window_changes_nothing() -> None:
    status = replace(crash().status, next_launch_time=None)
    observation = make_observation(spec=make_spec(), status=status, nodes={"spot-a": None})
    assert step(observation, after=91).status.recent_restarts[0].charged


def test_a_failure_below_the_limit_starts_again_at_once() -> None:
    decision = step(make_observation(pods=(make_ended_pod(1),)))
    assert [type(action).__name__ for action in decision.actions] == ["CreatePod"]


def test_a_machine_that_took_a_later_pod_had_outlived_the_failure() -> None:
    """It goes within the window all the same, and is not to blame."""
    first = step(make_observation(pods=(make_ended_pod(1),))).status
    assert first.gang is not None
    record = replace(
        make_gang().pods[0], name=first.gang.pods[0].name, uid="uid-2", started_time=NOW + seconds(5)
    )
    again = replace(first, gang=replace(first.gang, pods=(record,)))
    later = step(make_observation(status=again, pods=(), nodes={"spot-a": None}), after=40)
    assert [(r.cause, r.charged) for r in later.status.recent_restarts] == [
        (Cause.FAILURE, True),
        (Cause.INTERRUPTION, False),
    ]


@pytest.mark.parametrize(
    ("last", "is_charged"),
    [
        (GoneNode(gone_time=NOW, view=make_node(), signal_time=None), False),
        (GoneNode(gone_time=NOW, view=make_node(), signal_time=NOW + seconds(20)), True),
        (GoneNode(gone_time=NOW, view=make_node(), signal_time=NOW + seconds(3)), False),
        (GoneNode(gone_time=NOW, view=make_node(unschedulable=True), signal_time=None), True),
    ],
    ids=["without a word", "announced after the failure", "announced with the failure", "drained"],
)
def test_a_machine_that_was_taken_away_in_good_order_was_not_dying(last: GoneNode, is_charged: bool) -> None:
    observation = make_observation(
        spec=ONE,
        status=crash().status,
        pods=(make_ended_pod(1),),
        nodes={"spot-a": None},
        gone_nodes={NODE_UID: last},
    )
    assert step(observation, after=40).status.recent_restarts[0].charged is is_charged


def test_a_machine_that_falls_silent_long_after_the_failure_was_not_dying() -> None:
    late = replace(OUT_OF_REACH, time_added=NOW + seconds(70))
    assert afterwards(crash(), make_node(taints=(late,)), 80).status.recent_restarts[0].charged


def test_a_node_whose_uid_was_never_read_is_not_another_one() -> None:
    gang = make_gang()
    unknown = replace(gang, pods=(replace(gang.pods[0], node_uid=None),))
    held = step(
        make_observation(
            spec=ONE,
            status=make_status(gang=unknown),
            pods=(make_ended_pod(1),),
            nodes={"spot-a": UNKNOWN},
        )
    )
    assert held.status.recent_restarts[0].node_uid is None
    assert afterwards(held, make_node(), 10).status.recent_restarts[0].charged


def test_a_pod_that_somebody_deleted_was_not_reclaimed_if_its_node_took_the_next_one() -> None:
    deleted = make_ended_pod(143, deletion_timestamp=NOW - seconds(1), deletion_grace_seconds=0)
    first = step(make_observation(pods=(deleted,))).status
    assert first.recent_restarts[0].cause is Cause.VOLUNTARY_EVICTION
    vanished = step(make_observation(status=first, pods=(), nodes={"spot-a": None}), after=40).status
    assert vanished.recent_restarts[0].cause is Cause.INTERRUPTION
    assert first.gang is not None
    record = replace(
        make_gang().pods[0], name=first.gang.pods[0].name, uid="uid-2", started_time=NOW + seconds(5)
    )
    again = replace(first, gang=replace(first.gang, pods=(record,)))
    later = step(make_observation(status=again, pods=(), nodes={"spot-a": None}), after=40).status
    assert [r.cause for r in later.recent_restarts] == [Cause.VOLUNTARY_EVICTION, Cause.INTERRUPTION]


def test_a_later_pod_that_is_seen_only_now_to_have_started_counts() -> None:
    """Its start and the end of the machine come to light in one look, as after a watch that broke."""
    first = step(make_observation(pods=(make_ended_pod(1),))).status
    assert first.gang is not None
    later = replace(make_pod(), name=first.gang.pods[0].name, uid="uid-2", incarnation=first.incarnation)
    decision = step(make_observation(status=first, pods=(later,), nodes={"spot-a": None}), after=40)
    assert decision.status.recent_restarts[0].charged


SPOT_ITN = Taint(
    key="aws-node-termination-handler/spot-itn", effect="NoSchedule", time_added=NOW - seconds(5)
)


@pytest.mark.parametrize(
    ("taint", "cause"),
    [
        (SPOT_ITN, Cause.INTERRUPTION),
        (replace(SPOT_ITN, time_added=NOW + seconds(30)), Cause.VOLUNTARY_EVICTION),
        (replace(SPOT_ITN, key="karpenter.sh/disrupted"), Cause.VOLUNTARY_EVICTION),
    ],
    ids=["said in time", "said later", "may be chosen"],
)
def test_a_reclaim_that_could_not_be_read_at_the_time_is_believed_later(taint: Taint, cause: Cause) -> None:
    deleted = make_ended_pod(143, deletion_timestamp=NOW - seconds(1), deletion_grace_seconds=0)
    first = step(make_observation(pods=(deleted,), nodes={"spot-a": UNKNOWN})).status
    assert first.recent_restarts[0].cause is Cause.VOLUNTARY_EVICTION
    nodes = {"spot-a": make_node(taints=(taint,))}
    later = step(make_observation(status=first, pods=(), nodes=nodes), after=40).status
    assert later.recent_restarts[0].cause is cause
