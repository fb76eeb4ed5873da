"""What a node says about its own end: stop, hint, dead, or nothing.

The match lists are those of the clouds and node controllers (the interruption catalogue,
section F). *Stop*: a reclaim or a committed drain is certain, stop the pod gracefully now.
*Hint*: it may go, or will go later: save, and go on. *Dead*: the machine is gone.
`Ready=Unknown` alone is none of these: most such nodes come back.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spot_operator.model import Hint, NodeView, Notice, Taint
from spot_operator.names import (
    TAINT_AUTOSCALER_DELETION,
    TAINT_CLOUD_SHUTDOWN,
    TAINT_OUT_OF_SERVICE,
    TAINT_UNREACHABLE,
)

RECLAIM_TAINTS: Final = frozenset(
    {
        "aws-node-termination-handler/spot-itn",
        "aks-node-termination-handler/preempt",
        "cloud.google.com/impending-node-termination",
        "ignore-taint.cluster-autoscaler.kubernetes.io/oke-impending-node-termination",
        "cloudprovider.azure.microsoft.com/draining",
    }
)
"""Stop signals that themselves name a reclaim of spot capacity."""

DRAIN_TAINTS: Final = frozenset(
    {
        "aws-node-termination-handler/asg-lifecycle-termination",
        "aks-node-termination-handler/terminate",
        "aks-node-termination-handler/redeploy",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "remediator.kubernetes.azure.com/unschedulable",
        "remediator.aks.microsoft.com/unschedulable",
        TAINT_AUTOSCALER_DELETION,
    }
)
"""Stop signals that a reclaim and a chosen disruption have in common."""

HINT_TAINTS: Final = frozenset(
    {
        "aws-node-termination-handler/rebalance-recommendation",
        "aws-node-termination-handler/scheduled-maintenance",
        "node.kubernetes.io/unschedulable",
    }
)
HINT_CONDITIONS: Final = frozenset(
    {"VMEventScheduled", "TerminateScheduled", "RedeployScheduled", "RebootScheduled"}
)

RECLAIM_CONDITIONS: Final = frozenset({"PreemptionScheduled", "PreemptScheduled", "GCESpotPreempting"})
BAD_DEVICE_CONDITIONS: Final = {
    "AcceleratedHardwareReady": "False",
    "GPUMissing": "True",
    "NVLinkStatusInactive": "True",
    "XIDErrors": "True",
    "UnhealthyNvidiaDevicePlugin": "True",
    "kubernetes.azure.com/NodeHealthy": "False",
}
"""By type: the status that says that the node's accelerator is broken."""

RECLAIM_EVENTS: Final = frozenset(
    {"SpotInterrupted", "SpotInterruption", "PreemptScheduled", "ImpendingNodeTermination"}
)
CHOSEN_EVENTS: Final = frozenset({"DisruptionTerminating", "DisruptionReason", "ScaleDown"})
"""Reasons of events, and the condition of a NodeClaim, that name a disruption which the cluster chose."""
SHUTDOWN_MESSAGE: Final = "node is shutting down"
AZURE_PREEMPT_PREFIX: Final = "Preempt Scheduled:"


@dataclass(frozen=True, kw_only=True)
class Signal:
    name: str
    confirmed_reclaim: bool
    since: datetime | None = None
    """By the node's own word; None: it does not say."""


def stop_signals(node: NodeView) -> tuple[Signal, ...]:
    """Every stop signal on the node, those that name a reclaim first."""
    found = [
        Signal(
            name=f"taint {taint.key}", confirmed_reclaim=taint.key in RECLAIM_TAINTS, since=taint.time_added
        )
        for taint in node.taints
        if taint.key in RECLAIM_TAINTS or taint.key in DRAIN_TAINTS
    ]
    for condition in node.conditions:
        if condition.status == "True" and (
            condition.type in RECLAIM_CONDITIONS
            or (condition.type == "VMEventScheduled" and condition.message.startswith(AZURE_PREEMPT_PREFIX))
        ):
            found.append(
                Signal(
                    name=f"condition {condition.type}",
                    confirmed_reclaim=True,
                    since=condition.last_transition_time,
                )
            )
        elif (
            condition.type == "Ready"
            and condition.status == "False"
            and SHUTDOWN_MESSAGE in condition.message
        ):
            found.append(
                Signal(name=SHUTDOWN_MESSAGE, confirmed_reclaim=False, since=condition.last_transition_time)
            )
    if node.deletion_timestamp is not None:
        found.append(Signal(name="node deletionTimestamp", confirmed_reclaim=False))
    return tuple(sorted(found, key=lambda signal: not signal.confirmed_reclaim))


def hint_of(node: NodeView, previous: Hint | None, now: datetime) -> Hint | None:
    """That the node may go before long; a hint that is withdrawn is forgotten, and a later one is new."""
    signals = [f"taint {taint.key}" for taint in node.taints if taint.key in HINT_TAINTS]
    signals += [
        f"condition {condition.type}"
        for condition in node.conditions
        if condition.type in HINT_CONDITIONS and condition.status == "True"
    ]
    if node.unschedulable:
        signals.append("cordon")
    if not signals:
        return None
    return previous or Hint(signal=signals[0], first_seen_time=now)


def has_stop_signal(node: NodeView) -> bool:
    return bool(stop_signals(node))


def notice_of(node: NodeView, previous: Notice | None, now: datetime) -> Notice | None:
    """What the node says now, merged with what it said before; certainty only grows."""
    signals = stop_signals(node)
    if not signals:
        return previous
    reclaim_event = bool(node.event_reasons & RECLAIM_EVENTS)
    chosen = bool(node.event_reasons & CHOSEN_EVENTS) or any(
        taint.key == TAINT_AUTOSCALER_DELETION for taint in node.taints
    )
    confirmed = signals[0].confirmed_reclaim or reclaim_event
    if previous is None:
        return Notice(
            signal=signals[0].name,
            # An operator that was away, or could not read the node, sees late what was said in time.
            first_seen_time=min([now, *(signal.since for signal in signals if signal.since is not None)]),
            confirmed_reclaim=confirmed,
            chosen_disruption=chosen and not confirmed,
        )
    confirmed = confirmed or previous.confirmed_reclaim
    return Notice(
        signal=previous.signal,
        first_seen_time=previous.first_seen_time,
        confirmed_reclaim=confirmed,
        chosen_disruption=(chosen or previous.chosen_disruption) and not confirmed,
    )


def find_taint(node: NodeView, key: str) -> Taint | None:
    return next((taint for taint in node.taints if taint.key == key), None)


def is_shut_down(node: NodeView) -> bool:
    """A human or the cloud says that the machine is off: nothing on it can still run."""
    return any(taint.key in (TAINT_OUT_OF_SERVICE, TAINT_CLOUD_SHUTDOWN) for taint in node.taints)


def bad_device(node: NodeView) -> str | None:
    """The condition that says that an accelerator of the node is broken."""
    for condition in node.conditions:
        if BAD_DEVICE_CONDITIONS.get(condition.type) == condition.status:
            return f"{condition.type}={condition.status}"
    return None


def looks_dead(node: NodeView) -> bool:
    """Whether pods on it may be given up because of what it shows."""
    return is_shut_down(node) or unreachable_since(node) is not None


def is_ready(node: NodeView) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.conditions)


def ready_since(node: NodeView) -> datetime | None:
    """Since when it has been Ready; None: it is not, or does not say."""
    times = (c.last_transition_time for c in node.conditions if c.type == "Ready" and c.status == "True")
    return next(times, None)


def unreachable_since(node: NodeView) -> datetime | None:
    taint = next((t for t in node.taints if t.key == TAINT_UNREACHABLE and t.effect == "NoExecute"), None)
    return taint.time_added if taint is not None else None
