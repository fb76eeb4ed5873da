"""The gang's records brought up to date with what is seen now.

Invariant: a record keeps what was learned (UID, node, notice, times), because it has to be enough
for a verdict when the pod and its node are gone; only that the node is gone is taken back when the
same machine is there again.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate, PodFate, find_pod, is_terminal, node_of
from spot_operator.decide.pods import pod_name
from spot_operator.decide.signals import hint_of, notice_of, unreachable_since
from spot_operator.model import (
    UNKNOWN,
    CapacityStatus,
    Gang,
    JobSpec,
    NodeView,
    Observation,
    PodRecord,
    PodView,
)
from spot_operator.names import Reason


def refresh_gang(gang: Gang, observation: Observation, now: datetime) -> Gang:
    if observation.pods is UNKNOWN:
        return gang
    return replace(gang, pods=tuple(_refresh(record, observation, now) for record in gang.pods))


def _refresh(record: PodRecord, observation: Observation, now: datetime) -> PodRecord:
    assert observation.pods is not UNKNOWN
    if record.uid is None and record.name in observation.created_uids:
        record = replace(record, uid=observation.created_uids[record.name])
    pod = find_pod(record, observation.pods)
    if pod is None and record.uid is not None:
        pod = find_pod(record, observation.departed)  # bound and gone before it was ever looked at
    if pod is not None:
        scheduled = pod.condition("PodScheduled")
        record = replace(
            record,
            uid=pod.uid,
            node_name=pod.node_name or record.node_name,
            scheduled_time=record.scheduled_time
            or (
                scheduled.last_transition_time
                if scheduled is not None and scheduled.status == "True"
                else None
            ),
            started_time=record.started_time or pod.trainer.running_since,
            deletion_requested_time=record.deletion_requested_time
            or _deletion_requested(record, pod, _usual_grace_seconds(observation), now),
        )
        ended = pod.trainer.terminated
        if ended is not None and ended.exit_code == 0 and record.exit_time is None:
            record = replace(record, exit_time=now, finished_time=ended.finished_at)
    return _refresh_node(record, observation, now)


def _usual_grace_seconds(observation: Observation) -> int:
    return observation.spec.grace_seconds if isinstance(observation.spec, JobSpec) else 0


def _deletion_requested(
    record: PodRecord, pod: PodView, usual_grace_seconds: int, now: datetime
) -> datetime | None:
    """When its deletion was asked for: deletionTimestamp less the grace period.

    The kubelet's own deletion at the end has no grace, and then both speak of the removal (BeforeDelete in
    k8s.io/apiserver never moves the timestamp into the past); where a second request cut it short after its
    time was over, the grace period is 1. Of a pod that is first seen so, all that is known is whether it had
    been seen to end before; if not, it counts as told to stop before it ended.
    """
    if pod.deletion_timestamp is None:
        return None
    grace, ended = pod.deletion_grace_seconds or 0, pod.trainer.terminated
    asked = min(now, pod.deletion_timestamp - timedelta(seconds=grace)) if grace else now
    if record.exit_time is not None or ended is None or ended.finished_at is None:
        return asked
    first_asked = pod.deletion_timestamp - timedelta(seconds=usual_grace_seconds)
    is_cut_short = grace == 1 and ended.finished_at >= first_asked
    return min(asked, ended.finished_at) if is_cut_short or not grace else asked


def _refresh_node(record: PodRecord, observation: Observation, now: datetime) -> PodRecord:
    node = node_of(record, None, observation)
    if node is None:
        return _refresh_gone(record, observation, now)
    if not isinstance(node, NodeView):
        return record
    unreachable_time, since = record.unreachable_time, unreachable_since(node)
    if since is not None and (unreachable_time is None or unreachable_time < since):
        unreachable_time = now
    return replace(
        record,
        unreachable_time=unreachable_time,
        node_uid=node.uid,
        node_gone_time=None,
        boot_id=record.boot_id or node.boot_id or None,
        zone=record.zone or node.zone or None,
        notice=notice_of(node, record.notice, now),
        hint=hint_of(node, record.hint, now),
    )


def _refresh_gone(record: PodRecord, observation: Observation, now: datetime) -> PodRecord:
    """The last that was seen of the node may say why it went."""
    last = observation.gone_nodes.get(record.node_uid or "")
    gone = now if last is None else min(now, last.gone_time)
    record = replace(record, node_gone_time=record.node_gone_time or gone)
    if last is None or record.notice is not None:
        return record
    return replace(record, notice=notice_of(last.view, None, last.signal_time or now))


def adopt(draft: Draft) -> Draft:
    """Take up a pod that status has never heard of.

    An intent is in status before its pod is made; so a status that is older than a pod was emptied, or
    came from a backup. To count from there again would end what runs, and launch incarnations that the
    claims of the ones before them fence one by one.

    Where spot was being asked for beside on-demand, the newest pod is not the one that works: that one
    goes on as its predecessor. The run stays where it is, as after any other move.
    """
    pods = _pods_by_name(draft.observation)
    newest = max(pods, key=lambda pod: pod.incarnation, default=None)
    gangs = (draft.status.gang, draft.status.predecessor)
    known = {record.name for gang in gangs if gang is not None for record in gang.pods}
    if newest is None or newest.name in known or newest.incarnation <= draft.status.incarnation:
        return draft
    gang, predecessor, runs = _taken_up(newest, draft.now), None, newest
    before = [pod for pod in pods if pod.incarnation < newest.incarnation and not is_terminal(pod)]
    if before and newest.trainer.running_since is None:
        works = max(before, key=lambda pod: pod.incarnation)
        if works.deletion_timestamp is None:
            gang = replace(gang, is_beside=True, hands_over_from=works.incarnation)
            predecessor, runs = _taken_up(works, draft.now), works
    capacity = CapacityStatus(
        type=runs.capacity_type,
        since=draft.now,
        reason=Reason.ADOPTED,
        message=f"incarnation {runs.incarnation} was found there",
    )
    return draft.with_status(
        incarnation=gang.incarnation, gang=gang, predecessor=predecessor, capacity=capacity
    ).say(
        "Warning",
        Reason.ADOPTED,
        f"incarnation {gang.incarnation} exists and status knew nothing of it: it is taken up as it is",
    )


def _pods_by_name(observation: Observation) -> list[PodView]:
    """The pods that bear a name of the job's own making; who may create pods may claim any number."""
    if observation.pods is UNKNOWN:
        return []
    return [
        pod
        for pod in observation.pods
        if pod.name == pod_name(observation.name, observation.uid, pod.incarnation, pod.rank)
    ]


def _taken_up(pod: PodView, now: datetime) -> Gang:
    record = PodRecord(
        name=pod.name,
        rank=pod.rank,
        uid=pod.uid,
        # Nobody knows any more when it began to work; until now would pass for a launch of that length.
        working_time=now if pod.trainer.running_since is not None else None,
    )
    return Gang(
        incarnation=pod.incarnation,
        capacity_type=pod.capacity_type,
        created_time=pod.created,
        pods=(record,),
    )


def has_stop_signal(gang: Gang) -> PodRecord | None:
    """The first pod whose node carries a stop signal."""
    return next((record for record in gang.pods if record.notice is not None), None)


def has_ended(fates: tuple[PodFate, ...], *, claims: bool) -> bool:
    """Whether the gang's successor may start: every pod ended, or fenced by a claim, or surely dead."""
    return all(_may_be_succeeded(fate, claims=claims) for fate in fates)


def _may_be_succeeded(fate: PodFate, *, claims: bool) -> bool:
    if fate.fate in (Fate.NOT_CREATED, Fate.ALIVE, Fate.UNCERTAIN):
        return False
    return fate.surely_dead or claims
