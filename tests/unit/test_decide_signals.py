"""What a node says about its own end, string by string."""

import pytest

from spot_operator.decide.signals import (
    DRAIN_TAINTS,
    RECLAIM_CONDITIONS,
    RECLAIM_TAINTS,
    has_stop_signal,
    is_shut_down,
    notice_of,
    stop_signals,
)
from spot_operator.model import NodeCondition, NodeView, Taint
from spot_operator.testing import NOW, make_node, seconds


def tainted(key: str, effect: str = "NoSchedule") -> NodeView:
    return make_node(taints=(Taint(key=key, effect=effect),))


def conditioned(type_: str, status: str = "True", message: str = "") -> NodeView:
    return make_node(conditions=(NodeCondition(type=type_, status=status, message=message),))


@pytest.mark.parametrize("key", sorted(RECLAIM_TAINTS))
def test_a_taint_that_names_a_reclaim_is_a_confirmed_stop(key: str) -> None:
    assert [(s.name, s.confirmed_reclaim) for s in stop_signals(tainted(key))] == [(f"taint {key}", True)]


@pytest.mark.parametrize("key", sorted(DRAIN_TAINTS))
def test_a_drain_taint_is_a_stop_that_may_have_been_chosen(key: str) -> None:
    assert [s.confirmed_reclaim for s in stop_signals(tainted(key))] == [False]


@pytest.mark.parametrize("type_", sorted(RECLAIM_CONDITIONS))
def test_a_reclaim_condition_is_a_confirmed_stop(type_: str) -> None:
    assert [s.confirmed_reclaim for s in stop_signals(conditioned(type_))] == [True]


@pytest.mark.parametrize(
    "node",
    [
        make_node(),
        make_node(unschedulable=True),
        make_node(ready="Unknown"),
        tainted("node.kubernetes.io/unschedulable"),
        tainted("node.kubernetes.io/unreachable", "NoExecute"),
        tainted("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule"),
        tainted("aws-node-termination-handler/rebalance-recommendation"),
        tainted("karpenter.sh/unregistered", "NoExecute"),
        conditioned("PreemptionScheduled", "False"),
        conditioned("PreemptionScheduled", "Unknown"),
        conditioned("VMEventScheduled", "True", "Freeze Scheduled: Mon, 02 Mar 2026 19:01:45 GMT"),
        conditioned("VMEventScheduled", "Unknown", "Preempt Scheduled: "),
        conditioned("Ready", "False", "container runtime is down"),
        conditioned("NetworkUnavailable", "False", "node is shutting down"),
        conditioned("Ready", "True", "node is shutting down"),
    ],
)
def test_what_is_no_stop_signal(node: NodeView) -> None:
    assert not has_stop_signal(node)


def test_azures_preempt_event_is_a_stop_and_its_other_events_are_not() -> None:
    message = "Preempt Scheduled: Mon, 02 Mar 2026 19:01:45 GMT"
    (signal,) = stop_signals(conditioned("VMEventScheduled", "True", message))
    assert signal.confirmed_reclaim


def test_graceful_node_shutdown_is_recognised_inside_an_aggregated_message() -> None:
    (signal,) = stop_signals(conditioned("Ready", "False", "[node is shutting down, cni not ready]"))
    assert (signal.name, signal.confirmed_reclaim) == ("node is shutting down", False)


def test_a_node_that_is_being_deleted_is_a_stop() -> None:
    (signal,) = stop_signals(make_node(deletion_timestamp=NOW))
    assert (signal.name, signal.confirmed_reclaim) == ("node deletionTimestamp", False)


@pytest.mark.parametrize(
    "key", ["node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown"]
)
def test_a_machine_that_is_off(key: str) -> None:
    assert is_shut_down(tainted(key))
    assert not is_shut_down(tainted("karpenter.sh/disrupted"))


def test_a_notice_keeps_its_first_signal_and_time_while_certainty_grows() -> None:
    first = notice_of(tainted("karpenter.sh/disrupted"), None, NOW)
    assert first is not None
    assert (first.confirmed_reclaim, first.chosen_disruption) == (False, False)
    told = make_node(
        taints=(Taint(key="karpenter.sh/disrupted"),), event_reasons=frozenset({"SpotInterrupted"})
    )
    second = notice_of(told, first, NOW + seconds(5))
    assert second is not None
    assert (second.signal, second.first_seen_time, second.confirmed_reclaim) == (
        "taint karpenter.sh/disrupted",
        NOW,
        True,
    )


@pytest.mark.parametrize("event", ["DisruptionTerminating", "ScaleDown"])
def test_an_event_can_say_that_the_cluster_chose_the_disruption(event: str) -> None:
    node = make_node(taints=(Taint(key="karpenter.sh/disrupted"),), event_reasons=frozenset({event}))
    notice = notice_of(node, None, NOW)
    assert notice is not None
    assert (notice.confirmed_reclaim, notice.chosen_disruption) == (False, True)


def test_the_autoscalers_own_deletion_is_chosen_without_any_event() -> None:
    notice = notice_of(tainted("ToBeDeletedByClusterAutoscaler"), None, NOW)
    assert notice is not None
    assert notice.chosen_disruption


def test_a_confirmed_reclaim_outranks_a_chosen_disruption() -> None:
    node = make_node(
        taints=(Taint(key="karpenter.sh/disrupted"),),
        event_reasons=frozenset({"SpotInterrupted", "DisruptionTerminating"}),
    )
    notice = notice_of(node, None, NOW)
    assert notice is not None
    assert (notice.confirmed_reclaim, notice.chosen_disruption) == (True, False)


def test_a_withdrawn_notice_is_still_remembered() -> None:
    first = notice_of(tainted("karpenter.sh/disrupted"), None, NOW)
    assert notice_of(make_node(), first, NOW + seconds(60)) == first
