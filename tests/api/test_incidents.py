"""What has gone wrong in other projects, each as a test: named after the report of it.

The list is that of the field survey; what needs kubelets or queues of other projects is elsewhere
or cannot be staged.
"""

from __future__ import annotations

from typing import Any

import pytest
from operator_scene import wait_for
from staging import Stage, Stages, hold

pytestmark = pytest.mark.api

SPOT_ITN = "aws-node-termination-handler/spot-itn"


def test_skypilot_10155_a_node_that_is_not_ready_for_a_moment_recovers_nothing(stages: Stages) -> None:
    """A storm of recoveries followed from a moment in which nothing was known to be lost."""
    stage = stages(claims=True)
    for _ in range(3):
        stage.node_condition("Ready", "Unknown", "Kubelet stopped posting node status.")
        stage.beat()
    hold(2, lambda: not stage.is_stopping(), "a blip of the node stopped its pod")
    assert (stage.restarts(), stage.status()["incarnation"]) == ([], 1)


def test_skypilot_10021_what_to_avoid_survives_the_operators_restart(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    stage.expect_next_pod(3)
    avoided = [each["value"] for each in stage.status()["avoid"]]
    stages.operator.kill()
    stages.operator.start()
    stage.end(75, "stopped")
    stage.verdict(30)  # the killed one did not give its Lease back
    assert sorted(avoided) == sorted(each["value"] for each in stage.status()["avoid"])
    assert stage.node in avoided


def test_trainer_2045_the_budget_is_honoured(stages: Stages) -> None:
    stage = stages(failurePolicy={"backoffLimit": 1})
    stage.end(1)
    stage.verdict()
    stage.run_next()
    stage.end(1)
    found = wait_for("Failed", lambda: stage.condition("Failed"))
    assert found["reason"] == "BackoffLimitExceeded"
    assert stage.find_pod(3) is None


def test_karpenter_5250_a_notice_that_comes_and_goes_does_not_flap(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    stage.wait_stopping()
    for _ in range(3):
        stage.untaint()
        stage.taint(SPOT_ITN)
    stage.untaint()
    hold(2, lambda: stage.status()["incarnation"] <= 2, "more than one restart for one notice")


def test_jobset_576_a_pod_that_is_stuck_terminating_does_not_hold_its_job(stages: Stages) -> None:
    """Its kubelet is gone for good, and nobody removes the object."""
    stage = stages(claims=True)
    stage.delete_pod()
    stage.remove_node()
    stage.verdict(5)
    stage.expect_next_pod(5)


@pytest.mark.parametrize("reason", ["Terminated", "NodeShutdown", "Shutdown"])
def test_flyteplugins_354_every_spelling_of_a_shutdown_is_the_systems(stages: Stages, reason: str) -> None:
    stage = stages()
    said = "Pod was terminated in response to imminent node shutdown."
    stage.end(1, status_reason=reason, message=said)
    assert not stage.verdict()["charged"]


def test_marin_4339_out_of_memory_is_no_interruption(stages: Stages) -> None:
    stage = stages(failurePolicy={"outOfMemoryLimit": 1})
    for number in (1, 2):
        stage.end(137, reason="OOMKilled")
        assert stage.verdict()["cause"] == "OutOfMemory"
        if number == 1:
            stage.run_next()
    found = wait_for("Failed", lambda: stage.condition("Failed"))
    assert found["reason"] == "OutOfMemory"
    assert "memory limit" in found["message"]


def test_jobset_1117_an_eviction_by_the_queue_is_not_charged(stages: Stages) -> None:
    stage = stages(failurePolicy={"backoffLimit": 0})
    stage.disrupt("Preempted", type_="TerminationTarget")
    stage.delete_pod()
    stage.end(1)
    assert stage.verdict()["cause"] == "SchedulerPreemption"
    stage.expect_next_pod()


def test_kuberay_5211_two_attempts_of_a_plain_container_never_overlap(stages: Stages) -> None:
    stage = stages()
    stage.remove_node()
    hold(3, lambda: stage.find_pod(2) is None, "a successor was created beside a pod that may still run")
    found = stage.condition("PodsReady")
    assert found["reason"] == "WaitingForOldPod"


def test_kueue_15424_nothing_is_handed_over_where_kueue_counts_pods(stages: Stages) -> None:
    template = {
        "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team"}},
        "spec": {"containers": [{"name": "trainer", "image": "trainer"}]},
    }
    stage = stages(claims=True, template=template)
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    hold(1, lambda: stage.find_pod(2) is None, "a second pod beside one that Kueue has admitted")


def test_kuberay_3909_one_jobs_trouble_delays_no_other(stages: Stages) -> None:
    """Five jobs crash; the sixth is reclaimed and relaunched at once."""
    troubled = [stages(failurePolicy={"backoffLimit": 20}) for _ in range(5)]
    calm = stages(claims=True)
    for stage in troubled:
        stage.end(1)
    calm.taint(SPOT_ITN)
    calm.wait_stopping(2)
    calm.expect_next_pod(3)


def test_argo_cd_8586_a_job_that_is_complete_stays_complete(stages: Stages) -> None:
    stage = stages()
    stage.end(0, "complete")
    wait_for("Complete", lambda: stage.condition("Complete").get("status") == "True")
    stages.operator.kill()
    stages.operator.start()
    hold(2, lambda: stage.find_pod(2) is None, "a finished job was run again")


def test_trainer_3779_pods_that_are_removed_after_the_end_come_back_to_no_job(stages: Stages) -> None:
    """A TTL took the children of a finished job, and with what replaced them its budget began anew."""
    stage = stages(failurePolicy={"backoffLimit": 1})
    for _ in range(2):
        stage.end(1)
        stage.verdict()
        if len(stage.pods) == 1:
            stage.run_next()
    wait_for("Failed", lambda: stage.condition("Failed").get("status") == "True")
    counted = stage.status()["restarts"]
    stage.vanish()
    hold(2, lambda: stage.find_pod(3) is None, "a failed job was run again")
    assert (stage.status()["restarts"], stage.status()["phase"]) == (counted, "Failed")


def test_kueue_15255_a_drought_is_waited_out(stages: Stages) -> None:
    """Jobs were deactivated because spot had been away for too long."""
    stage = stages(claims=True, failurePolicy={"backoffLimit": 0})
    stage.taint(SPOT_ITN)
    stage.expect_next_pod(3)
    stage.end(75, "stopped")
    stage.remove_node()
    wait_for("no capacity", lambda: stage.condition("CapacityAvailable").get("reason") == "Unschedulable")
    pod = stage.find_pod(2)
    assert pod is not None
    hold(5, lambda: _still(stage, pod), "a drought ended or replaced a pod, or the job")
    stage.add_node()
    stage.run_next()
    assert stage.pods[-1]["metadata"]["uid"] == pod["metadata"]["uid"]


def _still(stage: Stage, pod: dict[str, Any]) -> bool:
    """Whether this very pod goes on asking, and nothing is held against the job."""
    found, status = stage.find_pod(2), stage.status()
    return (
        found is not None
        and found["metadata"]["uid"] == pod["metadata"]["uid"]
        and "deletionTimestamp" not in found["metadata"]
        and not status["restarts"]["failures"]
        and stage.condition("Failed").get("status") != "True"
    )


def test_kueue_13043_a_kubelet_that_is_not_ready_for_seconds_loses_no_pod(stages: Stages) -> None:
    stage = stages(claims=True)
    for message in ("PLEG is not healthy", "container runtime is down", "PLEG is not healthy"):
        stage.node_condition("Ready", "False", message)
        hold(1, lambda: not stage.is_stopping(), "a blip of the kubelet stopped its pod")
        stage.beat()
    assert (stage.restarts(), stage.status()["incarnation"]) == ([], 1)
