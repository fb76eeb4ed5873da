"""What the gang's pods say about capacity, readiness and missing objects, for people."""

import re
from datetime import timedelta
from typing import Final

from spot_operator.decide.conditions import is_asking_for_spot
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate
from spot_operator.decide.stuck import move_time, trouble
from spot_operator.model import PodRecord, PodView
from spot_operator.names import LABEL_JOB_UID, ConditionType, Reason

MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]*" not found')
OVERDUE_AFTER: Final = timedelta(seconds=60)
"""After the end of the grace period: the kubelet kills at once, and then has to say so."""
UNBOUND_CLAIM: Final = "unbound immediate PersistentVolumeClaims"
OWN_NOTES: Final = frozenset({Reason.STOPPING, Reason.SETTLING, Reason.WAITING_FOR_OLD_POD})


def note_pods(draft: Draft) -> Draft:
    """Conditions from the pods of the gang; a step that noted PodsReady already has the last word."""
    draft = _note_checkpoint(draft)
    noted = any(note.type is ConditionType.PODS_READY for note in draft.notes)
    if draft.status.gang is None or noted:
        return draft
    if is_asking_for_spot(draft.status) and draft.status.predecessor is not None:
        number = draft.status.predecessor.incarnation
        message = f"incarnation {number} runs, and spot is asked for beside it"
        return draft.note(ConditionType.PODS_READY, True, Reason.ALL_PODS_READY, message)
    for fate in draft.fates():
        if fate.fate is Fate.ALIVE and fate.pod is not None:
            return _note_pod(_look_when_stuck(draft, fate.record), fate.pod)
    return draft.note(ConditionType.PODS_READY, False, Reason.LAUNCHING, "the pod is being created")


def _look_when_stuck(draft: Draft, record: PodRecord) -> Draft:
    due = move_time(record)
    return draft.look_at(due) if due is not None and due > draft.now else draft


def note_overdue(draft: Draft) -> Draft:
    """A pod that was to end and does not: only its kubelet could say that it has, so people have to look."""
    for fate in draft.fates():
        pod = fate.pod
        if fate.fate is not Fate.ALIVE or pod is None or pod.deletion_timestamp is None:
            continue
        due = pod.deletion_timestamp + OVERDUE_AFTER
        if draft.now < due:
            return draft.look_at(due)
        return draft.note(ConditionType.PODS_READY, False, Reason.TERMINATION_OVERDUE, _overdue(pod))
    return draft


def _overdue(pod: PodView) -> str:
    since = f"pod {pod.name} was to end at {pod.deletion_timestamp:%Y-%m-%d %H:%M:%S}Z"
    if pod.node_name is None:
        return f"{since} and never had a node: a finalizer holds it, and who has put it there must remove it"
    return (
        f"{since}, and node {pod.node_name} does not say that it has: if the machine is gone, delete its "
        f"Node; if only the pod hangs, use `kubectl delete pod {pod.name} --force`"
    )


def _note_pod(draft: Draft, pod: PodView) -> Draft:
    if pod.trainer.running_since is not None:
        draft = draft.note(ConditionType.CAPACITY_AVAILABLE, True, Reason.SCHEDULED, "the pod has a node")
        if not pod.is_heard:
            return draft.note(ConditionType.PODS_READY, True, Reason.POD_UNMARKED, _unmarked(pod))
        return draft.note(ConditionType.PODS_READY, True, Reason.ALL_PODS_READY, "the pod is running")
    if pod.node_name is None:
        return _note_unscheduled(draft, pod)
    draft = draft.note(ConditionType.CAPACITY_AVAILABLE, True, Reason.SCHEDULED, "the pod has a node")
    if (found := trouble(pod)) is not None:
        return draft.note(ConditionType.PODS_READY, False, *found)
    return draft.note(ConditionType.PODS_READY, False, Reason.POD_STARTING, "the pod is starting")


def _unmarked(pod: PodView) -> str:
    return (
        f"pod {pod.name} runs without the label {LABEL_JOB_UID} or its owner reference: its reports are "
        "refused, and it may outlive the job; find out what takes them away (a webhook?), then delete the pod"
    )


def _note_unscheduled(draft: Draft, pod: PodView) -> Draft:
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return draft.note(ConditionType.PODS_READY, False, Reason.LAUNCHING, "waiting for the scheduler")
    if scheduled.reason == "SchedulingGated":
        # Kueue and others hold a pod back: nobody has asked for a node yet.
        draft = draft.note(
            ConditionType.CAPACITY_AVAILABLE, None, Reason.SCHEDULING_GATED, "the pod is gated"
        )
        return draft.note(ConditionType.PODS_READY, False, Reason.SCHEDULING_GATED, "the pod is gated")
    missing = MISSING_CLAIM.search(scheduled.message)
    if missing is not None:
        draft = draft.note(
            ConditionType.CAPACITY_AVAILABLE, None, Reason.MISSING_OBJECT, "waiting for the volume claim"
        )
        return draft.note(ConditionType.PODS_READY, False, Reason.MISSING_OBJECT, missing.group(0))
    if UNBOUND_CLAIM in scheduled.message:
        return draft.note(ConditionType.PODS_READY, False, Reason.MISSING_OBJECT, scheduled.message)
    draft = draft.note(ConditionType.CAPACITY_AVAILABLE, False, Reason.UNSCHEDULABLE, scheduled.message)
    return draft.note(ConditionType.PODS_READY, False, Reason.UNSCHEDULABLE, scheduled.message)


def _note_checkpoint(draft: Draft) -> Draft:
    if draft.status.checkpoint is not None:
        return draft.note(
            ConditionType.CHECKPOINT_READY, True, Reason.CHECKPOINT_PUBLISHED, "a checkpoint is published"
        )
    current = next((c for c in draft.status.conditions if c.type is ConditionType.CHECKPOINT_READY), None)
    noted = any(note.type is ConditionType.CHECKPOINT_READY for note in draft.notes)
    if noted or (
        current is not None and current.reason == Reason.NO_SUCH_BUCKET and not _has_progress(draft)
    ):
        return draft
    return draft.note(
        ConditionType.CHECKPOINT_READY, False, Reason.NO_CHECKPOINT_YET, "no checkpoint is published yet"
    )


def _has_progress(draft: Draft) -> bool:
    """A report of the present incarnation shows that the store is usable by now."""
    report = draft.observation.report
    gang = draft.status.gang
    return (
        report is not None
        and gang is not None
        and report.incarnation is not None
        and report.incarnation == gang.incarnation
    )
