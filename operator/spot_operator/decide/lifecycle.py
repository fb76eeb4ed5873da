"""Judge what ended, stop what must stop, launch what is due: the job's life, step by step."""

from dataclasses import replace
from datetime import datetime, timedelta

from spot_operator.decide import restarts
from spot_operator.decide.capacity import Choice, choose_capacity
from spot_operator.decide.cost import account
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate, PodFate, pod_fate
from spot_operator.decide.gang import has_ended, has_stop_signal
from spot_operator.decide.pods import build_pod, pod_name
from spot_operator.decide.progress import location_name, merge_outcome, newest_checkpoint
from spot_operator.decide.verdicts import Case, Ending, Verdict, classify
from spot_operator.model import (
    CapacityStatus,
    CreatePod,
    DeadlineAction,
    DeletePod,
    Gang,
    LastFailure,
    PodRecord,
    Progress,
    Restart,
    Stop,
)
from spot_operator.names import Cause, ConditionType, Reason, StopReason
from spot_trainer.contract import clean_text

MAX_FAILURE_MESSAGE_LENGTH = 512
REFUSAL_RETRY = timedelta(seconds=10)
FAILURES = frozenset({Cause.FAILURE, Cause.OUT_OF_MEMORY, Cause.MISSING_OBJECT, Cause.INFRASTRUCTURE})


def gang_fates(draft: Draft) -> tuple[PodFate, ...]:
    gang = draft.status.gang
    if gang is None:
        return ()
    return tuple(pod_fate(record, gang, draft.observation, draft.now, draft.settings) for record in gang.pods)


# --- judge ----------------------------------------------------------------------------------


def judge(draft: Draft) -> Draft:
    """Give an ended gang its verdict, and the job what follows from it."""
    gang = draft.status.gang
    if gang is None:
        return draft
    fates = gang_fates(draft)
    if all(fate.fate is Fate.NOT_CREATED for fate in fates) and (
        gang.stop is not None or not draft.observation.knows_creations
    ):
        # A pod that existed and is gone looks like one that never was. A name is used once, so that no
        # incarnation ever has two pods: the next one takes its place, and numbers cost nothing.
        return draft.with_gang(None)
    if not has_ended(fates, claims=draft.status.claims):
        return _wait_for_old_pod(draft, fates)
    fate = fates[0]
    case = Case(
        fate=fate,
        gang=gang,
        history=draft.status.recent_restarts,
        progress=draft.status.progress,
        now=draft.now,
        settings=draft.settings,
    )
    verdict = classify(case)
    if verdict.ending is Ending.HOLD:
        held = fate.record.exit_time or draft.now
        return draft.note(
            ConditionType.PODS_READY,
            False,
            Reason.SETTLING,
            "the program exited with 0; making sure it is done",
        ).look_at(held + timedelta(seconds=draft.settings.complete_hold_seconds))
    return _conclude_gang(draft, gang, case, verdict)


def _wait_for_old_pod(draft: Draft, fates: tuple[PodFate, ...]) -> Draft:
    """A plain container cannot be fenced: its successor waits until it is surely dead."""
    for fate in fates:
        if fate.fate in (Fate.DEAD_NODE, Fate.GONE) and not fate.surely_dead:
            since = fate.record.node_gone_time
            due = (
                since + timedelta(seconds=draft.settings.plain_take_over_seconds)
                if since is not None
                else None
            )
            return draft.note(
                ConditionType.PODS_READY,
                False,
                Reason.WAITING_FOR_OLD_POD,
                f"pod {fate.record.name} may still be running on a node that is out of reach; a container "
                "that does not claim its store is replaced when it is surely dead",
            ).look_at(due)
    return draft


def _conclude_gang(draft: Draft, gang: Gang, case: Case, verdict: Verdict) -> Draft:
    termination, outcome = case.termination, case.outcome
    ended = termination.finished_at if termination is not None and termination.finished_at else draft.now
    cost, gang = account(draft.status.cost, gang, draft.spec, min(ended, draft.now))
    progress = merge_outcome(draft.status.progress, outcome, ended)
    reached = outcome.step if outcome is not None else progress.step
    draft = draft.with_status(
        cost=cost,
        progress=progress,
        claims=draft.status.claims or outcome is not None,
        checkpoint=newest_checkpoint(
            draft.status.checkpoint,
            name=outcome.checkpoint.name if outcome is not None and outcome.checkpoint is not None else None,
            step=outcome.checkpoint.step if outcome is not None and outcome.checkpoint is not None else None,
            time=ended,
            location=location_name(draft.spec.checkpoint.location),
        ),
    )
    if verdict.ending is Ending.COMPLETE:
        return _complete(draft, verdict, reached, ended)
    draft = _remember_failure(draft, case, verdict)
    if verdict.ending is Ending.FAIL:
        return fail(draft, verdict.reason or Reason.TRAINER_REFUSED, verdict.message or verdict.evidence)
    return _relaunch_later(draft, gang, case, verdict, reached)


def _complete(draft: Draft, verdict: Verdict, reached: int | None, ended: datetime) -> Draft:
    progress = replace(
        draft.status.progress,
        percentage=100,
        step=reached,
        estimated_completion_time=None,
    )
    counts = draft.status.restarts
    message = f"completed after {draft.status.incarnation} incarnations, {counts.interruptions} interruptions"
    draft = draft.with_status(gang=None, progress=progress, completion_time=ended, next_launch_time=None)
    draft = draft.note(ConditionType.COMPLETE, True, Reason.COMPLETED, message)
    draft = draft.note(ConditionType.PODS_READY, False, Reason.COMPLETED, "the run is complete")
    return draft.say("Normal", Reason.COMPLETED, f"{message} ({verdict.evidence})").finish()


def fail(draft: Draft, reason: Reason | str, message: str) -> Draft:
    """End the job for good; its checkpoints stay."""
    draft = draft.with_status(gang=None, completion_time=draft.now, next_launch_time=None)
    draft = draft.note(ConditionType.FAILED, True, reason, message)
    draft = draft.note(ConditionType.PODS_READY, False, reason, "the job has failed")
    return draft.say("Warning", str(reason), message).finish()


def _remember_failure(draft: Draft, case: Case, verdict: Verdict) -> Draft:
    if verdict.ending is Ending.RELAUNCH and verdict.cause not in FAILURES:
        return draft
    termination, outcome = case.termination, case.outcome
    if outcome is not None:
        message = outcome.message
    elif termination is not None:
        message = termination.message
    else:
        message = case.fate.pod.status_message if case.fate.pod is not None else ""
    return draft.with_status(
        last_failure=LastFailure(
            pod=case.fate.record.name,
            container=draft.spec.trainer_container,
            exit_code=case.exit_code,
            reason=str(verdict.reason or verdict.cause),
            message=clean_text(message, MAX_FAILURE_MESSAGE_LENGTH) or verdict.evidence,
            time=draft.now,
        )
    )


def _relaunch_later(draft: Draft, gang: Gang, case: Case, verdict: Verdict, reached: int | None) -> Draft:
    progress = draft.status.progress
    durable = progress.durable_step
    lost = max(0, reached - (durable or 0)) if reached is not None else None
    restart = Restart(
        time=draft.now,
        incarnation=gang.incarnation,
        capacity_type=gang.capacity_type,
        cause=verdict.cause,
        evidence=verdict.evidence,
        row=verdict.row,
        pod_uid=case.fate.record.uid or "",
        charged=verdict.charged,
        durable_step=durable,
        lost_steps=lost,
        lost_seconds=lost / progress.steps_per_second
        if lost is not None and progress.steps_per_second
        else None,
        exit_code=case.exit_code,
        node_name=case.fate.record.node_name,
        node_uid=case.fate.record.node_uid,
    )
    draft = replace(draft, status=restarts.record(draft.status, restart)).with_gang(None)
    blame = "Warning" if verdict.charged or verdict.cause in FAILURES else "Normal"
    lost_text = f", {lost} steps to repeat" if lost else ""
    draft = draft.say(
        "Warning" if blame == "Warning" else "Normal",
        str(verdict.cause),
        f"incarnation {gang.incarnation} on {case.fate.record.node_name or 'no node'} ended: "
        f"{verdict.evidence}{lost_text}",
    )
    if verdict.reason == Reason.NO_SUCH_BUCKET:
        draft = draft.note(ConditionType.CHECKPOINT_READY, False, Reason.NO_SUCH_BUCKET, verdict.message)
    exceeded = restarts.exceeded_limit(draft.status, draft.spec, draft.now)
    if exceeded is not None:
        return fail(draft, *exceeded)
    delay = restarts.delay_seconds(draft.status.recent_restarts, draft.settings)
    return draft.with_status(next_launch_time=draft.now + timedelta(seconds=delay) if delay else None)


# --- stop -----------------------------------------------------------------------------------


def stop(draft: Draft) -> Draft:
    """Record why the gang has to end, if it has to, and delete its pods gracefully."""
    gang = draft.status.gang
    if gang is None:
        return draft
    if gang.stop is None:
        intent = _stop_intent(draft, gang)
        if intent is None:
            return draft
        gang = replace(gang, stop=intent)
        reason = Reason.STOP_SIGNAL if intent.reason is StopReason.NODE_SIGNAL else Reason.STOPPING
        draft = draft.with_gang(gang).say(
            "Normal", reason, f"stopping incarnation {gang.incarnation}: {intent.message}"
        )
    assert gang.stop is not None
    fates = gang_fates(draft)
    if all(fate.fate is Fate.NOT_CREATED for fate in fates):
        draft = draft.look_at(draft.now)  # nothing has to end, and no event will say so
    for fate in fates:
        if (
            fate.fate in (Fate.ALIVE, Fate.DEAD_NODE)
            and fate.pod is not None
            and fate.pod.deletion_timestamp is None
        ):
            draft = draft.act(DeletePod(name=fate.pod.name, uid=fate.pod.uid, why=gang.stop.message))
    return draft.note(ConditionType.PODS_READY, False, Reason.STOPPING, gang.stop.message)


def is_deadline_over(draft: Draft) -> bool:
    deadline = draft.spec.deadline
    return deadline is not None and draft.now >= deadline.finish_by


def _stop_intent(draft: Draft, gang: Gang) -> Stop | None:
    def make(reason: StopReason, message: str) -> Stop:
        return Stop(reason=reason, time=draft.now, message=message)

    if draft.spec.suspend:
        return make(StopReason.SUSPENDED, "spec.suspend is true")
    deadline = draft.spec.deadline
    if deadline is not None and is_deadline_over(draft) and deadline.action is not DeadlineAction.CONTINUE:
        return make(StopReason.DEADLINE_EXCEEDED, f"the deadline is over and its action is {deadline.action}")
    signalled = has_stop_signal(gang)
    if signalled is not None and signalled.notice is not None:
        return make(StopReason.NODE_SIGNAL, f"{signalled.notice.signal} on {signalled.node_name}")
    capacity = draft.status.capacity
    if capacity is not None and capacity.type is not gang.capacity_type:
        return make(StopReason.CAPACITY_CHANGE, f"moving to {capacity.type}: {capacity.message}")
    return None


# --- launch ---------------------------------------------------------------------------------


def choose(draft: Draft) -> Draft:
    """Bring status.capacity up to date with what the policy says now."""
    choice = choose_capacity(draft.spec, draft.status, draft.now, draft.settings)
    current = draft.status.capacity
    if current is not None and (current.type, current.reason) == (choice.type, choice.reason):
        capacity = replace(current, next_decision_time=choice.next_decision_time)
    else:
        capacity = CapacityStatus(
            type=choice.type,
            since=draft.now,
            reason=choice.reason,
            message=choice.message,
            next_decision_time=choice.next_decision_time,
        )
    if current is not None and current.type is not choice.type:
        draft = draft.say("Normal", choice.reason, _move_message(choice))
    return draft.with_status(capacity=capacity).look_at(choice.next_decision_time)


def _move_message(choice: Choice) -> str:
    return f"moving to {choice.type}: {choice.message}"


def launch(draft: Draft) -> Draft:
    """Intend the next incarnation if there is none and nothing holds it back."""
    if draft.status.gang is not None:
        return draft
    deadline = draft.spec.deadline
    if deadline is not None and is_deadline_over(draft) and deadline.action is DeadlineAction.FAIL:
        return fail(draft, Reason.DEADLINE_EXCEEDED, "the deadline is over and deadline.action is Fail")
    if draft.spec.suspend or (
        deadline is not None and is_deadline_over(draft) and deadline.action is DeadlineAction.SUSPEND
    ):
        return _suspended(draft)
    due = draft.status.next_launch_time
    if due is not None and due > draft.now:
        return draft.note(
            ConditionType.PODS_READY,
            False,
            Reason.BACKOFF,
            f"incarnation {draft.status.incarnation + 1} starts at {due.replace(microsecond=0).isoformat()}",
        ).look_at(due)
    draft = _start_over_elsewhere(draft)
    assert draft.status.capacity is not None
    incarnation = draft.status.incarnation + 1
    capacity_type = draft.status.capacity.type
    name = pod_name(draft.observation.name, draft.observation.uid, incarnation, 0)
    gang = Gang(
        incarnation=incarnation,
        capacity_type=capacity_type,
        created_time=draft.now,
        pods=(PodRecord(name=name, rank=0),),
    )
    draft = draft.with_status(
        incarnation=incarnation,
        gang=gang,
        next_launch_time=None,
        start_time=draft.status.start_time or draft.now,
    )
    return draft.say("Normal", Reason.LAUNCHING, f"launching incarnation {incarnation} on {capacity_type}")


def _start_over_elsewhere(draft: Draft) -> Draft:
    """Progress that lies in another store is no progress of this one."""
    known, place = draft.status.checkpoint, location_name(draft.spec.checkpoint.location)
    if known is None or known.location in ("", place):
        return draft
    draft = draft.with_status(checkpoint=None, progress=Progress(reported_time=draft.now))
    return draft.say(
        "Normal",
        Reason.STORAGE_CHANGED,
        f"checkpoints go to {place} instead of {known.location}; progress counts from what is found there",
    )


def _suspended(draft: Draft) -> Draft:
    by_user = draft.spec.suspend
    reason = Reason.SUSPENDED if by_user else Reason.DEADLINE_EXCEEDED
    message = (
        "spec.suspend is true; set it to false to go on"
        if by_user
        else "the deadline is over and deadline.action is Suspend; move the deadline to go on"
    )
    draft = draft.with_status(next_launch_time=None)
    draft = draft.note(ConditionType.SUSPENDED, True, reason, message)
    return draft.note(ConditionType.PODS_READY, False, reason, message)


def create_missing(draft: Draft) -> Draft:
    """Ask for every pod of the intended gang that does not exist yet."""
    gang = draft.status.gang
    if gang is None or gang.stop is not None:
        return draft
    refusal = draft.observation.refusal
    for fate in gang_fates(draft):
        if fate.fate is not Fate.NOT_CREATED:
            continue
        if refusal is not None and refusal.pod_name == fate.record.name:
            retry = refusal.time + REFUSAL_RETRY
            draft = draft.note(ConditionType.PODS_READY, False, Reason.POD_CREATION_REFUSED, refusal.message)
            if draft.now < retry:
                draft = draft.look_at(retry)
                continue
        manifest = build_pod(
            draft.observation,
            draft.spec,
            incarnation=gang.incarnation,
            rank=fate.record.rank,
            capacity_type=gang.capacity_type,
            settings=draft.settings,
        )
        draft = draft.act(CreatePod(name=fate.record.name, manifest=manifest))
    return draft
