"""One test for each row of the classification table (docs/how-it-works.md), on a real API server.

Each stages what the row describes, by writing Node, Pod and Event objects as their controllers do,
and looks at the verdict that the operator, a process of its own, writes into the job's status.
Row 3's Workload and rows about several pods cannot be staged here.
"""

from __future__ import annotations

import pytest
from operator_scene import wait_for
from staging import Stages

pytestmark = pytest.mark.api


def test_row_00_suspension_is_the_operators_own_stop(stages: Stages) -> None:
    stage = stages()
    stage.patch_job({"suspend": True})
    stage.wait_stopping()
    stage.end(75, "stopped")
    stage.expect("Requested", "0")
    wait_for("Suspended", lambda: stage.condition("Suspended").get("status") == "True")


def test_row_01_complete_whatever_the_phase(stages: Stages) -> None:
    stage = stages()
    stage.taint("aws-node-termination-handler/spot-itn")
    stage.wait_stopping()
    stage.end(0, "complete")
    wait_for("Complete", lambda: stage.condition("Complete").get("status") == "True")
    assert stage.restarts() == []


def test_row_02_out_of_memory(stages: Stages) -> None:
    stage = stages()
    stage.end(137, reason="OOMKilled")
    stage.expect("OutOfMemory", "2")
    stage.expect_next_pod()


def test_row_03_kueues_preemption(stages: Stages) -> None:
    stage = stages()
    stage.disrupt("Preempted", type_="TerminationTarget")
    stage.delete_pod()
    stage.end(143)
    stage.expect("SchedulerPreemption", "3")


@pytest.mark.parametrize("reason", ["PreemptionByScheduler", "PreemptionByKubeScheduler"])
def test_row_04_scheduler_preemption(stages: Stages, reason: str) -> None:
    stage = stages()
    stage.disrupt(reason)
    stage.delete_pod()
    stage.end(75, "stopped")
    stage.expect("SchedulerPreemption", "4")
    stage.expect_next_pod()


@pytest.mark.parametrize(
    "key",
    [
        "aws-node-termination-handler/spot-itn",
        "aks-node-termination-handler/preempt",
        "cloud.google.com/impending-node-termination",
        "ignore-taint.cluster-autoscaler.kubernetes.io/oke-impending-node-termination",
        "cloudprovider.azure.microsoft.com/draining",
    ],
)
def test_row_05_confirmed_reclaim_by_taint(stages: Stages, key: str) -> None:
    stage = stages()
    stage.taint(key)
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("Interruption", "5")
    stage.expect_next_pod()


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        ("PreemptionScheduled", ""),
        ("PreemptScheduled", ""),
        ("GCESpotPreempting", ""),
        ("VMEventScheduled", "Preempt Scheduled: in 30 s"),
    ],
)
def test_row_05_confirmed_reclaim_by_condition(stages: Stages, type_: str, message: str) -> None:
    stage = stages()
    stage.node_condition(type_, "True", message)
    stage.wait_stopping(2)
    stage.end(143)
    stage.expect("Interruption", "5")


@pytest.mark.parametrize(
    "event", ["SpotInterrupted", "SpotInterruption", "PreemptScheduled", "ImpendingNodeTermination"]
)
def test_row_05_confirmed_reclaim_by_event(stages: Stages, event: str) -> None:
    """The taint alone does not tell a reclaim from consolidation; the Event does."""
    stage = stages()
    stage.node_event(event)
    stage.taint("karpenter.sh/disrupted")
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("Interruption", "5")


@pytest.mark.parametrize("reason", ["Terminated", "NodeShutdown", "Shutdown"])
def test_row_06_node_shutdown_said_by_the_pod(stages: Stages, reason: str) -> None:
    stage = stages()
    said = "Pod was terminated in response to imminent node shutdown."
    stage.end(143, status_reason=reason, message=said)
    stage.expect("Interruption", "6")


def test_row_06_node_shutdown_said_by_the_node(stages: Stages) -> None:
    stage = stages()
    stage.node_condition("Ready", "False", "[container runtime is down, node is shutting down]")
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("Interruption", "6")


def test_row_06_node_shutdown_of_an_on_demand_node_is_maintenance(stages: Stages) -> None:
    stage = stages(on_demand=True)
    stage.node_condition("Ready", "False", "node is shutting down")
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("NodeLost", "6")


@pytest.mark.parametrize(
    "key",
    ["karpenter.sh/disrupted", "karpenter.sh/disruption", "remediator.kubernetes.azure.com/unschedulable"],
)
def test_row_07_probable_reclaim(stages: Stages, key: str) -> None:
    stage = stages()
    stage.taint(key)
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("Interruption", "7")


def test_row_07_an_eviction_turns_into_a_reclaim_when_its_spot_node_vanishes(stages: Stages) -> None:
    stage = stages()
    stage.evict()
    stage.wait_stopping()
    stage.end(75, "stopped")
    stage.expect("VoluntaryEviction", "8")
    stage.remove_node()
    wait_for("upgrade", lambda: stage.restarts()[0]["cause"] == "Interruption")
    assert (stage.restarts()[0]["row"], stage.status()["restarts"]["interruptions"]) == ("7", 1)
    assert len(stage.restarts()) == 1


def test_row_08_eviction_of_a_pod_whose_node_survives(stages: Stages) -> None:
    stage = stages()
    stage.evict()
    stage.wait_stopping()
    stage.end(75, "stopped")
    stage.expect("VoluntaryEviction", "8")
    stage.expect_next_pod()


@pytest.mark.parametrize(
    ("key", "event"),
    [
        ("ToBeDeletedByClusterAutoscaler", ""),
        ("ToBeDeletedByClusterAutoscaler", "ScaleDown"),
        ("karpenter.sh/disrupted", "DisruptionTerminating"),
    ],
)
def test_row_08_a_disruption_that_the_cluster_chose(stages: Stages, key: str, event: str) -> None:
    stage = stages()
    if event:
        stage.node_event(event)
    stage.taint(key)
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("VoluntaryEviction", "8")


@pytest.mark.parametrize(("is_disrupted", "cause"), [(True, "VoluntaryEviction"), (False, "Interruption")])
def test_row_08_what_karpenters_claim_says_of_the_disruption(
    stages: Stages, is_disrupted: bool, cause: str
) -> None:
    stage = stages()
    stage.give_claim(is_disrupted=is_disrupted)
    stage.taint("karpenter.sh/disrupted")
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect(cause, "8" if is_disrupted else "7")


def test_row_08_a_drain_of_an_on_demand_node(stages: Stages) -> None:
    stage = stages(on_demand=True)
    stage.taint("karpenter.sh/disrupted")
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("VoluntaryEviction", "8")


@pytest.mark.parametrize(("on_demand", "cause"), [(False, "Interruption"), (True, "NodeLost")])
def test_row_09_node_object_gone(stages: Stages, on_demand: bool, cause: str) -> None:
    stage = stages(on_demand=on_demand, claims=True)
    stage.remove_node()
    stage.expect(cause, "9", seconds=5)
    stage.expect_next_pod(5)


def test_row_09_pod_garbage_collection(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.disrupt("DeletionByPodGC")
    stage.write_pod("Failed")
    stage.vanish()
    stage.expect("Interruption", "9")


@pytest.mark.parametrize(
    "key", ["node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown"]
)
def test_row_10_a_machine_that_is_off(stages: Stages, key: str) -> None:
    stage = stages()
    stage.node_condition("Ready", "Unknown", "Kubelet stopped posting node status.")
    stage.taint(key)
    stage.expect("NodeLost", "10")
    stage.expect_next_pod()


def test_row_10_taint_manager_on_a_node_out_of_reach(stages: Stages) -> None:
    stage = stages()
    stage.node_condition("Ready", "Unknown", "Kubelet stopped posting node status.")
    stage.taint("node.kubernetes.io/unreachable", "NoSchedule")
    stage.disrupt("DeletionByTaintManager")
    stage.end(137)
    stage.expect("NodeLost", "10")


def test_row_10_taint_manager_on_a_node_that_is_ready(stages: Stages) -> None:
    stage = stages()
    stage.disrupt("DeletionByTaintManager")
    stage.delete_pod()
    stage.end(143)
    stage.expect("VoluntaryEviction", "10")


def test_row_10_containers_that_a_kubelet_cannot_find_after_a_reboot(stages: Stages) -> None:
    stage = stages()
    stage.end(137, reason="ContainerStatusUnknown")
    stage.expect("NodeLost", "10")


def test_row_10_a_machine_that_was_booted_again(stages: Stages) -> None:
    stage = stages()
    stage.boot("first")
    stage.wait_status("gang boot id", lambda s: s["gang"]["pods"][0].get("bootID") == "first")
    stage.boot("second")
    stage.end(255, reason="Unknown")
    stage.expect("NodeLost", "10")


def test_row_10_node_lost_said_by_the_pod(stages: Stages) -> None:
    stage = stages()
    stage.end(137, status_reason="NodeLost")
    stage.expect("NodeLost", "10")


def test_row_11_device_taint(stages: Stages) -> None:
    stage = stages()
    stage.disrupt("DeletionByDeviceTaintManager")
    stage.delete_pod()
    stage.end(143)
    stage.expect("NodeLost", "11")


@pytest.mark.parametrize(
    ("type_", "status"),
    [("XIDErrors", "True"), ("GPUMissing", "True"), ("AcceleratedHardwareReady", "False")],
)
def test_row_11_broken_gpu_said_by_the_node(stages: Stages, type_: str, status: str) -> None:
    stage = stages()
    stage.node_condition(type_, status)
    stage.end(1)
    stage.expect("NodeLost", "11")
    avoided = [each["value"] for each in stage.status()["avoid"]]
    assert avoided == [stage.node]


@pytest.mark.parametrize("reason", ["Evicted", "Preempting"])
def test_row_12_node_pressure(stages: Stages, reason: str) -> None:
    stage = stages()
    stage.disrupt("TerminationByKubelet")
    stage.end(137, status_reason=reason)
    stage.expect("NodePressure", "12")


def test_row_13_its_own_limit(stages: Stages) -> None:
    stage = stages()
    stage.end(
        137, status_reason="Evicted", message='Usage of EmptyDir volume "scratch" exceeds the limit "1Gi".'
    )
    stage.expect("Failure", "13", charged=True)


@pytest.mark.parametrize(
    "reason",
    ["OutOfcpu", "OutOfnvidia.com/gpu", "NodeAffinity", "UnexpectedAdmissionError", "TaintToleration"],
)
def test_row_14_never_admitted(stages: Stages, reason: str) -> None:
    stage = stages()
    stage.write_pod("Pending", None, containerStatuses=None)
    stage.write_pod("Failed", None, reason=reason, message="Pod was rejected: staged", containerStatuses=None)
    stage.expect("Infrastructure", "14")
    stage.expect_next_pod()


def test_row_15_a_container_that_cannot_start(stages: Stages) -> None:
    stage = stages()
    stage.end(128, reason="StartError")
    stage.expect("Infrastructure", "15")


def test_row_16_a_deadline_in_the_template(stages: Stages) -> None:
    stage = stages()
    stage.end(143, status_reason="DeadlineExceeded")
    stage.expect("Failure", "16", charged=True)


def test_row_17_stopped_on_purpose_without_evidence(stages: Stages) -> None:
    stage = stages()
    stage.end(75, "stopped")
    stage.expect("Requested", "17")
    stage.expect_next_pod()


def test_row_17b_fenced(stages: Stages) -> None:
    stage = stages()
    stage.end(76, "fenced")
    stage.expect("Fenced", "17b")
    stage.expect_next_pod()


def test_row_17b_a_restart_cannot_help(stages: Stages) -> None:
    stage = stages()
    stage.end(78, "failed")
    wait_for("Failed", lambda: stage.condition("Failed").get("status") == "True")


@pytest.mark.parametrize("code", [137, 143])
def test_row_18_deleted_by_somebody(stages: Stages, code: int) -> None:
    stage = stages()
    stage.delete_pod()
    stage.end(code)
    stage.expect("VoluntaryEviction", "18")
    stage.expect_next_pod()


@pytest.mark.parametrize("code", [137, 143])
def test_row_19_killed_by_nobody_that_is_known(stages: Stages, code: int) -> None:
    stage = stages()
    stage.end(code)
    stage.expect("Failure", "21", charged=True)


@pytest.mark.parametrize("code", [2, 126, 127])
def test_row_20_a_command_that_cannot_work(stages: Stages, code: int) -> None:
    stage = stages()
    stage.end(code)
    found = wait_for("Failed", lambda: stage.condition("Failed"))
    assert found["reason"] == "InvalidCommand"


def test_row_20_a_rule_of_the_user(stages: Stages) -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    stage = stages(failurePolicy={"rules": rules})
    stage.end(42)
    found = wait_for("Failed", lambda: stage.condition("Failed"))
    assert found["reason"] == "PodFailurePolicy"


@pytest.mark.parametrize("code", [1, 134, 139])
def test_row_21_the_programs_own_failure(stages: Stages, code: int) -> None:
    stage = stages()
    stage.end(code)
    stage.expect("Failure", "21", charged=True)
    stage.expect_next_pod()


def test_row_21_a_node_that_dies_soon_after_takes_the_blame(stages: Stages) -> None:
    stage = stages(failurePolicy={"backoffLimit": 0})
    stage.end(1)
    stage.expect("Failure", "21", charged=True)
    stage.remove_node()
    wait_for("upgrade", lambda: not stage.restarts()[0]["charged"], 10)
    assert (stage.restarts()[0]["cause"], stage.restarts()[0]["row"]) == ("Interruption", "9")
    stage.expect_next_pod()


def test_row_21_the_limit_fails_the_job_when_the_node_has_outlived_it(stages: Stages) -> None:
    stage = stages(failurePolicy={"backoffLimit": 0})
    stage.end(1)
    found = wait_for("Failed", lambda: stage.condition("Failed"))
    assert found["reason"] == "BackoffLimitExceeded"


def test_row_22_exit_0_without_an_outcome_completes_after_a_while(stages: Stages) -> None:
    stage = stages()
    stage.end(0)
    assert stage.condition("Complete").get("status") != "True"
    wait_for("Complete", lambda: stage.condition("Complete").get("status") == "True", 15)


def test_row_22_exit_0_when_told_to_stop_is_not_done(stages: Stages) -> None:
    stage = stages()
    stage.delete_pod()
    stage.end(0)
    stage.expect("VoluntaryEviction", "22")
    stage.expect_next_pod()


def test_row_23_the_pod_disappeared(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.vanish()
    stage.expect("VoluntaryEviction", "23")
    stage.expect_next_pod()


def test_row_23_a_plain_pod_that_was_deleted_by_force_may_run_on(stages: Stages) -> None:
    """Its kubelet stops it in its own time, and nobody would tell."""
    stage = stages()
    stage.vanish()
    wait_for("reason", lambda: stage.condition("PodsReady").get("reason") == "WaitingForOldPod")
    assert stage.find_pod(2) is None
