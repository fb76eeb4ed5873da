"""What a user asks for is checked when it is said, not when a cluster fails on it."""

import pytest

from localcluster import CapacityType, ClusterConfig, LocalClusterError, NodeSpec, Taint


def test_a_node_is_parsed_from_name_and_capacity_type() -> None:
    assert NodeSpec.parse("a:on-demand") == NodeSpec("a", CapacityType.ON_DEMAND)
    assert NodeSpec.parse("a") == NodeSpec("a", CapacityType.SPOT)


@pytest.mark.parametrize("text", ["a:cheap", "A:spot", "-a", "", "a_b:spot", "x" * 21])
def test_a_bad_node_is_refused(text: str) -> None:
    with pytest.raises(LocalClusterError):
        NodeSpec.parse(text)


def test_spot_machines_are_tainted_and_others_are_not() -> None:
    assert NodeSpec("a").all_taints() == (Taint("spottraining.io/spot", "true", "NoSchedule"),)
    assert NodeSpec("a", CapacityType.ON_DEMAND).all_taints() == ()
    assert NodeSpec("a", taints=()).all_taints() == ()


def test_own_labels_win_over_the_default_ones() -> None:
    labels = NodeSpec("a", labels={"topology.kubernetes.io/zone": "z", "x": "y"}).all_labels()
    assert labels["topology.kubernetes.io/zone"] == "z"
    assert labels["x"] == "y"
    assert labels["karpenter.sh/capacity-type"] == "spot"


@pytest.mark.parametrize(
    ("text", "taint"),
    [
        ("a=b:NoSchedule", Taint("a", "b", "NoSchedule")),
        ("a.io/b:NoExecute", Taint("a.io/b", "", "NoExecute")),
    ],
)
def test_a_taint_is_parsed_from_kubectls_notation(text: str, taint: Taint) -> None:
    assert Taint.parse(text) == taint


@pytest.mark.parametrize("text", ["a", "a=b", ":NoSchedule", "a:Never"])
def test_a_bad_taint_is_refused(text: str) -> None:
    with pytest.raises(LocalClusterError, match="expected KEY"):
        Taint.parse(text)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(LocalClusterError, match="same name"):
        ClusterConfig(nodes=(NodeSpec("a"), NodeSpec("a")))


def test_an_unknown_image_is_refused() -> None:
    with pytest.raises(LocalClusterError, match="'operater'"):
        ClusterConfig(images=("operater",))


def test_the_light_mode_has_no_nodes_and_no_s3() -> None:
    light = ClusterConfig.control_plane_only("x")
    assert (light.name, light.nodes, light.s3) == ("x", (), False)
