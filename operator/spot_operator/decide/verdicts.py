"""Why did an incarnation end? The classification table, one function a row, first match wins.

The rows and their order are those of the interruption catalogue (C1), for what a single
pod and its node can show. Order of trust: our own recorded intent and the trainer's
outcome, then what is certain inside the container, then typed conditions, then the state
of the node, and exit codes last. A verdict may later be upgraded (`upgrades`), never
downgraded.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from spot_operator.decide.case import CLOCK_TOLERANCE, Case, Ending, Verdict
from spot_operator.decide.failure_rules import first_match
from spot_operator.decide.fates import Fate
from spot_operator.decide.signals import SHUTDOWN_MESSAGE, bad_device, is_ready
from spot_operator.decide.stuck import is_hopeless
from spot_operator.model import UNKNOWN, NodeView, RuleAction
from spot_operator.names import Cause, Reason, StopReason
from spot_trainer.contract import HOPELESS, ExitCode, OutcomeKind, OutcomeReason, clean_text

MAX_STOPS_WITHOUT_PROGRESS: Final = 3

MAX_PRESSURE_NODES: Final = 3
"""Evicted for pressure on so many nodes without progress: it is the program that needs more."""

UNREADABLE_NODE_PATIENCE: Final = 6
"""So many times the usual hold."""

ADMISSION_REFUSALS: Final = frozenset(
    {
        "AppArmor",
        "InvalidNodeInfo",
        "NodeAffinity",
        "NodeName",
        "NodePorts",
        "PodFeatureUnsupported",
        "PodOSNotSupported",
        "SupplementalGroupsPolicyNotSupported",
        "SysctlForbidden",
        "TaintToleration",
        "TopologyAffinityError",
        "UnexpectedAdmissionError",
        "UnexpectedPredicateFailureType",
        "UnknownReason",
        "VolumeAttachmentLimitExceeded",
    }
)
"""Reasons of a pod that its kubelet did not take (catalogue, A1.5); with OutOf<resource> they are all."""

MAX_SAID_CHARS: Final = 400

COMMAND_ERRORS: Final = frozenset({2, 126, 127})
"""A shell's or an argument parser's word for a command line that cannot work."""

COMMAND_ERROR_SECONDS: Final = 60.0
"""A command line that cannot work ends sooner than this."""

SILENCE_WINDOW: Final = timedelta(minutes=10)
"""A pod that goes unheard so soon after its node was out of reach, and was silent since, went with it."""


Row = Callable[[Case], Verdict | None]


def _capacity_loss(case: Case, row: str, evidence: str) -> Verdict:
    cause = Cause.INTERRUPTION if case.on_spot else Cause.NODE_LOST
    return Verdict(ending=Ending.RELAUNCH, row=row, evidence=evidence, cause=cause)


def _uncharged(row: str, cause: Cause, evidence: str) -> Verdict:
    return Verdict(ending=Ending.RELAUNCH, row=row, evidence=evidence, cause=cause)


def row_1_success(case: Case) -> Verdict | None:
    if case.outcome is not None and case.outcome.kind is OutcomeKind.COMPLETE:
        return Verdict(ending=Ending.COMPLETE, row="1", evidence="outcome complete")
    return None


def row_17b_trainer_refused(case: Case) -> Verdict | None:
    """Fenced (76) and a restart cannot help (78): the trainer's word, whatever told it to stop."""
    outcome = case.outcome
    if case.exit_code == ExitCode.FENCED or (outcome is not None and outcome.kind is OutcomeKind.FENCED):
        if outcome is not None and outcome.reason == OutcomeReason.CLAIM_CONFLICT:
            return Verdict(
                ending=Ending.FAIL,
                row="17b",
                evidence="another job holds the claim",
                reason=Reason.CLAIM_CONFLICT,
                message=outcome.message,
            )
        return _uncharged("17b", Cause.FENCED, "fenced by a greater claim")
    is_hopeless = outcome is not None and outcome.kind is OutcomeKind.FAILED and outcome.reason in HOPELESS
    if case.exit_code != ExitCode.CONFIG and not is_hopeless:  # torchrun makes 1 of every code
        return None
    reason = outcome.reason if outcome is not None and outcome.reason else Reason.TRAINER_REFUSED
    message = outcome.message if outcome is not None else "the container exited with code 78 (EX_CONFIG)"
    if reason == OutcomeReason.NO_SUCH_BUCKET:
        return Verdict(
            ending=Ending.RELAUNCH,
            row="17b",
            evidence="the bucket does not exist",
            cause=Cause.MISSING_OBJECT,
            reason=Reason.NO_SUCH_BUCKET,
            message=message,
        )
    evidence = f"exit code {case.exit_code}, {reason}" if is_hopeless else f"exit code {case.exit_code}"
    return Verdict(ending=Ending.FAIL, row="17b", evidence=evidence, reason=reason, message=message)


def row_0_intentional_stop(case: Case) -> Verdict | None:
    stop = case.gang.stop
    if stop is None or stop.reason in (StopReason.NODE_SIGNAL, StopReason.NEVER_STARTED):
        return None
    finished = case.termination.finished_at if case.termination is not None else None
    if finished is not None and finished < stop.time - CLOCK_TOLERANCE:
        return None
    gone = case.fate.record.node_gone_time
    if finished is None and gone is not None and gone < stop.time:
        return None  # its machine had been gone before anybody wished it to stop
    cause = Cause.CAPACITY_CHANGE if stop.reason is StopReason.CAPACITY_CHANGE else Cause.REQUESTED
    return _uncharged("0", cause, f"stopped by the operator: {stop.message}")


def row_failure_rule(case: Case) -> Verdict | None:
    """failurePolicy.rules: the user knows the program better than any table."""
    pod = case.fate.pod
    if pod is None or case.outcome_is_a_stop:
        return None
    matched = first_match(
        case.spec.failure_policy.rules,
        pod,
        is_own_end=case.ended_by_itself,
    )
    if matched is None:
        return None
    index, what = matched
    match case.spec.failure_policy.rules[index].action:
        case RuleAction.FAIL_JOB:
            return Verdict(
                ending=Ending.FAIL,
                row="20",
                evidence=what,
                reason=Reason.POD_FAILURE_POLICY,
                message=f"{what}, matching the FailJob rule at index {index} of failurePolicy.rules",
            )
        case RuleAction.IGNORE:
            evidence = f"{what}, ignored by failurePolicy.rules[{index}]"
            return _uncharged("20", Cause.FAILURE, evidence)
        case RuleAction.COUNT:
            return _application_failure(case, "20", f"{what}, counted by failurePolicy.rules[{index}]")


def row_3_queue_preemption(case: Case) -> Verdict | None:
    condition = case.fate.pod.condition("TerminationTarget") if case.fate.pod is not None else None
    if condition is None or condition.status != "True":
        return None
    return _uncharged("3", Cause.SCHEDULER_PREEMPTION, f"TerminationTarget {condition.reason}".strip())


def row_2_out_of_memory(case: Case) -> Verdict | None:
    termination = case.termination
    if termination is None or termination.reason != "OOMKilled" or not case.ended_before_stop():
        return None
    return Verdict(ending=Ending.RELAUNCH, row="2", evidence="container OOMKilled", cause=Cause.OUT_OF_MEMORY)


def row_4_scheduler_preemption(case: Case) -> Verdict | None:
    condition = case.disruption
    if condition is None or condition.reason not in ("PreemptionByScheduler", "PreemptionByKubeScheduler"):
        return None
    return _uncharged("4", Cause.SCHEDULER_PREEMPTION, f"DisruptionTarget {condition.reason}")


def row_crash_before_notice(case: Case) -> Verdict | None:
    """C2.12: the program ended by itself, and the notice came only afterwards."""
    termination = case.termination
    if termination is None or case.first_stop_evidence_time is None:
        return None
    if not case.ended_before_stop() or case.outcome_is_a_stop or termination.exit_code in (0, 137, 143):
        return None
    # What was told later makes nothing the program's fault that was not.
    return (
        _rebooted(case)
        or row_11_bad_node_device(case)
        or row_15_never_started(case)
        or _application_failure(case, "21", f"exit code {termination.exit_code} before any notice")
    )


def row_5_confirmed_reclaim(case: Case) -> Verdict | None:
    notice = case.fate.record.notice
    if notice is None or not notice.confirmed_reclaim:
        return None
    return _capacity_loss(case, "5", f"{notice.signal}, a confirmed reclaim")


def row_6_node_shutdown(case: Case) -> Verdict | None:
    notice = case.fate.record.notice
    if case.says_node_shutdown or (notice is not None and notice.signal == SHUTDOWN_MESSAGE):
        return _capacity_loss(case, "6", "node shutting down")
    return None


def row_7_probable_reclaim(case: Case) -> Verdict | None:
    """A drain of a spot node that nothing names as chosen is taken for a reclaim."""
    notice = case.fate.record.notice
    if notice is None or notice.chosen_disruption or not case.on_spot:
        return None
    return _capacity_loss(case, "7", f"{notice.signal} on a spot node")


def row_9_node_object_gone(case: Case) -> Verdict | None:
    condition = case.disruption
    if condition is not None and condition.reason == "DeletionByPodGC":
        return _capacity_loss(case, "9", "DisruptionTarget DeletionByPodGC")
    if case.fate.node is None and (case.fate.fate in (Fate.DEAD_NODE, Fate.GONE) or _stopped_unasked(case)):
        return _capacity_loss(case, "9", "the node object is gone")
    return None


def _stopped_unasked(case: Case) -> bool:
    """The program was told to stop, or killed, by nobody who left a trace at the API server until then."""
    is_stop = case.outcome is not None and case.outcome.kind is OutcomeKind.STOPPED
    if not is_stop and case.exit_code not in (ExitCode.STOPPED, 137, 143):
        return False
    if case.fate.record.notice is not None:
        return False  # which says more than that its node is not there
    return case.first_stop_evidence_time is None or case.ended_before_stop()


def row_8_voluntary(case: Case) -> Verdict | None:
    condition = case.disruption
    notice = case.fate.record.notice
    if notice is not None:
        return _uncharged("8", Cause.VOLUNTARY_EVICTION, f"{notice.signal}, chosen by the cluster")
    if condition is not None and condition.reason == "EvictionByEvictionAPI":
        return _uncharged("8", Cause.VOLUNTARY_EVICTION, "DisruptionTarget EvictionByEvictionAPI")
    return None


def row_10_node_lost(case: Case) -> Verdict | None:
    condition = case.disruption
    node = case.fate.node
    if condition is not None and condition.reason == "DeletionByTaintManager":
        was_unreachable = case.fate.record.unreachable_time is not None
        if isinstance(node, NodeView) and is_ready(node) and not was_unreachable and not _has_rebooted(case):
            return _uncharged("10", Cause.VOLUNTARY_EVICTION, "NoExecute taint on a node that is Ready")
        return _uncharged("10", Cause.NODE_LOST, "DisruptionTarget DeletionByTaintManager")
    if case.fate.fate is Fate.DEAD_NODE:
        return _uncharged("10", Cause.NODE_LOST, "the node is unreachable or shut down")
    termination = case.termination
    is_lost = termination is not None and termination.reason == "ContainerStatusUnknown"
    if (is_lost or _is_container_missing(case)) and not _was_called_off(case):
        what = "ContainerStatusUnknown" if is_lost else "the pod failed and its container has no end"
        return _uncharged("10", Cause.NODE_LOST, f"{what}: the machine or its kubelet restarted")
    if rebooted := _rebooted(case):
        return rebooted
    if case.fate.pod is not None and case.fate.pod.status_reason == "NodeLost":
        return _uncharged("10", Cause.NODE_LOST, "pod reason NodeLost")
    return None


def _rebooted(case: Case) -> Verdict | None:
    if not _has_rebooted(case) or case.exit_code == 0:
        return None
    return _uncharged("10", Cause.NODE_LOST, "the machine has been booted again since")


def _has_rebooted(case: Case) -> bool:
    """The node object is the same, its machine is not what the pod was started on (C2.8)."""
    node, boot_id = case.fate.node, case.fate.record.boot_id
    return isinstance(node, NodeView) and bool(boot_id and node.boot_id) and node.boot_id != boot_id


def _is_container_missing(case: Case) -> bool:
    """For a second, a kubelet that has lost its containers says Failed, and that they are being created.

    A pod whose init container fails ends alike, but its other containers wait for PodInitializing.
    """
    pod = case.fate.pod
    return (
        pod is not None
        and pod.phase == "Failed"
        and not pod.status_reason
        and case.termination is None
        and pod.trainer.waiting_reason not in (None, "PodInitializing")
    )


def _was_called_off(case: Case) -> bool:
    """Deleted before its container was there: the kubelet tells the same as of one that it has lost."""
    return case.fate.record.started_time is None and case.deletion_requested_time is not None


def row_11_bad_device(case: Case) -> Verdict | None:
    condition = case.disruption
    if condition is None or condition.reason != "DeletionByDeviceTaintManager":
        return None
    return _uncharged("11", Cause.NODE_LOST, "DisruptionTarget DeletionByDeviceTaintManager")


def row_11_bad_node_device(case: Case) -> Verdict | None:
    """A program that fails where the node itself says that its accelerator is broken is not to blame."""
    node = case.fate.node
    if case.exit_code in (None, 0) or not isinstance(node, NodeView):
        return None
    broken = bad_device(node)
    return None if broken is None else _uncharged("11", Cause.NODE_LOST, f"the node says {broken}")


def row_12_node_pressure(case: Case) -> Verdict | None:
    pod = case.fate.pod
    if pod is None or pod.status_reason not in ("Evicted", "Preempting"):
        return None
    if not pod.started_any_container and "rejected" in pod.status_message:
        return None  # a node under pressure did not take it
    nodes = {r.node_name for r in case.without_progress if r.row == "12"} | {case.fate.record.node_name}
    if case.disruption is not None and len(nodes) > MAX_PRESSURE_NODES:
        return _application_failure(
            case, "12", f"evicted under pressure on {len(nodes)} nodes: raise the container's requests"
        )
    if case.disruption is not None or pod.status_reason == "Preempting":
        return _uncharged("12", Cause.NODE_PRESSURE, f"kubelet: {pod.status_reason}")
    return _application_failure(case, "13", f"evicted for its own limit: {pod.status_message}")


def is_admission_refusal(reason: str) -> bool:
    return reason in ADMISSION_REFUSALS or reason.startswith("OutOf")


def row_12_before_any_notice(case: Case) -> Verdict | None:
    """The kubelet evicted it clearly before its node was heard to go: that is not why it ended."""
    notice, termination = case.fate.record.notice, case.termination
    if notice is None or termination is None or termination.finished_at is None:
        return None
    if termination.finished_at >= notice.first_seen_time - CLOCK_TOLERANCE:
        return None
    return row_12_node_pressure(case)


def row_14_not_admitted(case: Case) -> Verdict | None:
    """Refused when it came, or refused again by a machine that came back under its old name (C2.8)."""
    pod = case.fate.pod
    if pod is None or pod.phase != "Failed" or not pod.status_reason:
        return None
    never_ran = not pod.started_any_container
    refused_again = case.termination is None and is_admission_refusal(pod.status_reason)
    if not never_ran and not refused_again:
        return None
    return _uncharged("14", Cause.INFRASTRUCTURE, f"kubelet refused the pod: {pod.status_reason}")


def row_15_never_started(case: Case) -> Verdict | None:
    """The container could not be started: the node, the registry or the template, before the program."""
    termination, stop = case.termination, case.gang.stop
    if termination is not None and termination.reason in ("StartError", "ContainerCannotRun"):
        evidence = f"{termination.reason}: the container could not start"
        said = f"{termination.reason}: {termination.message}" if termination.message else evidence
    elif stop is not None and stop.reason is StopReason.NEVER_STARTED and not case.has_started:
        evidence = said = stop.message
    else:
        return None
    if not is_hopeless(case.history, case.progress, case.now):
        return _uncharged("15", Cause.INFRASTRUCTURE, evidence)
    return Verdict(
        ending=Ending.FAIL,
        row="15",
        evidence=evidence,
        reason=Reason.NEVER_STARTED,
        message=f"no container of the job has ever started: {clean_text(said, MAX_SAID_CHARS)}; "
        "correct spec.template, or what it needs, and create the job again",
    )


def row_8_other_disruption(case: Case) -> Verdict | None:
    """A DisruptionTarget of a writer that is not known: somebody had the pod disrupted."""
    condition = case.disruption
    if condition is None or condition.reason in ("TerminationByKubelet", ""):
        return None
    return _uncharged("8", Cause.VOLUNTARY_EVICTION, f"DisruptionTarget {condition.reason}")


def row_20_command_error(case: Case) -> Verdict | None:
    """It never got anywhere, and will not when it is started again."""
    termination, began = case.termination, case.fate.record.started_time
    if case.exit_code not in COMMAND_ERRORS or not case.ended_by_itself or termination is None:
        return None
    has_run = case.progress.step is not None or case.durable_step is not None
    if has_run or began is None or termination.finished_at is None:
        return None
    if (termination.finished_at - began).total_seconds() >= COMMAND_ERROR_SECONDS:
        return None
    what = f"exit code {case.exit_code} within {COMMAND_ERROR_SECONDS:.0f} s, before any progress"
    return Verdict(
        ending=Ending.FAIL,
        row="20",
        evidence=what,
        reason=Reason.INVALID_COMMAND,
        message=f"{what}: the command or its arguments cannot work; see the pod's log. A rule in "
        "failurePolicy.rules can say otherwise",
    )


def row_17_stopped_on_purpose(case: Case) -> Verdict | None:
    outcome = case.outcome
    stopped = outcome is not None and outcome.kind is OutcomeKind.STOPPED
    if case.exit_code != ExitCode.STOPPED and not stopped:
        return None
    if case.deletion_requested_time is not None and not case.ended_before_stop():
        stop = case.gang.stop
        if stop is not None and stop.reason is StopReason.NEVER_STARTED:
            return _uncharged("18", Cause.INFRASTRUCTURE, f"started when it was given up: {stop.message}")
        return _uncharged(
            "18", Cause.VOLUNTARY_EVICTION, "stopped after a checkpoint; deleted by someone else"
        )
    tail = case.history[-(MAX_STOPS_WITHOUT_PROGRESS - 1) :]
    if len(tail) == MAX_STOPS_WITHOUT_PROGRESS - 1 and all(
        restart.row == "17" and restart.durable_step == case.durable_step for restart in tail
    ):
        return _application_failure(case, "17", "stops itself again and again without durable progress")
    return _uncharged("17", Cause.REQUESTED, "stopped on purpose after a checkpoint")


def row_18_deleted_by_someone(case: Case) -> Verdict | None:
    told = case.deletion_requested_time is not None and not case.ended_before_stop()
    if case.exit_code not in (None, 0) and told:
        return _uncharged(
            "18", Cause.VOLUNTARY_EVICTION, f"exit code {case.exit_code} after the pod was deleted"
        )
    return None


def row_22_finished_by_itself(case: Case) -> Verdict | None:
    """Exit 0 without an outcome completes the job only if nothing had told the pod to stop."""
    if case.exit_code != 0 or case.outcome is not None or not case.ended_before_stop():
        return None
    seen = case.fate.record.exit_time or case.now
    # What a node would say that cannot be read is waited for, but not for ever: who may not read nodes
    # at all still has an end.
    patience = UNREADABLE_NODE_PATIENCE if case.fate.node is UNKNOWN and case.fate.record.node_name else 1
    if case.now < seen + timedelta(seconds=case.settings.complete_hold_seconds * patience):
        return Verdict(ending=Ending.HOLD, row="22", evidence="exit code 0 without an outcome")
    return Verdict(ending=Ending.COMPLETE, row="22", evidence="exit code 0, and nothing had told it to stop")


def row_22_left_in_the_middle(case: Case) -> Verdict | None:
    """The library writes an outcome whenever it ends; a program that went past it is not done."""
    if case.exit_code != 0 or case.outcome is not None or case.reported_unfinished is None:
        return None
    if not case.ended_before_stop():
        return None
    return Verdict(
        ending=Ending.RELAUNCH,
        row="22",
        evidence=f"exit code 0 without an outcome, at {case.reported_unfinished}",
        cause=Cause.FAILURE,
        charged=True,
    )


def row_22_exit_zero_when_told(case: Case) -> Verdict | None:
    if case.exit_code != 0 or case.outcome is not None:
        return None
    return _uncharged("22", Cause.VOLUNTARY_EVICTION, "exit code 0 after the pod was told to stop")


def row_23_vanished(case: Case) -> Verdict | None:
    if case.fate.fate is not Fate.GONE or case.termination is not None:
        return None
    unreachable, said = case.fate.record.unreachable_time, case.progress.reported_time
    if unreachable is None or case.now >= unreachable + SILENCE_WINDOW or (said and said > unreachable):
        return _uncharged("23", Cause.VOLUNTARY_EVICTION, "the pod object disappeared")
    return _uncharged("10", Cause.NODE_LOST, "the pod disappeared after its node was out of reach")


def row_16_active_deadline(case: Case) -> Verdict | None:
    pod = case.fate.pod
    if pod is None or pod.status_reason != "DeadlineExceeded":
        return None
    return _application_failure(
        case, "16", "activeDeadlineSeconds of the template is over; spec.deadline is the job's own"
    )


def row_21_application_failure(case: Case) -> Verdict:
    termination = case.termination
    if termination is None:
        pod = case.fate.pod
        return _application_failure(case, "21", f"pod failed: {pod.status_reason if pod else 'unknown'}")
    outcome = case.outcome
    if outcome is not None and outcome.kind is OutcomeKind.FAILED and outcome.reason:
        return _application_failure(case, "21", f"exit code {termination.exit_code}, {outcome.reason}")
    return _application_failure(case, "21", f"exit code {termination.exit_code}")


def _application_failure(case: Case, row: str, evidence: str) -> Verdict:
    return Verdict(ending=Ending.RELAUNCH, row=row, evidence=evidence, cause=Cause.FAILURE, charged=True)


ROWS: Final[tuple[Row, ...]] = (
    row_1_success,
    row_17b_trainer_refused,
    row_0_intentional_stop,
    row_failure_rule,
    row_2_out_of_memory,
    row_3_queue_preemption,
    row_4_scheduler_preemption,
    row_22_left_in_the_middle,
    row_22_finished_by_itself,
    row_crash_before_notice,
    row_12_before_any_notice,
    row_5_confirmed_reclaim,
    row_6_node_shutdown,
    row_7_probable_reclaim,
    row_9_node_object_gone,
    row_8_voluntary,
    row_10_node_lost,
    row_11_bad_device,
    row_11_bad_node_device,
    row_12_node_pressure,
    row_14_not_admitted,
    row_15_never_started,
    row_16_active_deadline,
    row_17_stopped_on_purpose,
    row_18_deleted_by_someone,
    row_8_other_disruption,
    row_22_exit_zero_when_told,
    row_23_vanished,
    row_20_command_error,
    row_21_application_failure,
)


def classify(case: Case) -> Verdict:
    """The verdict of the first row with an opinion; the last row always has one."""
    for row in ROWS:
        verdict = row(case)
        if verdict is not None:
            return verdict
    raise AssertionError("the last row always decides")
