"""A cluster with the operator in it, as the demo and the end-to-end tests need it.

The operator comes from the chart, as a pod, as a user would install it. Invariant: nothing
here reaches around the chart; what the operator may do is what the chart's roles allow.
"""

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.jobs import DemoError, Jobs
from demo.manifests import BUCKET, CLAIM, OPERATOR_IMAGE, SCRIPT_CONFIG_MAP, script_config_map
from demo.streams import Streams
from localcluster import Cluster, ClusterConfig, LocalClusterError, Progress
from localcluster.api import ApiError
from localcluster.commands import CommandError
from localcluster.images import REPOSITORY
from localcluster.s3 import S3Access
from localcluster.state import ClusterState

RELEASE = "spot-training-operator"
OPERATOR_NAMESPACE = "spot-training-system"
CHART = REPOSITORY / "charts" / "spot-training-operator"
TRAINER_UID = 1000
ROLLOUT_SECONDS = 120


class Lab:
    """A running cluster and what the product needs in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @classmethod
    def up(cls, name: str, progress: Progress, *, owned: bool = True) -> "Lab":
        """Three nodes, S3, both images; if owned, it ends with this process, however that ends."""
        config = ClusterConfig(name=name, images=("operator", "trainer"), s3=True)
        return cls(Cluster.up(config, owned=owned, progress=progress))

    def install_operator(self, *settings: str) -> None:
        """`helm upgrade --install` from charts/ and wait until the operator serves."""
        repository, tag = OPERATOR_IMAGE, "dev"
        values = [f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=Never", *settings]
        words = [word for value in values for word in ("--set", value)]
        self.cluster.helm(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE,
            "--create-namespace", *words,
        )  # fmt: skip
        self.wait_for_operator()

    def wait_for_operator(self) -> None:
        try:
            self.cluster.kubectl(
                "rollout", "status", f"deployment/{RELEASE}", "--namespace", OPERATOR_NAMESPACE,
                f"--timeout={ROLLOUT_SECONDS}s",
            )  # fmt: skip
        except CommandError as error:
            warnings = self.cluster.kubectl(
                "get", "events", "--namespace", OPERATOR_NAMESPACE, "--field-selector=type=Warning",
                "--output=custom-columns=:.involvedObject.name,:.reason,:.message", "--no-headers",
            )  # fmt: skip
            raise LocalClusterError(f"{error}\nwarnings in {OPERATOR_NAMESPACE}:\n{warnings}") from error

    def operator_log(self, lines: int = 80) -> str:
        """The end of what the operator's pods have written."""
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        words = ("logs", "--namespace", OPERATOR_NAMESPACE, selector, f"--tail={lines}", "--prefix")
        return str(self.cluster.kubectl(*words))

    def make_namespace(self, namespace: str, *, bucket: str = BUCKET, volume: bool = False) -> Jobs:
        """A namespace in which the example's jobs find their script, credentials and claim."""
        with contextlib.suppress(ApiError):
            self.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        self.cluster.wait_for(
            lambda: self.cluster.api.exists(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"),
            what=f"service account of namespace {namespace}",
        )
        self.cluster.s3.create_bucket(bucket)
        self.cluster.s3.publish(self.cluster.api, namespace)
        self.cluster.kubectl(
            "apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(script_config_map())
        )
        if volume:
            self.cluster.shared_volume(namespace, CLAIM, owner_uid=TRAINER_UID)
        return Jobs(self.cluster, namespace)

    @property
    def s3_access(self) -> S3Access:
        return self.cluster.s3.access

    def streams(self) -> Streams:
        """Watches and followed logs of this cluster's API server."""
        port = ClusterState.load(self.cluster.paths).api_port
        return Streams(self.cluster.api, port, self.cluster.paths.pki)

    # ------------------------------------------------------------------ looking at pods from below

    def operator_pod(self) -> dict[str, Any]:
        """The operator's newest pod that is not going away."""
        selector = f"labelSelector=app.kubernetes.io%2Finstance%3D{RELEASE}"
        pods = self.cluster.api.get(f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods?{selector}")["items"]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not alive:
            raise DemoError(f"no pod of the operator in namespace {OPERATOR_NAMESPACE}")
        newest: dict[str, Any] = max(alive, key=lambda pod: pod["metadata"]["creationTimestamp"])
        return newest

    def container_pids(self, pod: Mapping[str, Any]) -> list[int]:
        """The machine's process ids of the pod's first container, its process 1 first."""
        status = pod["status"].get("containerStatuses", [{}])[0]
        container = status.get("containerID", "").rpartition("//")[2]
        if not container:
            raise DemoError(f"pod {pod['metadata']['name']} has no container yet")
        return processes_of(self.cluster.paths.cgroup, container)

    def kill_program(self, pod: Mapping[str, Any]) -> int:
        """`kill -9` of the container's process 1, from its node: the program dies, the pod is not deleted."""
        pids = self.container_pids(pod)
        if not pids:
            raise DemoError(f"pod {pod['metadata']['name']} has no running process")
        os.kill(pids[0], signal.SIGKILL)
        return pids[0]


def processes_of(cluster_cgroup: str, container: str) -> list[int]:
    """Processes of a container by its cgroup, under cgroup v1 (any hierarchy) or v2."""
    root = Path("/sys/fs/cgroup")
    parent = next((path for path in (root / "memory", root) if (path / cluster_cgroup).is_dir()), None)
    if parent is None:
        raise DemoError(f"no cgroup {cluster_cgroup} below {root}")
    for folder in (parent / cluster_cgroup).rglob(f"*{container}*"):
        pids = [int(word) for word in (folder / "cgroup.procs").read_text().split()]
        return sorted(pids, key=_pid_inside)
    return []


def _pid_inside(pid: int) -> int:
    """The process id in the container's own namespace."""
    with contextlib.suppress(OSError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 1 << 30


__all__ = ["CHART", "OPERATOR_NAMESPACE", "RELEASE", "SCRIPT_CONFIG_MAP", "Lab", "processes_of"]
