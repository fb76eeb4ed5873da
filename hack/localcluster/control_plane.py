"""The control plane as data: which programs run, with which flags and files, and what the API holds first."""

from pathlib import Path
from typing import Any

from localcluster.fabric import (
    DNS_SERVICE,
    FABRIC_SYSCTLS,
    GATEWAY,
    SERVICE_CIDR,
    fabric_setup,
)
from localcluster.paths import ClusterPaths
from localcluster.sandbox import Program, SandboxSpec
from localcluster.spec import ClusterConfig
from localcluster.supervision import FABRIC

API_PORT = 443
_ETCD = "http://127.0.0.1:2379"


def control_plane_spec(
    paths: ClusterPaths, config: ClusterConfig, binaries: Path, keep: list[Path]
) -> SandboxSpec:
    """The sandbox that holds the network's bridge and the control plane."""
    flags = {
        "etcd": _etcd_flags(paths),
        "kube-apiserver": _apiserver_flags(paths, config),
        "kube-controller-manager": _controller_manager_flags(paths, config),
        "kube-scheduler": _scheduler_flags(paths),
    }
    for name, more in config.flags.items():
        flags[name] |= more
    if config.nodes:
        flags["coredns"] = {"conf": str(paths.data / "Corefile")}
    programs = [
        Program(
            name=name,
            argv=[str(binaries / name), *(_flag(name, key, value) for key, value in options.items())],
            log=str(paths.logs / f"{name}.log"),
            hold_path=str(paths.hold(FABRIC, name)),
        )
        for name, options in flags.items()
    ]
    return SandboxSpec(
        hostname="control-plane",
        # SeaweedFS names its sockets in /tmp by port, which two clusters have in common.
        private={"/tmp": str(paths.data / "tmp")},
        keep=[str(path) for path in keep],
        programs=programs,
        setup=fabric_setup(),
        sysctls=FABRIC_SYSCTLS,
    )


def _flag(program: str, key: str, value: str) -> str:
    dashes = "-" if program == "coredns" else "--"
    return f"{dashes}{key}={value}"


def _etcd_flags(paths: ClusterPaths) -> dict[str, str]:
    return {
        "data-dir": str(paths.data / "etcd"),
        "listen-client-urls": _ETCD,
        "advertise-client-urls": _ETCD,
        "listen-peer-urls": "http://127.0.0.1:2380",
        # The data lives as long as the cluster: no need to survive a power failure.
        "unsafe-no-fsync": "true",
    }


def _apiserver_flags(paths: ClusterPaths, config: ClusterConfig) -> dict[str, str]:
    pki, toleration = paths.pki, str(config.unreachable_toleration_seconds)
    return {
        "etcd-servers": _ETCD,
        "secure-port": str(API_PORT),
        "advertise-address": GATEWAY,
        "client-ca-file": f"{pki}/ca.crt",
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-signing-key-file": f"{pki}/service-accounts.key",
        "service-account-key-file": f"{pki}/service-accounts.pub",
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "kubelet-client-certificate": f"{pki}/kubelet-client.crt",
        "kubelet-client-key": f"{pki}/kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "default-not-ready-toleration-seconds": toleration,
        "default-unreachable-toleration-seconds": toleration,
    }


def _controller_manager_flags(paths: ClusterPaths, config: ClusterConfig) -> dict[str, str]:
    pki = paths.pki
    return {
        "kubeconfig": f"{pki}/controller-manager.kubeconfig",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": f"{pki}/service-accounts.key",
        "root-ca-file": f"{pki}/ca.crt",
        "cluster-signing-cert-file": f"{pki}/ca.crt",
        "cluster-signing-key-file": f"{pki}/ca.key",
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "node-monitor-period": "2s",
        "node-monitor-grace-period": f"{config.node_monitor_grace_seconds}s",
        "flex-volume-plugin-dir": str(paths.data / "volume-plugins"),
        "kube-api-qps": "200",
        "kube-api-burst": "400",
    }


def _scheduler_flags(paths: ClusterPaths) -> dict[str, str]:
    return {
        "kubeconfig": f"{paths.pki}/scheduler.kubeconfig",
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
    }


def corefile(paths: ClusterPaths) -> str:
    """Names of the cluster only: nothing is forwarded, because nothing leaves the sandbox."""
    return f""".:53 {{
    bind {GATEWAY}
    errors
    health 127.0.0.1:18080
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {paths.pki}/coredns.kubeconfig
        ttl 5
    }}
}}
"""


def first_objects() -> list[dict[str, Any]]:
    """What a provider sets up in a new cluster: rights of the components, and the DNS service."""
    return [
        _cluster_role_binding(
            "local-cluster:apiserver-to-kubelet",
            "system:kubelet-api-admin",
            "kube-apiserver-kubelet-client",
        ),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "local-cluster:coredns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        _cluster_role_binding("local-cluster:coredns", "local-cluster:coredns", "system:coredns"),
        *external_service(
            "kube-system",
            "kube-dns",
            [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP")],
            address=DNS_SERVICE,
        ),
    ]


def _cluster_role_binding(name: str, role: str, user: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


def external_service(
    namespace: str, name: str, ports: list[tuple[str, int, str]], *, address: str | None = None
) -> list[dict[str, Any]]:
    """A Service whose only endpoint is the control plane's machine; ports are (name, port, protocol)."""
    listed = [{"name": key, "port": port, "protocol": protocol} for key, port, protocol in ports]
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": listed} | ({"clusterIP": address} if address else {}),
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-local-cluster",
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "local-cluster",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [GATEWAY], "conditions": {"ready": True}}],
        "ports": listed,
    }
    return [service, endpoints]
