"""Which pods of the past are deleted: strays at once, ended ones as podRetention says."""

from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide.conditions import is_finished
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import is_terminal
from spot_operator.model import UNKNOWN, DeletePod, PodRetention, PodView

LEFTOVER_SECONDS: Final = 30
"""For containers beside the trainer, a log shipper for example, to end by themselves."""


def clean_up(draft: Draft, *, finished: bool | None = None) -> Draft:
    """Delete what belongs to no current gang and is not kept for its logs."""
    pods = draft.observation.pods
    if pods is UNKNOWN:
        return draft
    gangs = (draft.status.gang, draft.status.predecessor)
    current = {record.name for gang in gangs if gang is not None for record in gang.pods}
    past = [pod for pod in pods if pod.name not in current and pod.deletion_timestamp is None]
    kept = _kept(draft, past, finished=is_finished(draft.status) if finished is None else finished)
    for pod in past:
        leftover_due = _leftover_due(pod)
        if not is_terminal(pod):
            draft = draft.act(DeletePod(name=pod.name, uid=pod.uid, why="it belongs to an ended incarnation"))
        elif leftover_due is not None and draft.now >= leftover_due:
            draft = draft.act(
                DeletePod(name=pod.name, uid=pod.uid, why="the trainer has ended, other containers run on")
            )
        elif leftover_due is not None and pod.uid in kept:
            draft = draft.look_at(leftover_due)
        elif pod.uid not in kept:
            draft = draft.act(
                DeletePod(name=pod.name, uid=pod.uid, why=f"podRetention is {draft.spec.pod_retention}")
            )
    return draft


def _leftover_due(pod: PodView) -> datetime | None:
    """When a pod is stopped whose trainer has ended while other containers run on; None: none does."""
    if pod.phase in ("Succeeded", "Failed") or pod.trainer.terminated is None:
        return None
    ended = pod.trainer.terminated.finished_at or pod.created
    return ended + timedelta(seconds=LEFTOVER_SECONDS)


def _kept(draft: Draft, past: list[PodView], *, finished: bool) -> set[str]:
    terminal = [pod for pod in past if is_terminal(pod)]
    match draft.spec.pod_retention:
        case PodRetention.ALL:
            return {pod.uid for pod in terminal}
        case PodRetention.NONE:
            return set()
        case PodRetention.LAST_FAILED:
            failure = draft.status.last_failure
            kept = {pod.uid for pod in terminal if failure is not None and pod.name == failure.pod}
            newest = max(terminal, key=lambda pod: pod.incarnation, default=None)
            # The final pod holds the logs of how the run ended.
            return kept | {newest.uid} if finished and newest is not None else kept
