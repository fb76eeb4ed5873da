"""The gateway and the machines keep their hardware addresses whatever joins or leaves the network."""

from localcluster.fabric import BRIDGE_MAC, fabric_setup, node_mac


def test_the_bridge_has_an_address_of_its_own() -> None:
    """Otherwise the death of one machine cut all others off, and Kubernetes took them for dead."""
    added = next(words for words in fabric_setup() if words[:3] == ["ip", "link", "add"])
    assert added[added.index("address") + 1] == BRIDGE_MAC


def test_a_machine_that_comes_back_has_the_address_that_its_neighbours_remember() -> None:
    assert node_mac(11) == node_mac(11)
    assert len({BRIDGE_MAC, *(node_mac(index) for index in range(1, 201))}) == 201
