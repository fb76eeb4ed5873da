"""Where a pod was taken away the next one would rather not go, and may if there is nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.model import (
    Avoidance,
    AvoidKind,
    CheckpointSpec,
    CreatePod,
    Decision,
    GoneNode,
    Observation,
    PolicySettings,
    Taint,
    VolumeLocation,
)
from spot_operator.names import Cause
from spot_operator.testing import (
    NODE_UID,
    NOW,
    make_ended_pod,
    make_node,
    make_observation,
    make_spec,
    make_status,
    seconds,
)
from spot_operator.wire import status_from_json, status_to_json

SETTINGS = PolicySettings()
NODE, ZONE = AvoidKind.NODE, AvoidKind.ZONE
SPOT_ITN = Taint(key="aws-node-termination-handler/spot-itn", effect="NoSchedule")


def step(observation: Observation, *, after: float = 0) -> Decision:
    return decide(observation, NOW + seconds(after), SETTINGS)


def avoided(decision: Decision) -> dict[AvoidKind, tuple[str, float]]:
    found = decision.status.avoid
    return {each.kind: (each.value, (each.until - NOW).total_seconds()) for each in found}


def preferences(decision: Decision) -> Any:
    (create,) = (action for action in decision.actions if isinstance(action, CreatePod))
    affinity = create.manifest["spec"].get("affinity") or {}
    return (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution")


def not_in(key: str, *values: str, weight: int) -> dict[str, Any]:
    expression = {"key": key, "operator": "NotIn", "values": list(values)}
    return {"weight": weight, "preference": {"matchExpressions": [expression]}}


def test_a_reclaim_is_avoided_by_node_and_zone_from_the_very_next_pod_on() -> None:
    decision = step(make_observation(nodes={"spot-a": None}))
    assert avoided(decision) == {NODE: ("spot-a", 900), ZONE: ("zone-a", 600)}
    assert preferences(decision) == [
        not_in("kubernetes.io/hostname", "spot-a", weight=100),
        not_in("topology.kubernetes.io/zone", "zone-a", weight=50),
    ]
    assert status_from_json(status_to_json(decision.status)) == decision.status


def test_a_hand_over_does_not_wait_for_the_verdict() -> None:
    decision = step(make_observation(nodes={"spot-a": make_node(taints=(SPOT_ITN,))}))
    assert preferences(decision) is not None
    assert avoided(decision) == {NODE: ("spot-a", 900), ZONE: ("zone-a", 600)}


def test_a_scale_down_says_nothing_against_its_zone() -> None:
    taint = Taint(key="ToBeDeletedByClusterAutoscaler", effect="NoSchedule")
    decision = step(make_observation(nodes={"spot-a": make_node(taints=(taint,))}))
    assert avoided(decision) == {NODE: ("spot-a", 900)}


def test_the_zone_of_a_volume_is_never_avoided() -> None:
    spec = make_spec(checkpoint=CheckpointSpec(location=VolumeLocation(claim_name="c"), run_id="r"))
    assert avoided(step(make_observation(spec=spec, nodes={"spot-a": None}))) == {NODE: ("spot-a", 900)}
    data = {"spec": {"containers": [], "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}
    decision = step(make_observation(spec=make_spec(template=data), nodes={"spot-a": None}))
    assert avoided(decision) == {NODE: ("spot-a", 900)}


@pytest.mark.parametrize(
    ("pod", "cause", "kinds"),
    [
        ({"exit_code": 1}, Cause.FAILURE, set()),
        (
            {
                "exit_code": 137,
                "phase": "Failed",
                "status_reason": "OutOfcpu",
                "started_any_container": False,
            },
            Cause.INFRASTRUCTURE,
            {NODE},
        ),
    ],
)
def test_only_a_node_that_is_to_blame_is_avoided(
    pod: dict[str, Any], cause: Cause, kinds: set[AvoidKind]
) -> None:
    decision = step(make_observation(pods=(make_ended_pod(pod.pop("exit_code"), **pod),)))
    assert decision.status.recent_restarts[0].cause is cause
    assert set(avoided(decision)) == kinds


def test_what_is_over_is_forgotten_at_the_next_launch_and_the_templates_own_wish_stays() -> None:
    own = not_in("gpu", "old", weight=7)
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [own]}}
    spec = make_spec(template={"spec": {"containers": [{"name": "trainer"}], "affinity": affinity}})
    old = Avoidance(kind=NODE, value="spot-z", until=NOW - seconds(1))
    young = Avoidance(kind=NODE, value="spot-y", until=NOW + seconds(1))
    status = replace(make_status(avoid=(old, young)), gang=None)
    decision = step(make_observation(spec=spec, status=status, pods=(), nodes={}))
    assert [each.value for each in decision.status.avoid] == ["spot-y"]
    assert preferences(decision) == [own, not_in("kubernetes.io/hostname", "spot-y", weight=100)]


def test_a_node_that_is_named_again_is_avoided_anew() -> None:
    old = Avoidance(kind=NODE, value="spot-a", until=NOW + seconds(5))
    decision = step(make_observation(status=make_status(avoid=(old,)), nodes={"spot-a": None}))
    assert avoided(decision)[NODE] == ("spot-a", 900)
    assert len(decision.status.avoid) == 2


# --- the journal of nodes -------------------------------------------------------------------


def test_a_node_that_is_gone_is_judged_by_what_it_said_last() -> None:
    last = GoneNode(gone_time=NOW, view=make_node(taints=(SPOT_ITN,)), signal_time=NOW - seconds(20))
    observation = make_observation(nodes={"spot-a": None}, gone_nodes={NODE_UID: last})
    (restart,) = step(observation).status.recent_restarts
    assert (restart.row, restart.cause) == ("5", Cause.INTERRUPTION)
    (unknown,) = step(make_observation(nodes={"spot-a": None})).status.recent_restarts
    assert unknown.row == "9"


def test_the_journal_of_another_node_of_that_name_says_nothing() -> None:
    last = GoneNode(gone_time=NOW, view=make_node(taints=(SPOT_ITN,), uid="earlier"), signal_time=NOW)
    observation = make_observation(nodes={"spot-a": None}, gone_nodes={"earlier": last})
    (restart,) = step(observation).status.recent_restarts
    assert restart.row == "9"
