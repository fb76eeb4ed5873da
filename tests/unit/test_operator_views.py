"""API objects of the shapes that real servers send become views; odd ones lose facts, not the look."""

from datetime import UTC, datetime, timedelta

import pytest

from spot_operator.decide.signals import has_stop_signal
from spot_operator.model import ContainerTermination, PodCondition, Taint
from spot_operator.testing import NOW
from spot_operator.views import is_claim_disrupted, is_ending, node_view, pod_view, time_of


def make_pod(**status: object) -> dict:
    return {
        "metadata": {
            "name": "digits-3f2a1-7-0",
            "namespace": "team-a",
            "uid": "pod-uid",
            "creationTimestamp": "2026-11-23T10:00:00Z",
            "labels": {"spottraining.io/incarnation": "7", "spottraining.io/rank": "0"},
            "ownerReferences": [{"uid": "job-uid", "name": "digits", "controller": True}],
        },
        "spec": {"nodeName": "spot-1", "containers": [{"name": "sidecar"}, {"name": "trainer"}]},
        "status": status,
    }


def test_running_pod_with_sidecar_reports_the_trainer_container() -> None:
    pod = make_pod(
        phase="Running",
        containerStatuses=[
            {"name": "sidecar", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}},
            {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T10:00:07Z"}}},
        ],
    )
    view = pod_view(pod, "trainer")
    assert view.trainer.running_since == datetime(2026, 11, 23, 10, 0, 7, tzinfo=UTC)
    assert view.trainer.terminated is None
    assert (view.incarnation, view.rank, view.node_name) == (7, 0, "spot-1")
    assert view.started_any_container


@pytest.mark.parametrize(
    ("label", "of_job", "expected"),
    [
        ("trainer", "sidecar", "trainer"),
        ("trainer", None, "trainer"),
        (None, "trainer", "trainer"),
        (None, None, "sidecar"),
        ("renamed", "trainer", "trainer"),
    ],
)
def test_a_pods_trainer_is_the_one_that_it_was_created_with(
    label: str | None, of_job: str | None, expected: str
) -> None:
    """Whatever the job says by now; one of an earlier version does not tell, and a label can be edited."""
    pod = make_pod(
        phase="Running",
        containerStatuses=[
            {"name": "sidecar", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T10:00:07Z"}}},
        ],
    )
    if label is not None:
        pod["metadata"]["labels"]["spottraining.io/trainer-container"] = label
    view = pod_view(pod, of_job)
    assert view.trainer_container == expected
    assert (view.trainer.running_since is not None) is (expected == "trainer")


def test_pod_that_a_kubelet_shut_down_keeps_reason_condition_and_exit() -> None:
    pod = make_pod(
        phase="Failed",
        reason="Terminated",
        message="Pod was terminated in response to imminent node shutdown.",
        conditions=[
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "lastTransitionTime": "2026-11-23T10:05:00Z",
            }
        ],
        containerStatuses=[
            {
                "name": "trainer",
                "state": {
                    "terminated": {
                        "exitCode": 75,
                        "reason": "Error",
                        "message": '{"version":1}',
                        "finishedAt": "2026-11-23T10:04:59Z",
                    }
                },
            }
        ],
    )
    view = pod_view(pod, "trainer")
    finished = datetime(2026, 11, 23, 10, 4, 59, tzinfo=UTC)
    assert view.trainer.terminated == ContainerTermination(
        exit_code=75, reason="Error", message='{"version":1}', finished_at=finished
    )
    assert view.status_reason == "Terminated"
    assert view.condition("DisruptionTarget") == PodCondition(
        type="DisruptionTarget",
        status="True",
        reason="TerminationByKubelet",
        last_transition_time=datetime(2026, 11, 23, 10, 5, tzinfo=UTC),
    )


def test_pod_rejected_at_admission_has_started_nothing() -> None:
    view = pod_view(make_pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: ..."), "trainer")
    assert not view.started_any_container
    assert view.trainer.waiting_reason is None
    assert view.trainer.terminated is None


def test_image_that_cannot_be_pulled_is_a_waiting_reason() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    view = pod_view(
        make_pod(phase="Pending", containerStatuses=[{"name": "trainer", "state": {"waiting": waiting}}]),
        "trainer",
    )
    assert (view.trainer.waiting_reason, view.trainer.waiting_message) == (
        "ImagePullBackOff",
        "Back-off pulling image",
    )
    assert not view.started_any_container


def test_init_container_that_waits_for_its_turn_is_no_trouble() -> None:
    statuses = [
        {"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}},
        {"name": "b", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}},
    ]
    view = pod_view(make_pod(initContainerStatuses=statuses), "trainer")
    assert (view.init_waiting_reason, view.init_waiting_message) == ("ErrImagePull", "no such image")


def test_pod_without_status_is_pending() -> None:
    pod = make_pod()
    del pod["status"]
    view = pod_view(pod, None)
    assert view.phase == "Pending"
    assert view.conditions == ()


@pytest.mark.parametrize(
    "text", [None, "", "yesterday", "2026-11-23T10:00:00", 7, "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_rfc_3339_time_is_no_time(text: object) -> None:
    assert time_of(text) is None


def test_edited_label_does_not_change_the_incarnation() -> None:
    pod = make_pod()
    pod["metadata"]["labels"]["spottraining.io/incarnation"] = "99"
    assert pod_view(pod, "trainer").incarnation == 7


def make_node(heartbeat: str = "2026-11-23T10:00:00Z", **spec: object) -> dict:
    return {
        "metadata": {
            "name": "spot-1",
            "uid": "node-uid",
            "labels": {"topology.kubernetes.io/zone": "eu-1a", "karpenter.sh/capacity-type": "spot"},
        },
        "spec": spec,
        "status": {
            "nodeInfo": {"bootID": "boot-1"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "lastHeartbeatTime": heartbeat,
                    "lastTransitionTime": "2026-11-23T09:00:00Z",
                }
            ],
        },
    }


def test_node_view_has_zone_boot_id_and_taints() -> None:
    taint = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule", "timeAdded": "2026-11-23T10:00:00Z"}
    view = node_view(make_node(taints=[taint]))
    added = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert view.taints == (Taint(key="karpenter.sh/disrupted", effect="NoSchedule", time_added=added),)
    assert (view.zone, view.boot_id, view.uid) == ("eu-1a", "boot-1", "node-uid")
    assert has_stop_signal(view)


def test_heartbeat_alone_makes_no_other_view() -> None:
    assert node_view(make_node("2026-11-23T10:00:00Z")) == node_view(make_node("2026-11-23T10:00:10Z"))


def test_node_claim_of_a_node_is_its_owner_of_that_kind() -> None:
    owners = [{"kind": "Machine", "name": "m-1"}, {"kind": "NodeClaim", "name": "claim-1"}]
    node = {"metadata": {"name": "spot-1", "uid": "u", "ownerReferences": owners}}
    assert node_view(node).claim_name == "claim-1"
    assert node_view({"metadata": {"name": "spot-1", "uid": "u"}}).claim_name == ""


@pytest.mark.parametrize(
    ("status", "is_chosen"),
    [
        ({"conditions": [{"type": "DisruptionReason", "status": "True", "reason": "Drifted"}]}, True),
        ({"conditions": [{"type": "DisruptionReason", "status": "False"}]}, False),
        ({"conditions": [{"type": "Drifted", "status": "True"}]}, False),
        (None, False),
    ],
)
def test_claim_that_karpenter_chose_to_disrupt(status: object, is_chosen: bool) -> None:
    assert is_claim_disrupted({"status": status}) is is_chosen


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        ({}, False),
        ({"phase": "Failed"}, True),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True"}]}, True),
        ({"conditions": [{"type": "DisruptionTarget", "status": "False"}]}, False),
        ({"containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}, True),
        ({"containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}, False),
    ],
)
def test_pod_that_is_to_end_or_has_ended(change: dict, is_told: bool) -> None:
    assert is_ending(make_pod(**change)) is is_told
    going = make_pod(**change)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    assert is_ending(going)


def test_a_deletion_with_a_grace_period_that_leaves_the_calendar_still_has_a_time() -> None:
    """`kubectl delete pod --grace-period` takes any number, and the API server's own sum wraps around."""
    pod = make_pod(phase="Running")
    pod["metadata"] |= {
        "deletionTimestamp": "1783-05-02T10:00:00Z",
        "deletionGracePeriodSeconds": 2**62,
    }
    view = pod_view(pod, "trainer")
    assert view.deletion_timestamp is not None
    assert view.deletion_grace_seconds is not None
    assert view.deletion_timestamp - timedelta(seconds=view.deletion_grace_seconds) < NOW


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_at_the_end_of_the_calendar_can_be_reckoned_with(text: str) -> None:
    moment = time_of(text)
    assert moment is not None
    years = timedelta(days=36500)
    assert moment - years < moment < moment + years
