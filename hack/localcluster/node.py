"""One machine as data: containerd, kubelet and kube-proxy with their own view of the constant paths.

Inside, a node looks like any other: /var/lib/kubelet, /var/lib/containerd,
/run/containerd and port 10250 are where every tool expects them. Outside, they
are directories of the cluster, so that nodes do not clash with each other or
with a container runtime of the machine.
"""

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from localcluster.fabric import DNS_SERVICE, NODE_SYSCTLS, node_address, node_setup, pod_cidr
from localcluster.paths import ClusterPaths
from localcluster.sandbox import Program, SandboxSpec
from localcluster.shutdown import BUS_SOCKET, SHUTDOWN_SOCKET
from localcluster.spec import NodeSpec

PAUSE_IMAGE = "localhost/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_CNI_PLUGINS = "/usr/lib/cni"
_MAX_PODS = 60
SHUTDOWN_GRACE_SECONDS, SHUTDOWN_GRACE_CRITICAL_SECONDS = 30, 15
"""As GKE sets it: from the notice to the end, and how much of it is kept for critical pods."""


def write_node_files(paths: ClusterPaths, node: NodeSpec, index: int) -> None:
    """The configuration files that the node's programs read."""
    etc = paths.node_data(node.name) / "etc"
    (etc / "cni").mkdir(parents=True, exist_ok=True)
    (etc / "resolv.conf").write_text("")
    (etc / "boot-id").write_text(f"{uuid.uuid4()}\n")
    (etc / "containerd.toml").write_text(containerd_config(etc))
    (etc / "cni" / "10-pods.conflist").write_text(json.dumps(pod_network(index), indent=1))
    kubelet = kubelet_config(paths, node)
    (etc / "kubelet.json").write_text(json.dumps(kubelet, indent=1))
    (etc / "kube-proxy.json").write_text(json.dumps(proxy_config(paths, node), indent=1))


def node_sandbox(
    paths: ClusterPaths, node: NodeSpec, index: int, binaries: Path, keep: list[Path]
) -> SandboxSpec:
    """The node's process 1 and its three programs; `keep` stays visible below private directories."""
    data, logs = paths.node_data(node.name), paths.logs / node.name
    etc = data / "etc"
    kubelet = [
        str(binaries / "kubelet"),
        f"--config={etc}/kubelet.json",
        f"--kubeconfig={paths.pki}/node-{node.name}.kubeconfig",
        f"--hostname-override={node.name}",
        f"--node-ip={node_address(index)}",
        "--node-labels=" + ",".join(f"{k}={v}" for k, v in node.all_labels().items()),
    ]
    return SandboxSpec(
        hostname=node.name,
        private={
            "/tmp": str(data / "tmp"),
            "/run": str(paths.node_run(node.name)),
            "/var/lib": str(data / "lib"),
            "/var/log": str(data / "log"),
        },
        keep=[str(path) for path in keep],
        # Without servers in it, a look-up of a missing image fails at once instead of leaving the sandbox.
        files={
            "/etc/resolv.conf": str(etc / "resolv.conf"),
            # Every time a machine is switched on it has another one, though all share one kernel.
            "/proc/sys/kernel/random/boot_id": str(etc / "boot-id"),
        },
        interface="eth0",
        setup=[*node_setup(index), ["mkdir", "-p", "/var/lib/kubelet", "/run/netns"]],
        sysctls=NODE_SYSCTLS,
        programs=[
            Program(
                "containerd",
                ["containerd", "--config", str(etc / "containerd.toml")],
                str(logs / "containerd.log"),
                ready_path=CONTAINERD_SOCKET,
                hold_path=str(paths.hold(node.name, "containerd")),
            ),
            *([_logind(logs)] if node.graceful_shutdown else []),
            Program(
                "kubelet",
                kubelet,
                str(logs / "kubelet.log"),
                hold_path=str(paths.hold(node.name, "kubelet")),
            ),
            Program(
                "kube-proxy",
                [str(binaries / "kube-proxy"), f"--config={etc}/kube-proxy.json"],
                str(logs / "kube-proxy.log"),
            ),
        ],
    )


def _logind(logs: Path) -> Program:
    argv = [sys.executable, "-m", "localcluster.logind", f"--delay-seconds={SHUTDOWN_GRACE_SECONDS}"]
    return Program("logind", argv, str(logs / "logind.log"), ready_path=BUS_SOCKET)


def shutdown_socket(paths: ClusterPaths, node: str) -> Path:
    """Where the node's stand-in for logind is asked for a shutdown, from outside."""
    return paths.node_run(node) / Path(SHUTDOWN_SOCKET).relative_to("/run")


def containerd_config(etc: Path) -> str:
    """containerd 1.6 and later 1.x; cgroups by path, because there is no systemd in the sandbox."""
    adjustable = os.access("/proc/self/oom_score_adj", os.W_OK) and _may_lower_oom_score()
    return f"""version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {str(not adjustable).lower()}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = "{etc}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _may_lower_oom_score() -> bool:
    """CAP_SYS_RESOURCE (bit 24), which some containers and virtual machines lack even for root."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


def pod_network(index: int) -> dict[str, Any]:
    """A cable per pod and routes, no bridge: replies then always pass the node's connection tracking.

    With a bridge, a service whose pod is on the same node needs the br_netfilter
    module, which would have to be loaded into the machine's kernel.
    """
    plugin = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": pod_cidr(index)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}


def kubelet_config(paths: ClusterPaths, node: NodeSpec) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{paths.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "registerWithTaints": [taint.to_json() for taint in node.all_taints()],
        "maxPods": _MAX_PODS,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "readOnlyPort": 0,
        # The nodes share one machine: no limits between them, and cgroups below an own parent.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.cgroup}/{node.name}",
        "enforceNodeAllocatable": ["none"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        # A nearly full disk of the developer must not evict pods.
        "evictionHard": dict.fromkeys(
            ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"
        ),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "syncFrequency": "10s",
    } | (
        {
            "shutdownGracePeriod": f"{SHUTDOWN_GRACE_SECONDS}s",
            "shutdownGracePeriodCriticalPods": f"{SHUTDOWN_GRACE_CRITICAL_SECONDS}s",
        }
        if node.graceful_shutdown
        else {}
    )


def proxy_config(paths: ClusterPaths, node: NodeSpec) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": f"{paths.pki}/proxy.kubeconfig"},
        # The connection tracking table's size belongs to the machine, not to the node.
        "conntrack": {"maxPerCore": 0},
        "nftables": {"syncPeriod": "10s", "minSyncPeriod": "100ms"},
    }
