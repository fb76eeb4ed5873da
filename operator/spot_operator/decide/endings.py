"""Judge what has ended, and draw the conclusions: the verdict, the counters, what follows for the job."""

from dataclasses import replace
from datetime import datetime, timedelta

from spot_operator.decide import avoid, restarts
from spot_operator.decide.case import CLOCK_TOLERANCE, Case, Ending, Verdict
from spot_operator.decide.cost import account, cost_in_words, sum_up
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate, PodFate, forced_time, given_up_time
from spot_operator.decide.gang import has_ended
from spot_operator.decide.overheads import note_interruption
from spot_operator.decide.progress import location_name, merge_outcome, newest_checkpoint
from spot_operator.decide.rates import count_loss
from spot_operator.decide.verdicts import classify
from spot_operator.model import Gang, LastFailure, NodeView, Progress, Restart
from spot_operator.names import Cause, ConditionType, Reason
from spot_trainer.contract import clean_text

MAX_FAILURE_MESSAGE_LENGTH = 512
HOLD_RETRY = timedelta(seconds=5)
FAILURES = frozenset({Cause.FAILURE, Cause.OUT_OF_MEMORY, Cause.MISSING_OBJECT, Cause.INFRASTRUCTURE})


def judge_predecessor(draft: Draft) -> Draft:
    """Give the incarnation that handed over its verdict; its successor is under way already."""
    predecessor = draft.status.predecessor
    if predecessor is None:
        return draft
    fates = draft.fates(predecessor)
    if not has_ended(fates, claims=draft.status.claims):
        return _look_when_given_up(draft, predecessor, fates)
    case = _case(draft, predecessor, fates)
    verdict = classify(case)
    if verdict.ending is Ending.HOLD:
        return draft.look_at(_hold_end(draft, fates[0]))
    return _conclude_gang(draft.with_status(predecessor=None), predecessor, case, verdict)


def judge(draft: Draft) -> Draft:
    """Give an ended gang its verdict, and the job what follows from it."""
    gang = draft.status.gang
    if gang is None:
        return draft
    fates = draft.fates(gang)
    if all(fate.fate is Fate.NOT_CREATED for fate in fates) and (
        gang.stop is not None or not draft.observation.knows_creations
    ):
        # A pod that existed and is gone looks like one that never was. A name is used once, so that no
        # incarnation ever has two pods: the next one takes its place, and numbers cost nothing.
        draft = draft.with_gang(None)
        if gang.stop is not None:
            return draft
        return draft.say(
            "Normal",
            Reason.POD_UNSEEN,
            f"the operator that asked for the pod of incarnation {gang.incarnation} did not live to see it, "
            "and it is not there now: whether it ever ran is not known, and it is counted under no cause",
        )
    if not has_ended(fates, claims=draft.status.claims):
        return _wait_for_old_pod(_look_when_given_up(draft, gang, fates), fates)
    case = _case(draft, gang, fates)
    verdict = classify(case)
    if verdict.ending is Ending.HOLD:
        return draft.note(
            ConditionType.PODS_READY,
            False,
            Reason.SETTLING,
            "the program exited with 0; making sure it is done",
        ).look_at(_hold_end(draft, fates[0]))
    return _conclude_gang(draft.with_gang(None), gang, case, verdict)


def _case(draft: Draft, gang: Gang, fates: tuple[PodFate, ...]) -> Case:
    return Case(
        fate=fates[0],
        gang=gang,
        spec=draft.spec,
        history=draft.status.recent_restarts,
        progress=draft.status.progress,
        now=draft.now,
        settings=draft.settings,
    )


def _hold_end(draft: Draft, fate: PodFate) -> datetime:
    held = fate.record.exit_time or draft.now
    end = held + timedelta(seconds=draft.settings.complete_hold_seconds)
    return end if end > draft.now else draft.now + HOLD_RETRY


def _look_when_given_up(draft: Draft, gang: Gang, fates: tuple[PodFate, ...]) -> Draft:
    """Nothing may be heard of it at that time: others' clocks differ, and an event may be lost."""
    for fate in fates:
        if fate.fate is Fate.ALIVE:
            draft = draft.look_at(given_up_time(fate.node, gang, draft.settings))
    return draft


def _wait_for_old_pod(draft: Draft, fates: tuple[PodFate, ...]) -> Draft:
    """A plain container cannot be fenced: its successor waits until it is surely dead."""
    for fate in fates:
        if fate.fate in (Fate.DEAD_NODE, Fate.GONE, Fate.ENDED) and not fate.surely_dead:
            forced = forced_time(fate.pod) if fate.fate is Fate.GONE else None
            since = fate.record.node_gone_time or forced
            due = (
                since + timedelta(seconds=draft.settings.plain_take_over_seconds)
                if since is not None
                else None
            )
            why = "on a node that is out of reach" if forced is None else "although it was deleted by force"
            return draft.note(
                ConditionType.PODS_READY,
                False,
                Reason.WAITING_FOR_OLD_POD,
                f"pod {fate.record.name} may still be running {why}; a container "
                "that does not claim its store is replaced when it is surely dead",
            ).look_at(due if due is None or due > draft.now else None)
    return draft


def _conclude_gang(draft: Draft, gang: Gang, case: Case, verdict: Verdict) -> Draft:
    """What follows from the verdict on a gang, which the draft's status does not hold any more."""
    termination, outcome = case.termination, case.outcome
    ended = termination.finished_at if termination is not None and termination.finished_at else draft.now
    until = min(ended, draft.now)
    paid, gang = account(draft, gang, until, is_over=True)
    draft = replace(draft, status=paid)
    progress = merge_outcome(draft.status.progress, outcome, ended)
    reached = outcome.step if outcome is not None else _reported_step(progress, gang)
    draft = draft.with_status(
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


def _reported_step(progress: Progress, gang: Gang) -> int | None:
    """The last step that this very incarnation has reported."""
    if progress.incarnation is not None:
        return progress.step if progress.incarnation == gang.incarnation else None
    started, reported = gang.pods[0].started_time, progress.reported_time
    is_its_own = started is not None and reported is not None and reported >= started
    return progress.step if is_its_own else None


def _complete(draft: Draft, verdict: Verdict, reached: int | None, ended: datetime) -> Draft:
    progress = replace(
        draft.status.progress,
        percentage=100,
        step=reached,
        estimated_completion_time=None,
    )
    draft = _paid_off(draft)
    counts = draft.status.restarts
    message = (
        f"completed after {draft.status.incarnation} incarnations, {counts.interruptions} interruptions; "
        f"{cost_in_words(sum_up(draft))}"
    )
    draft = draft.with_status(
        gang=None, predecessor=None, progress=progress, completion_time=ended, next_launch_time=None
    )
    draft = draft.note(ConditionType.COMPLETE, True, Reason.COMPLETED, message)
    draft = draft.note(ConditionType.PODS_READY, False, Reason.COMPLETED, "the run is complete")
    return draft.say("Normal", Reason.COMPLETED, f"{message} ({verdict.evidence})").finish()


def _paid_off(draft: Draft) -> Draft:
    """With the time of the gangs that nobody will look at any more: it waits for no price now."""
    for gang in (draft.status.gang, draft.status.predecessor):
        if gang is not None:
            draft = replace(draft, status=account(draft, gang, draft.now, is_over=True)[0])
    return draft


def fail(draft: Draft, reason: Reason | str, message: str) -> Draft:
    """End the job for good; its checkpoints stay."""
    draft = _paid_off(draft)
    draft = draft.with_status(gang=None, predecessor=None, completion_time=draft.now, next_launch_time=None)
    draft = draft.note(ConditionType.FAILED, True, reason, message)
    draft = draft.note(ConditionType.PODS_READY, False, reason, "the job has failed")
    return draft.say("Warning", str(reason), message).finish()


def wait_to_settle(draft: Draft, until: datetime) -> Draft:
    """The limit is reached by a failure that a dying machine may turn out to have caused."""
    gang = draft.status.gang
    draft = draft.with_status(next_launch_time=until) if gang is None else draft
    return draft.note(
        ConditionType.PODS_READY,
        False,
        Reason.SETTLING,
        "the last failure reaches failurePolicy.backoffLimit; making sure that its node is not to blame",
    ).look_at(until)


def _remember_failure(draft: Draft, case: Case, verdict: Verdict) -> Draft:
    if verdict.ending is Ending.RELAUNCH and verdict.cause not in FAILURES:
        return draft
    termination, outcome, pod = case.termination, case.outcome, case.fate.pod
    if outcome is not None:
        message = outcome.message
    elif termination is not None:
        message = termination.message
    else:
        message = pod.status_message if pod is not None else ""
    return draft.with_status(
        last_failure=LastFailure(
            pod=case.fate.record.name,
            container=draft.spec.trainer_container if pod is None else pod.trainer_container,
            exit_code=case.exit_code,
            reason=str(verdict.reason or verdict.cause),
            message=clean_text(message, MAX_FAILURE_MESSAGE_LENGTH) or verdict.evidence,
            time=draft.now,
        )
    )


def _finished_unannounced(case: Case) -> datetime | None:
    """When the container ended, if that is heard late and its node, which says nothing even now, was read."""
    finished = case.termination.finished_at if case.termination is not None else None
    if finished is None or finished >= case.now - CLOCK_TOLERANCE:
        return None
    return finished if isinstance(case.fate.node, NodeView) else None


def _relaunch_later(draft: Draft, gang: Gang, case: Case, verdict: Verdict, reached: int | None) -> Draft:
    progress = draft.status.progress
    durable = progress.durable_step
    # A container that does not tell of its checkpoints may have made one a moment ago.
    tells = draft.status.claims or durable is not None
    lost = max(0, reached - (durable or 0)) if reached is not None and tells else None
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
        ran=case.fate.record.started_time is not None or case.termination is not None,
        node_name=case.fate.record.node_name,
        node_uid=case.fate.record.node_uid,
        zone=case.fate.record.zone,
        finished_time=_finished_unannounced(case),
    )
    status = count_loss(restarts.record(draft.status, restart), restart)
    draft = replace(draft, status=note_interruption(status, restart))
    draft = avoid.after(draft, verdict.cause, case.fate.record)
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
    exceeded = restarts.exceeded_limit(draft.status, draft.spec)
    if exceeded is not None:
        settles = restarts.settle_time(restart, draft.settings)
        return fail(draft, *exceeded) if settles is None else wait_to_settle(draft, settles)
    if draft.status.gang is not None:
        return draft  # its successor is there
    delay = restarts.delay_seconds(
        draft.status.recent_restarts,
        draft.settings,
        spread=restarts.spread_of(draft.observation.uid, gang.incarnation),
    )
    return draft.with_status(next_launch_time=draft.now + timedelta(seconds=delay) if delay else None)
