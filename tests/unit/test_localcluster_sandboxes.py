"""What a sandbox will do is data, so most of a cluster can be checked without one."""

import subprocess
from pathlib import Path

from localcluster import ClusterConfig, NodeSpec
from localcluster.control_plane import control_plane_spec, corefile, first_objects
from localcluster.node import kubelet_config, node_sandbox, pod_network, shutdown_socket
from localcluster.paths import cluster_paths
from localcluster.sandbox import ONCE_NOT_HELD, SandboxSpec
from localcluster.state import ClusterState, NodeRecord

PATHS = cluster_paths("x", Path("/cache"))
BINARIES = Path("/bin/kube")


def test_a_spec_survives_the_way_to_the_sandbox() -> None:
    spec = node_sandbox(PATHS, NodeSpec("a"), 3, BINARIES, [Path("/cache")])
    assert SandboxSpec.from_json(spec.to_json()) == spec


def test_the_light_mode_runs_no_dns() -> None:
    def names(config: ClusterConfig) -> list[str]:
        return [program.name for program in control_plane_spec(PATHS, config, BINARIES, []).programs]

    light = names(ClusterConfig.control_plane_only())
    assert light == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert names(ClusterConfig()) == [*light, "coredns"]


def test_the_settings_reach_the_components() -> None:
    config = ClusterConfig(node_monitor_grace_seconds=7, unreachable_toleration_seconds=11)
    programs = {p.name: p.argv for p in control_plane_spec(PATHS, config, BINARIES, []).programs}
    assert "--node-monitor-grace-period=7s" in programs["kube-controller-manager"]
    assert "--default-unreachable-toleration-seconds=11" in programs["kube-apiserver"]
    assert "--default-not-ready-toleration-seconds=11" in programs["kube-apiserver"]


def test_nodes_hide_the_paths_that_they_would_share_with_the_machine() -> None:
    spec = node_sandbox(PATHS, NodeSpec("a"), 1, BINARIES, [])
    assert set(spec.private) == {"/tmp", "/run", "/var/lib", "/var/log"}
    assert all(
        source.startswith(("/cache/", "/run/spot-localcluster/x/")) for source in spec.private.values()
    )


def test_pods_of_two_nodes_have_different_addresses() -> None:
    subnets = [pod_network(index)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] for index in (1, 2)]
    assert subnets == ["10.244.1.0/24", "10.244.2.0/24"]


def test_the_kubelet_registers_with_the_nodes_taints_below_the_clusters_cgroup() -> None:
    config = kubelet_config(PATHS, NodeSpec("a"))
    assert config["registerWithTaints"] == [
        {"key": "spottraining.io/spot", "value": "true", "effect": "NoSchedule"}
    ]
    assert config["cgroupRoot"] == "/spot-localcluster-x/a"


def test_only_a_machine_that_shuts_down_gracefully_is_told_of_a_shutdown() -> None:
    plain, graceful = NodeSpec("a"), NodeSpec("a", graceful_shutdown=True)
    assert "shutdownGracePeriod" not in kubelet_config(PATHS, plain)
    assert kubelet_config(PATHS, graceful)["shutdownGracePeriod"] == "30s"

    def names(node: NodeSpec) -> list[str]:
        return [program.name for program in node_sandbox(PATHS, node, 1, BINARIES, []).programs]

    assert names(graceful) == ["containerd", "logind", "kubelet", "kube-proxy"]
    assert names(plain) == ["containerd", "kubelet", "kube-proxy"]


def test_a_program_that_is_held_starts_when_it_is_let_go(tmp_path: Path) -> None:
    hold, made = tmp_path / "hold", tmp_path / "made"
    hold.touch()
    child = subprocess.Popen([*ONCE_NOT_HELD, str(hold), "touch", str(made)])
    assert not made.exists()
    hold.unlink()
    assert child.wait(timeout=10) == 0
    assert made.exists()


def test_socket_paths_fit_into_the_kernels_limit() -> None:
    longest = cluster_paths("c" * 20, Path("/cache"))
    socket = longest.node_run("n" * 20) / "containerd" / "containerd.sock.ttrpc"
    assert len(str(socket)) < 108
    assert len(str(shutdown_socket(longest, "n" * 20))) < 108


def test_dns_forwards_nothing_to_the_machine() -> None:
    assert "forward" not in corefile(PATHS)


def test_dns_has_the_address_that_pods_are_told() -> None:
    (service,) = (body for body in first_objects() if body["kind"] == "Service")
    assert service["spec"]["clusterIP"] == "10.96.0.10"
    assert kubelet_config(PATHS, NodeSpec("a"))["clusterDNS"] == ["10.96.0.10"]


def test_a_freed_index_is_used_again() -> None:
    state = ClusterState("/bin", nodes={"a": NodeRecord(NodeSpec("a"), 1), "c": NodeRecord(NodeSpec("c"), 3)})
    assert state.free_index() == 2
