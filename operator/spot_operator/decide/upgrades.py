"""What comes to light after a verdict: a failure may still turn out to be the machine's, a stop a reclaim.

Invariant: a verdict is only ever changed in the program's favour, and never silently.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide.case import CLOCK_TOLERANCE
from spot_operator.decide.signals import bad_device, is_shut_down, notice_of, unreachable_since
from spot_operator.model import UNKNOWN, NodeView, Observation, PolicySettings, Restart
from spot_operator.names import CapacityType, Cause

SILENCE_SEEN_AFTER: Final = timedelta(seconds=65)
"""A machine that died with the program is seen to be silent by then: the node monitor's grace period
is 40 s up to Kubernetes 1.31 and 50 s since."""

UPGRADE_WINDOW: Final = timedelta(minutes=5)
"""A spot node that vanishes this soon after an eviction was being reclaimed."""


def upgraded(restart: Restart, observation: Observation, now: datetime, settings: PolicySettings) -> Restart:
    """The verdict, in the light of what has become of the node since."""
    if restart.charged and restart.row == "21":
        return _settled(restart, observation, now, settings)
    return _reclaimed(restart, observation, now)


def _settled(restart: Restart, observation: Observation, now: datetime, settings: PolicySettings) -> Restart:
    """A dying machine often makes the program fail first, and is noticed later (C2.13)."""
    if restart.node_name is None or now > restart.time + timedelta(seconds=settings.settle_seconds):
        return restart
    if restart.node_was_well:
        return restart
    node = observation.nodes.get(restart.node_name, UNKNOWN)
    if node is UNKNOWN:
        return restart
    same = node if isinstance(node, NodeView) and _may_be_the_same(node, restart) else None
    has_outlived = _outlived(restart, observation)
    cause = Cause.INTERRUPTION if restart.capacity_type is CapacityType.SPOT else Cause.NODE_LOST
    if same is None and not has_outlived:
        row, what = "9", "its node was gone"
    elif same is not None and not has_outlived and _is_out_of_reach(same, restart):
        row, what = "10", "its node was out of reach"
    elif same is not None and (broken := bad_device(same)):  # also where a later pod has started on it
        cause, row, what = Cause.NODE_LOST, "11", f"its node said {broken}"
    elif same is not None:
        return replace(restart, node_was_well=_is_announced_later(restart, same, now))
    else:
        return restart
    seconds = round((now - restart.time).total_seconds())
    evidence = f"{restart.evidence}; {what} {seconds} s later"
    return replace(restart, cause=cause, row=row, charged=False, evidence=evidence)


def _is_out_of_reach(node: NodeView, restart: Restart) -> bool:
    since = unreachable_since(node)
    return is_shut_down(node) or (since is not None and since <= restart.time + SILENCE_SEEN_AFTER)


def _is_announced_later(restart: Restart, node: NodeView, now: datetime) -> bool:
    notice = notice_of(node, None, now)
    return notice is not None and notice.first_seen_time > restart.time + CLOCK_TOLERANCE


def _may_be_the_same(node: NodeView, restart: Restart) -> bool:
    """A node whose UID was never read is the one of its name."""
    return restart.node_uid in (None, node.uid)


def _outlived(restart: Restart, observation: Observation) -> bool:
    """The machine was well after the failure: it took a later pod, or said only then that it would go."""
    if _took_a_later_pod(restart, observation):
        return True
    last = observation.gone_nodes.get(restart.node_uid or "")
    if last is None:
        return False
    is_announced = last.signal_time is not None and last.signal_time > restart.time + CLOCK_TOLERANCE
    return is_announced or last.view.unschedulable


def _took_a_later_pod(restart: Restart, observation: Observation) -> bool:
    """A later incarnation ran on the same machine."""
    status = observation.status
    later = [(r.node_uid, r.node_name) for r in status.recent_restarts if r.incarnation > restart.incarnation]
    gangs = (gang for gang in (status.predecessor, status.gang) if gang is not None)
    later += [
        (record.node_uid, record.node_name)
        for gang in gangs
        if gang.incarnation > restart.incarnation
        for record in gang.pods
        if record.started_time is not None
    ]
    # A later pod whose node could not be read was on the same one, as far as anybody knows.
    return any(uid == restart.node_uid if uid else name == restart.node_name for uid, name in later)


def _reclaimed(restart: Restart, observation: Observation, now: datetime) -> Restart:
    """What stopped on a spot node that vanished soon afterwards was reclaimed (row 7); so was one that fell
    silent first (row 10)."""
    stopped_unasked = restart.row == "17"  # also where it was charged, as the third in a row
    if restart.cause not in (Cause.VOLUNTARY_EVICTION, Cause.NODE_LOST) and not stopped_unasked:
        return restart
    if restart.capacity_type is not CapacityType.SPOT:
        return restart
    if restart.node_name is None or now > restart.time + UPGRADE_WINDOW:
        return restart
    if "chosen by the cluster" in restart.evidence:
        return restart
    node = observation.nodes.get(restart.node_name, UNKNOWN)
    if node is UNKNOWN or _took_a_later_pod(restart, observation):
        return restart
    if isinstance(node, NodeView) and _may_be_the_same(node, restart):
        return _reclaim_was_said(restart, node, now)
    return replace(
        restart,
        cause=Cause.INTERRUPTION,
        charged=False,
        row="10" if restart.cause is Cause.NODE_LOST else "7",
        evidence=f"{restart.evidence}; its node vanished soon afterwards",
    )


def _reclaim_was_said(restart: Restart, node: NodeView, now: datetime) -> Restart:
    """The node could not be read when the pod went, and says now that it had been a reclaim."""
    notice = notice_of(node, None, now)
    if notice is None or not notice.confirmed_reclaim:
        return restart
    if notice.first_seen_time > (restart.finished_time or restart.time) + CLOCK_TOLERANCE:
        return restart
    evidence = f"{restart.evidence}; {notice.signal}, a confirmed reclaim"
    return replace(restart, cause=Cause.INTERRUPTION, charged=False, row="5", evidence=evidence)
