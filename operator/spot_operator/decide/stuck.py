"""A pod that has its node and whose container does not get started: shown, then moved, then given up.

The image cannot be pulled, or the container not be made: by the node's fault, the registry's, or the
template's. The node is paid for meanwhile, so the pod is not left there for ever (catalogue, C1 row 15).
What has run before will run again, however long a registry is away; a job of which nothing has ever run
is one that cannot, and fails with what the kubelet says.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate
from spot_operator.model import Gang, PodRecord, PodView, Progress, Restart
from spot_operator.names import Reason

IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
PASSING: Final = frozenset({"ErrImagePull"})
"""Shown for a moment after each try, the first one included, which may have taken long."""

MOVE_AFTER: Final = timedelta(minutes=10)
"""On one node, from when the pod was bound."""
GIVE_UP_AFTER: Final = timedelta(minutes=10)
"""From the first attempt that came to nothing, if nothing of the job has ever run."""
ROW: Final = "15"


def trouble(pod: PodView) -> tuple[Reason, str] | None:
    """What keeps the pod's containers from being started, if the kubelet says so."""
    waits = pod.init_waiting_reason or pod.trainer.waiting_reason or ""
    said = pod.init_waiting_message or pod.trainer.waiting_message
    if waits in IMAGE_REASONS:
        return Reason.IMAGE_PULL_FAILED, f"{waits}: {said or 'see the pod'}"
    if waits in CONFIG_REASONS:
        return Reason.CONTAINER_CONFIG_ERROR, said or waits
    return None


def move_time(record: PodRecord) -> datetime | None:
    """When the pod of the record is moved if its container has not started by then."""
    is_waiting = record.started_time is None and record.scheduled_time is not None
    return record.scheduled_time + MOVE_AFTER if is_waiting and record.scheduled_time else None


def is_stuck(draft: Draft, gang: Gang) -> str | None:
    """Why the gang should be moved: its pod has been waiting on its node for too long."""
    for fate in draft.fates(gang):
        due = move_time(fate.record)
        if fate.fate is not Fate.ALIVE or fate.pod is None or due is None or draft.now < due:
            continue
        found = trouble(fate.pod)
        if found is None or fate.pod.trainer.waiting_reason in PASSING:
            continue
        minutes = MOVE_AFTER.total_seconds() / 60
        return f"not started on {fate.record.node_name} within {minutes:.0f} min: {found[1]}"
    return None


def is_hopeless(history: Iterable[Restart], progress: Progress, now: datetime) -> bool:
    """Whether an attempt that came to nothing is the last: nothing has ever run, for long enough."""
    restarts = tuple(history)
    if progress.step is not None or progress.durable_step is not None:
        return False
    if any(restart.ran and restart.row != ROW for restart in restarts):
        return False
    first = next((restart.time for restart in restarts if restart.row == ROW), None)
    return first is not None and now - first >= GIVE_UP_AFTER
