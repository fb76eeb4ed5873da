"""What is recorded: each scenario's pod, what is done to it, and how the operator has to judge it.

Invariant: a scenario does one thing to a pod that runs, and waits for what comes of it; between
two deeds there are seconds, because the moments that the API keeps have no fractions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcluster import ReclaimStyle
from recording.sequence import Expectation, Scenario
from recording.stage import Stage

PAUSE_SECONDS = 6.0
"""In a model that is slow to start a container, it runs by then as well."""
GARBAGE_SECONDS = 120.0
"""Longer than the pod garbage collector's patience and period."""
MAINTENANCE = "example.com/maintenance"


@dataclass(frozen=True)
class Play:
    scenario: Scenario
    act: Callable[[Stage], None]
    """From before the pod is created to when nothing more is to come."""


def _run(stage: Stage) -> None:
    stage.create_pod()
    stage.wait_pod(container="running")
    time.sleep(PAUSE_SECONDS)


def _evict(stage: Stage) -> None:
    _run(stage)
    stage.evict()
    stage.wait_pod(exists=False)


def _delete(stage: Stage) -> None:
    _run(stage)
    stage.delete_pod()
    stage.wait_pod(exists=False)


def _power_off(stage: Stage) -> None:
    _run(stage)
    stage.power_off()
    stage.wait_pod(disruption="True DeletionByTaintManager")
    time.sleep(PAUSE_SECONDS)
    stage.remove_node()
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _node_vanishes(stage: Stage) -> None:
    _run(stage)
    stage.power_off()
    time.sleep(PAUSE_SECONDS)
    stage.remove_node()
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _force_delete(stage: Stage) -> None:
    _run(stage)
    stage.force_delete()
    stage.wait_pod(exists=False)


def _node_reused(stage: Stage) -> None:
    """Another machine under the old name: it finds a pod that it has never run."""
    _run(stage)
    stage.power_off()
    time.sleep(PAUSE_SECONDS)
    stage.remove_node()
    stage.add_node()
    time.sleep(GARBAGE_SECONDS / 4)


def _reboot(stage: Stage) -> None:
    _run(stage)
    stage.reboot(seconds=5)
    time.sleep(GARBAGE_SECONDS / 4)


def _crash_then_vanish(stage: Stage) -> None:
    _crash(stage)
    time.sleep(PAUSE_SECONDS)
    stage.power_off()
    time.sleep(PAUSE_SECONDS)
    stage.remove_node()
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _partition(stage: Stage) -> None:
    _run(stage)
    stage.cut_off()
    stage.wait_pod(disruption="True DeletionByTaintManager")
    time.sleep(PAUSE_SECONDS)
    stage.plug_in()
    stage.wait_pod(exists=False)
    stage.wait_settled()


def _short_partition(stage: Stage) -> None:
    """The node is called unreachable, and is back before anybody gives its pods up."""
    _run(stage)
    stage.cut_off()
    stage.wait(lambda: stage.seen.node().get("ready") == "Unknown silent", "an unreachable node")
    time.sleep(PAUSE_SECONDS)
    stage.plug_in()
    stage.wait_settled()
    time.sleep(PAUSE_SECONDS)
    stage.end_program(1)
    stage.wait_pod(phase="Failed")


def _reclaim_like_karpenter(stage: Stage) -> None:
    _run(stage)
    stage.reclaim(ReclaimStyle.KARPENTER, notice_seconds=10, leave_when_empty=False)
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _reclaim_at_once(stage: Stage) -> None:
    _run(stage)
    stage.reclaim(ReclaimStyle.KARPENTER, notice_seconds=20, leave_when_empty=True)
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _drain_and_remove(stage: Stage) -> None:
    _run(stage)
    stage.reclaim(ReclaimStyle.CORDON_EVICT, notice_seconds=10, leave_when_empty=False)
    stage.wait_pod(GARBAGE_SECONDS, exists=False)


def _delete_unscheduled(stage: Stage) -> None:
    stage.create_pod()
    stage.wait_pod(scheduled="False Unschedulable")
    time.sleep(PAUSE_SECONDS)
    stage.delete_pod()
    stage.wait_pod(exists=False)


def _delete_before_start(stage: Stage) -> None:
    stage.create_pod()
    stage.wait_pod(container="waiting ContainerCreating")
    time.sleep(PAUSE_SECONDS)
    stage.delete_pod()
    stage.wait_pod(exists=False)


def _taint(stage: Stage) -> None:
    _run(stage)
    stage.taint(MAINTENANCE, "NoExecute")
    stage.wait_pod(exists=False)


def _preempt(stage: Stage) -> None:
    cpu = stage.cpu() - 0.2
    stage.create_pod(cpu=cpu)
    stage.wait_pod(container="running")
    time.sleep(PAUSE_SECONDS)
    stage.preempt(cpu)
    stage.wait_pod(exists=False)


def _out_of_memory(stage: Stage) -> None:
    _run(stage)
    stage.take_memory()
    stage.wait_pod(phase="Failed")


def _crash(stage: Stage) -> None:
    _run(stage)
    stage.end_program(1)
    stage.wait_pod(phase="Failed")


def _crash_then_delete(stage: Stage) -> None:
    _crash(stage)
    time.sleep(PAUSE_SECONDS)
    stage.delete_pod()
    stage.wait_pod(exists=False)


def _node_arrives(stage: Stage) -> None:
    stage.create_pod()
    stage.wait_pod(scheduled="False Unschedulable")
    time.sleep(PAUSE_SECONDS)
    stage.add_node()
    stage.wait_pod(container="running")
    stage.wait_settled()
    time.sleep(PAUSE_SECONDS)
    stage.end_program(0)
    stage.wait_pod(phase="Succeeded")


def _refused(stage: Stage) -> None:
    stage.create_pod(cpu=1000, scheduler="nobody")
    time.sleep(PAUSE_SECONDS)
    stage.bind()
    stage.wait_pod(phase="Failed")


def _play(name: str, about: str, cause: str, row: str, act: Callable[[Stage], None], **more: Any) -> Play:
    return Play(Scenario(name=name, about=about, expect=Expectation(cause, row), **more), act)


PLAYS = (
    _play("eviction", "the Eviction API", "VoluntaryEviction", "8", _evict),
    _play("deletion", "kubectl delete pod", "VoluntaryEviction", "18", _delete),
    _play(
        "deletion-exit-0",
        "kubectl delete pod; the program exits with 0 when it is told to stop",
        "VoluntaryEviction",
        "22",
        _delete,
        at_sigterm="exits with 0",
    ),
    _play(
        "deletion-ignored",
        "kubectl delete pod; the program goes on until the grace period is over",
        "VoluntaryEviction",
        "18",
        _delete,
        at_sigterm="goes on",
        grace_seconds=5,
    ),
    _play(
        "deletion-unbound",
        "kubectl delete pod, of one that has no node",
        "VoluntaryEviction",
        "23",
        _delete_unscheduled,
        has_node=False,
    ),
    _play(
        "deletion-creating",
        "kubectl delete pod, of one whose container is being created",
        "VoluntaryEviction",
        "18",
        _delete_before_start,
        is_stuck=True,
    ),
    _play(
        "power-off",
        "power off without notice; unreachable, taint manager, node deletion, pod garbage collector",
        "Interruption",
        "9",
        _power_off,
    ),
    _play(
        "node-vanishes",
        "power off, and the Node object goes before anybody calls it unreachable",
        "Interruption",
        "9",
        _node_vanishes,
    ),
    _play(
        "partition",
        "the network is cut until the taint manager has given up the pod, and comes back",
        "NodeLost",
        "10",
        _partition,
    ),
    _play(
        "partition-short",
        "the network is cut and comes back before the toleration is over; later the program fails",
        "Failure",
        "21",
        _short_partition,
        toleration_seconds=60,
    ),
    _play(
        "reclaim-karpenter",
        "as Karpenter reclaims: events, node deletion, taint, eviction, power off, the node goes",
        "Interruption",
        "5",
        _reclaim_like_karpenter,
    ),
    _play(
        "reclaim-empty",
        "as Karpenter reclaims, and the machine goes as soon as it is empty, before the pod object has gone",
        "Interruption",
        "5",
        _reclaim_at_once,
        is_race=True,
    ),
    _play(
        "drain-and-remove",
        "cordon and eviction, then power off and the node goes",
        "Interruption",
        "7",
        _drain_and_remove,
    ),
    _play("noexecute-taint", "a NoExecute taint on a healthy node", "VoluntaryEviction", "10", _taint),
    _play("preemption", "a pod of a higher priority needs the room", "SchedulerPreemption", "4", _preempt),
    _play("out-of-memory", "the program takes more than its limit", "OutOfMemory", "2", _out_of_memory),
    _play("crash", "the program exits with 1", "Failure", "21", _crash),
    _play("crash-then-deletion", "exit 1, and then kubectl delete pod", "Failure", "21", _crash_then_delete),
    _play(
        "crash-then-vanish",
        "exit 1, and soon afterwards the machine goes without a word",
        "Interruption",
        "9",
        _crash_then_vanish,
    ),
    _play(
        "deletion-forced",
        "kubectl delete pod --force --grace-period=0",
        "VoluntaryEviction",
        "23",
        _force_delete,
    ),
    _play(
        "node-reused",
        "power off, the node goes, and another machine comes under its name",
        "Interruption",
        "9",
        _node_reused,
        is_race=True,
    ),
    _play(
        "reboot",
        "the machine boots again and knows nothing of its pods; the node object stays",
        "NodeLost",
        "10",
        _reboot,
        is_race=True,
    ),
    _play(
        "node-arrives",
        "unschedulable until a node joins; the program finishes by itself",
        "Complete",
        "22",
        _node_arrives,
        has_node=False,
    ),
    _play("refused", "the kubelet has no room for a pod that was bound", "Infrastructure", "14", _refused),
)
