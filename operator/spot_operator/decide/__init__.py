"""The decision: a pure, total function of a snapshot and a time.

Invariant: no I/O, no clock, no randomness, and no exception for any state of the cluster.
`STEPS` is the specification, read from top to bottom: each step takes what the ones before
it have decided, and a step that settles the matter ends the list.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide import avoid, restarts
from spot_operator.decide.conditions import (
    derive_message,
    derive_phase,
    is_finished,
    is_true,
    with_condition,
)
from spot_operator.decide.cost import account, sum_up
from spot_operator.decide.deadline import assess_deadline
from spot_operator.decide.draft import Draft
from spot_operator.decide.endings import judge, judge_predecessor
from spot_operator.decide.gang import adopt, refresh_gang
from spot_operator.decide.lifecycle import choose, create_missing, launch, stop
from spot_operator.decide.overheads import measure_launch
from spot_operator.decide.pod_conditions import note_overdue, note_pods
from spot_operator.decide.prices import pool_of, price_complaint, with_known_prices
from spot_operator.decide.progress import (
    is_news,
    location_name,
    merge_report,
    newest_checkpoint,
    with_measurements,
)
from spot_operator.decide.rates import count_loss, with_estimates
from spot_operator.decide.retention import clean_up
from spot_operator.decide.returning import resume_predecessor, return_to_spot
from spot_operator.decide.silence import assess_reports
from spot_operator.decide.upgrades import upgraded
from spot_operator.model import (
    UNKNOWN,
    Decision,
    Gang,
    InvalidSpec,
    JobEvent,
    JobStatus,
    NodeView,
    Observation,
    PodRecord,
    PolicySettings,
)
from spot_operator.names import ConditionType, Reason

__all__ = ["STEPS", "decide"]

UNKNOWN_RETRY: Final = timedelta(seconds=5)
UNHEARD_RETRY: Final = timedelta(seconds=10)
SOONEST_LOOK: Final = timedelta(seconds=1)

Step = Callable[[Draft], Draft]


def take_stock(draft: Draft) -> Draft:
    """Remember what is seen now: pods, nodes, notices, progress, cost."""
    status, observation = draft.status, draft.observation
    report = observation.report
    news = report if is_news(status.progress, report) else None
    status = replace(
        status,
        progress=merge_report(status.progress, report),
        claims=status.claims or (report is not None and report.incarnation is not None),
        deadline=draft.spec.deadline.finish_by if draft.spec.deadline is not None else None,
        checkpoint=with_measurements(
            newest_checkpoint(
                status.checkpoint,
                name=news.checkpoint_name if news is not None else None,
                step=news.durable_step if news is not None else None,
                time=(news.durable_time or news.received) if news is not None else None,
                location=location_name(draft.spec.checkpoint.location),
            ),
            news,
        ),
    )
    if status.gang is not None:
        gang = refresh_gang(status.gang, observation, draft.now)
        paid, gang = account(replace(draft, status=status), gang, draft.now)
        for before, after in zip(status.gang.pods, gang.pods, strict=True):
            draft = _say_hint(_complain_of_price(draft, before, after), gang, before, after)
        # Not what launches took so far: each wait that just passed for one would let a longer one pass.
        patience = float(draft.settings.launch_seconds)
        status = measure_launch(
            replace(paid, gang=gang),
            report,
            draft.now,
            patience_seconds=patience,
            reports_since=observation.reports_since,
        )
    if status.predecessor is not None:
        predecessor = refresh_gang(status.predecessor, observation, draft.now)
        for before, after in zip(status.predecessor.pods, predecessor.pods, strict=True):
            draft = _say_hint(draft, predecessor, before, after)
        status, predecessor = account(replace(draft, status=status), predecessor, draft.now)
        status = replace(status, predecessor=predecessor)
    return replace(draft, status=with_known_prices(status, draft.spec, draft.settings.prices))


def _say_hint(draft: Draft, gang: Gang, before: PodRecord, after: PodRecord) -> Draft:
    if after.hint is None or after.notice is not None or gang.stop is not None or before.hint is not None:
        return draft  # nothing new, or already more than a hint
    what = f"{after.hint.signal} on {after.node_name}: it may go, so a checkpoint is asked for"
    return draft.say("Normal", Reason.NODE_HINT, what)


def _complain_of_price(draft: Draft, before: PodRecord, after: PodRecord) -> Draft:
    """Once for each pod, when its node is read for the first time, where the annotation would count."""
    node = draft.observation.nodes.get(after.node_name or "")
    assert draft.status.gang is not None
    if pool_of(draft.spec, draft.status.gang.capacity_type).price_per_node_hour is not None:
        return draft
    if before.node_uid is not None or after.node_uid is None or not isinstance(node, NodeView):
        return draft
    complaint = price_complaint(node)
    return draft.say("Warning", Reason.INVALID_PRICE, complaint) if complaint else draft


def look_again_unasked(draft: Draft) -> Draft:
    """At what nobody tells of: a pod without its marks; a node that could not be read, which may be saying
    that it goes and that its time runs out."""
    nodes, pods = draft.observation.nodes, draft.observation.pods
    if pods is not UNKNOWN and any(not pod.is_heard for pod in pods):
        draft = draft.look_at(draft.now + UNHEARD_RETRY)
    for gang in (draft.status.gang, draft.status.predecessor):
        for record in gang.pods if gang is not None else ():
            if record.node_name is not None and nodes.get(record.node_name) is UNKNOWN:
                return draft.look_at(draft.now + UNKNOWN_RETRY)
    return draft


def reconsider_verdicts(draft: Draft) -> Draft:
    """Upgrade verdicts for which the evidence came late."""
    status = draft.status
    counts, renewed = status.restarts, []
    # By what this look has found, not by what the last one wrote: a pod that was seen to start only now
    # has started all the same.
    seen = replace(draft.observation, status=status)
    for restart in status.recent_restarts:
        better = upgraded(restart, seen, draft.now, draft.settings)
        if better.cause is not restart.cause or better.evidence != restart.evidence:
            counts = restarts.recount(counts, restart.cause, better.cause)
            draft = replace(draft, status=count_loss(draft.status, better, restart))
            draft = avoid.after(draft, better.cause, better)
            if restart.charged and not better.charged and status.gang is None:
                draft = draft.with_status(next_launch_time=None)  # nothing is held against the program
            draft = draft.say(
                "Normal", str(better.cause), f"incarnation {better.incarnation}: {better.evidence}"
            )
        renewed.append(better)
    return draft.with_status(restarts=counts, recent_restarts=tuple(renewed))


def assess_progress(draft: Draft) -> Draft:
    """Say that the run is paid for and does not get on: nothing else would look wrong."""
    status = draft.status
    step = status.progress.durable_step
    repeats = restarts.stalled_restarts(status.recent_restarts, step)
    was_stalled = is_true(status, ConditionType.STALLED)
    if status.claims and repeats >= restarts.STALLED_RESTARTS:
        return draft.note(
            ConditionType.STALLED,
            True,
            Reason.NO_PROGRESS,
            f"{repeats} incarnations in a row ended at durable step {step or 0}; a shorter "
            "checkpoint.interval, on-demand capacity or a longer grace period would help",
        )
    if not was_stalled:
        return draft
    return draft.note(
        ConditionType.STALLED, False, Reason.PROGRESSING, f"durable progress at step {step or 0}"
    )


STEPS: Final[tuple[Step, ...]] = (
    adopt,
    take_stock,
    look_again_unasked,
    reconsider_verdicts,
    judge_predecessor,
    judge,
    resume_predecessor,
    choose,
    return_to_spot,
    stop,
    launch,
    create_missing,
    note_pods,
    note_overdue,
    assess_deadline,
    assess_progress,
)


def decide(observation: Observation, now: datetime, settings: PolicySettings) -> Decision:
    """What to write to status, what to do, what to say, and when to look again."""
    status = observation.status
    if observation.deletion_requested:
        # Owner references let the garbage collector stop the pods gracefully.
        return Decision(status=status)
    if observation.pods is UNKNOWN:
        return Decision(status=status, next_look=UNKNOWN_RETRY)
    if isinstance(observation.spec, InvalidSpec):
        return _refuse(observation, observation.spec, now)
    draft = Draft(
        observation=observation,
        spec=observation.spec,
        now=now,
        settings=settings,
        status=replace(status, observed_generation=observation.generation),
    )
    if is_finished(status):
        draft = clean_up(draft)
        return Decision(status=draft.status, actions=draft.actions, next_look=_next_look(draft))
    for step in STEPS:
        if draft.done:
            break
        draft = step(draft)
    return _conclude(draft)


def _conclude(draft: Draft) -> Decision:
    draft = assess_reports(draft)
    generation = draft.observation.generation
    status = with_condition(
        draft.status,
        ConditionType.ACCEPTED,
        True,
        Reason.ACCEPTED,
        "the spec is valid",
        now=draft.now,
        generation=generation,
    )
    noted = {note.type for note in draft.notes}
    if ConditionType.SUSPENDED not in noted and status.conditions:
        draft = _note_not_suspended(draft)
    for note in draft.notes:
        status = with_condition(
            status,
            note.type,
            note.status,
            note.reason,
            note.message,
            now=draft.now,
            generation=generation,
            keep_message=note.type in KEPT_MESSAGES,
        )
    known = draft.observation
    status = replace(
        status,
        cost=sum_up(replace(draft, status=status)),
        interruption_rate=with_estimates(status.interruption_rate, known.known_interruptions, draft.settings),
    )
    status = replace(status, phase=derive_phase(status))
    status = replace(status, message=derive_message(status))
    draft = clean_up(replace(draft, status=status))
    return Decision(
        status=draft.status,
        actions=draft.actions,
        events=draft.events + _condition_events(draft.observation.status, draft.status),
        next_look=_next_look(draft),
    )


def _note_not_suspended(draft: Draft) -> Draft:
    old = next((c for c in draft.status.conditions if c.type is ConditionType.SUSPENDED), None)
    if old is None:
        return draft
    return draft.note(ConditionType.SUSPENDED, False, Reason.RESUMED, "the job is not suspended")


def _next_look(draft: Draft) -> timedelta | None:
    future = [look - draft.now for look in draft.looks]
    return max(min(future), SOONEST_LOOK) if future else None


def _refuse(observation: Observation, invalid: InvalidSpec, now: datetime) -> Decision:
    """Nothing is launched, stopped or judged by a spec that nobody could have meant."""
    message = f"{invalid.field}: {invalid.why}"
    status = replace(observation.status, observed_generation=observation.generation)
    for type_ in (ConditionType.ACCEPTED, ConditionType.PODS_READY):
        if type_ is ConditionType.ACCEPTED or status.gang is None:
            status = with_condition(
                status,
                type_,
                False,
                Reason.INVALID_SPEC,
                message,
                now=now,
                generation=observation.generation,
            )
    status = replace(status, phase=derive_phase(status), message=message)
    return Decision(status=status, events=_condition_events(observation.status, status))


KEPT_MESSAGES: Final = frozenset({ConditionType.DEADLINE_AT_RISK, ConditionType.STALLED})
"""Conditions whose sentences tell numbers that move by themselves."""

EVENT_CONDITIONS: Final = {
    (ConditionType.ACCEPTED, False): "Warning",
    (ConditionType.DEADLINE_AT_RISK, True): "Warning",
    (ConditionType.SUSPENDED, True): "Normal",
    (ConditionType.SUSPENDED, False): "Normal",
    (ConditionType.CAPACITY_AVAILABLE, False): "Warning",
    (ConditionType.STALLED, True): "Warning",
}

WARNED_POD_REASONS: Final = frozenset(
    {
        Reason.MISSING_OBJECT,
        Reason.CONTAINER_CONFIG_ERROR,
        Reason.IMAGE_PULL_FAILED,
        Reason.POD_CREATION_REFUSED,
        Reason.POD_UNMARKED,
        Reason.TERMINATION_OVERDUE,
        Reason.WAITING_FOR_OLD_POD,
    }
)


def _condition_events(old: JobStatus, new: JobStatus) -> tuple[JobEvent, ...]:
    """An event for every condition that a person should hear about and that has just changed."""
    before = {condition.type: condition for condition in old.conditions}
    events = []
    for condition in new.conditions:
        previous = before.get(condition.type)
        if previous is not None and (previous.status, previous.reason) == (
            condition.status,
            condition.reason,
        ):
            continue
        severity = EVENT_CONDITIONS.get((condition.type, bool(condition.status)))
        if condition.type is ConditionType.PODS_READY and condition.reason in WARNED_POD_REASONS:
            severity = "Warning"
        if severity is not None and condition.status is not None:
            events.append(
                JobEvent(
                    type="Warning" if severity == "Warning" else "Normal",
                    reason=condition.reason,
                    message=condition.message,
                )
            )
    return tuple(events)
