"""Is a pod of the gang alive, ended, lost, or out of sight?

Invariant: doubt is a value (`UNCERTAIN`) and never leads to a relaunch or a deletion. A
pod on a dead machine counts as lost at once only where its container claims the store,
since the claim fences it; a plain container's successor waits until it is surely dead.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from spot_operator.decide.signals import is_ready, is_shut_down, ready_since, unreachable_since
from spot_operator.model import (
    UNKNOWN,
    Gang,
    JobSpec,
    NodeView,
    Observation,
    PodRecord,
    PodView,
    PolicySettings,
    Unknown,
)
from spot_operator.names import CapacityType


class Fate(Enum):
    NOT_CREATED = auto()
    ALIVE = auto()
    ENDED = auto()
    """The kubelet reported the trainer container's end."""
    GONE = auto()
    """The pod object is gone."""
    DEAD_NODE = auto()
    """The pod object is there, its machine is not."""
    UNCERTAIN = auto()


@dataclass(frozen=True, kw_only=True)
class PodFate:
    record: PodRecord
    fate: Fate
    pod: PodView | None
    """The pod as it is, or as it was last seen."""
    node: NodeView | Unknown | None
    """The very node that the pod was bound to (same UID); None: it is gone."""
    surely_dead: bool
    """No process of this pod can still be running."""


def node_of(record: PodRecord, pod: PodView | None, observation: Observation) -> NodeView | Unknown | None:
    """The node that the pod was bound to; a node of the same name with another UID is not it."""
    name = (pod.node_name if pod is not None else None) or record.node_name
    if name is None:
        return UNKNOWN
    node = observation.nodes.get(name, UNKNOWN)
    if isinstance(node, NodeView) and record.node_uid not in (None, node.uid):
        # Deleted by hand and registered again by a kubelet that has run all the time: the same machine.
        return node if record.boot_id is not None and record.boot_id == node.boot_id else None
    return node


def find_pod(record: PodRecord, pods: tuple[PodView, ...]) -> PodView | None:
    if record.uid is not None:
        return next((pod for pod in pods if pod.uid == record.uid), None)
    return next((pod for pod in pods if pod.name == record.name), None)


def pod_fate(
    record: PodRecord, gang: Gang, observation: Observation, now: datetime, settings: PolicySettings
) -> PodFate:
    if observation.pods is UNKNOWN:
        return PodFate(record=record, fate=Fate.UNCERTAIN, pod=None, node=UNKNOWN, surely_dead=False)
    pod = find_pod(record, observation.pods)
    if pod is None and record.uid is None:
        return PodFate(record=record, fate=Fate.NOT_CREATED, pod=None, node=UNKNOWN, surely_dead=True)
    if pod is None:
        last_seen = find_pod(record, observation.departed)
        node = node_of(record, last_seen, observation)
        return PodFate(
            record=record,
            fate=Fate.GONE,
            pod=last_seen,
            node=node,
            surely_dead=_is_gone_pod_dead(record, last_seen, node, now, settings, _grace(observation)),
        )
    node = node_of(record, pod, observation)
    if is_terminal(pod):
        return PodFate(
            record=record,
            fate=Fate.ENDED,
            pod=pod,
            node=node,
            surely_dead=is_end_seen(pod) or _is_machine_surely_off(record, node, now, settings),
        )
    dead = _is_node_dead(pod, node, gang, now, settings)
    return PodFate(
        record=record,
        fate=Fate.DEAD_NODE if dead else Fate.ALIVE,
        pod=pod,
        node=node,
        surely_dead=dead and _is_machine_surely_off(record, node, now, settings),
    )


def _grace(observation: Observation) -> int:
    return observation.spec.grace_seconds if isinstance(observation.spec, JobSpec) else 0


def is_terminal(pod: PodView) -> bool:
    """The trainer container has ended; other containers of the pod do not count."""
    return pod.trainer.terminated is not None or pod.phase in ("Succeeded", "Failed")


def is_end_seen(pod: PodView) -> bool:
    """Its kubelet, and not only the pod garbage collector, says that it has ended.

    The collector marks a pod as failed when its Node object is gone, whatever the machine does.
    """
    if pod.trainer.terminated is not None:
        return True
    disruption = pod.condition("DisruptionTarget")
    return is_terminal(pod) and not (
        disruption is not None and disruption.status == "True" and disruption.reason == "DeletionByPodGC"
    )


def was_never_bound(record: PodRecord, pod: PodView | None) -> bool:
    return record.node_name is None and (pod is None or pod.node_name is None)


def _is_gone_pod_dead(
    record: PodRecord,
    last_seen: PodView | None,
    node: NodeView | Unknown | None,
    now: datetime,
    settings: PolicySettings,
    grace_seconds: int,
) -> bool:
    """A pod object that is gone was confirmed by a live kubelet, or says nothing of its process.

    A live node's kubelet removes the object only when the containers have stopped. With the
    node gone or silent, the object may have been force-deleted: then the machine decides.
    """
    if was_never_bound(record, last_seen):
        return True
    if last_seen is not None and is_end_seen(last_seen):
        return True
    if isinstance(node, NodeView) and is_ready(node):
        forced = forced_time(last_seen)
        # Its kubelet learns of it only when it is in reach again, and then grants the pod its own grace.
        since = None if forced is None else max(forced, ready_since(node) or forced)
        patience = timedelta(seconds=max(settings.plain_take_over_seconds, grace_seconds))
        return since is None or now >= since + patience
    return _is_machine_surely_off(record, node, now, settings)


def forced_time(last_seen: PodView | None) -> datetime | None:
    """When the pod was deleted by force: its last word has no grace period, and no end of its container.

    A kubelet says how the container ended before it removes the object. Ready or not, it may be out of
    reach for less than the node monitor's grace period, and then stops the container in its own time.
    """
    if last_seen is None or last_seen.deletion_grace_seconds != 0 or is_end_seen(last_seen):
        return None
    return last_seen.deletion_timestamp if last_seen.trainer.running_since is not None else None


def _is_node_dead(
    pod: PodView, node: NodeView | Unknown | None, gang: Gang, now: datetime, settings: PolicySettings
) -> bool:
    if pod.node_name is None or node is UNKNOWN:
        return False
    if node is None or not isinstance(node, NodeView):
        return True
    if is_shut_down(node):
        return True
    due = given_up_time(node, gang, settings)
    return due is not None and now >= due


def given_up_time(node: NodeView | Unknown | None, gang: Gang, settings: PolicySettings) -> datetime | None:
    """When a pod on a node that is out of reach has been tolerated for long enough; None: it is in reach."""
    since = unreachable_since(node) if isinstance(node, NodeView) else None
    if since is None:
        return None
    return since + timedelta(seconds=unreachable_toleration_seconds(gang.capacity_type, settings))


def _is_machine_surely_off(
    record: PodRecord, node: NodeView | Unknown | None, now: datetime, settings: PolicySettings
) -> bool:
    if isinstance(node, NodeView):
        return is_shut_down(node)
    if node is None and record.node_gone_time is not None:
        return now >= record.node_gone_time + timedelta(seconds=settings.plain_take_over_seconds)
    return False


def unreachable_toleration_seconds(capacity_type: CapacityType, settings: PolicySettings) -> int:
    if capacity_type is CapacityType.SPOT:
        return settings.spot_unreachable_toleration_seconds
    return settings.on_demand_unreachable_toleration_seconds
