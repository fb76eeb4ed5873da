"""The cluster of the bench: a real control plane, pretended kubelets, the operator as its chart allows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from checkpoint.measure import say
from localcluster import Cluster, ClusterConfig
from localcluster.api import ApiError
from localcluster.cache import Cache
from localcluster.cleanup import remove_tree
from localcluster.fabric import GATEWAY
from localcluster.paths import ClusterPaths, cluster_paths
from localcluster.processes import children_of
from localcluster.progress import Progress
from operator_bench import audit, kwok, manifests
from operator_bench.api import Api
from operator_bench.audit import AuditLog, Request
from operator_bench.processes import CpuMeter, program_name
from operator_bench.replica import ACCOUNT, NAMESPACE, ROOT, USER, Replica, contained

RATE_FLAGS = {"kube-api-qps": "500", "kube-api-burst": "500"}
"""What the Job controller may ask of the API server; --concurrent-job-syncs stays at its default of 5."""
_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_NODE_GRACE_SECONDS = 3600
PODS, NODES = "/api/v1/namespaces/{}/pods", "/api/v1/nodes"


class TooSlow(Exception):
    """Something did not happen in the time that it was given."""


@dataclass
class Lab:
    cluster: Cluster
    api: Api
    inside: int
    log: AuditLog
    kwok_pid: int
    kubeconfig: Path
    num_jobs: int
    replicas: list[Replica] = field(default_factory=list)
    _requests: list[Request] = field(default_factory=list)

    @property
    def operator(self) -> Replica:
        return self.replicas[0]

    def replica(self) -> Replica:
        """Another operator; not started yet."""
        number = len(self.replicas)
        log = self.cluster.paths.logs / f"operator-{number}.log"
        made = Replica(self.api, self.inside, self.kubeconfig, log, number)
        self.replicas.append(made)
        return made

    def since(self, began: float) -> list[Request]:
        """What the API server was asked to change from that time on."""
        self._requests += self.log.read()
        return [request for request in self._requests if request.received >= began]

    def forget(self) -> None:
        self.log.read()
        self._requests = []

    def cpu_meter(self) -> CpuMeter:
        """Of everything that takes part, this process included."""
        components = {program_name(pid): pid for pid in children_of(self.inside)}
        return CpuMeter(
            components | {"kwok": self.kwok_pid, "operator": self.operator.pid, "bench": os.getpid()}
        )

    async def wait(
        self, what: str, is_so: Callable[[], Awaitable[bool]], *, seconds: float, period: float = 0.5
    ) -> None:
        began = said = time.monotonic()
        while not await is_so():
            now = time.monotonic()
            if now > began + seconds:
                raise TooSlow(f"waited {seconds:.0f} s in vain for {what}")
            if now > said + 10:
                said = now
                say(f"  waiting for {what}, {now - began:.0f} s")
            await asyncio.sleep(period)

    async def wait_until_running(self, namespace: str, *, seconds: float = 180) -> None:
        pods = PODS.format(namespace) + "?fieldSelector=status.phase!=Running"

        async def is_so() -> bool:
            return await self.api.is_empty(pods)

        await self.wait(f"all pods of {namespace} to run", is_so, seconds=seconds)

    async def wait_until_settled(self, *, seconds: float = 180) -> None:
        """Until the operator has looked at everything that it was woken for, and changes nothing any more.

        Looks alone say nothing: the jobs in which nothing happens get theirs all the time.
        """

        async def is_so() -> bool:
            before = await self.operator.metrics()
            await asyncio.sleep(1)
            after = await self.operator.metrics()
            series = ("spot_operator_status_writes_total", "spot_operator_jobs")
            is_same = bool(after) and all(before.get(name) == after.get(name) for name in series)
            return is_same and after["spot_operator_queue_depth"] == 0

        await self.wait("the operator to have nothing to do", is_so, seconds=seconds)

    async def wait_until_noted(self, collection: str, *, seconds: float = 420) -> None:
        """Until every status says that the job runs, and how long its launch took.

        In a rush of launches the first comes later. The second comes, where no trainer reports, with the
        first look at a pod that has run for a minute: a write a job, which is no part of what follows.
        """

        async def is_so() -> bool:
            return all(is_noted(job) for job in await self.api.items(collection))

        await self.wait("all launches to be noted", is_so, seconds=seconds, period=5)
        await self.wait_until_settled()

    async def remove_all(self, namespace: str, collection: str) -> None:
        """Delete all jobs of the namespace; returns when their pods are gone."""
        pods = PODS.format(namespace)
        await self.api.delete_all(collection)
        # The garbage collector learns of a new kind only after half a minute.
        await self.api.delete_all(pods)

        async def is_so() -> bool:
            return await self.api.is_empty(collection) and await self.api.is_empty(pods)

        await self.wait(f"{namespace} to be empty", is_so, seconds=240)

    async def make_nodes(self, num_nodes: int, prefix: str) -> list[str]:
        names = [f"{prefix}-{number:04}" for number in range(num_nodes)]
        await self.api.create_all((NODES, manifests.node(name)) for name in names)

        async def is_so() -> bool:
            nodes = await self.api.items(NODES)
            return not any(node["spec"].get("taints") for node in nodes)

        await self.wait("the nodes to be ready", is_so, seconds=120)
        return names

    async def set_signal(self, node: str, *, is_on: bool = True) -> None:
        await self.api.patch(f"{NODES}/{node}", {"spec": {"taints": [manifests.SIGNAL] if is_on else []}})

    async def pods_by_node(self, namespace: str) -> dict[str, dict[str, str]]:
        """Node -> pod -> its job."""
        found: dict[str, dict[str, str]] = {}
        for pod in await self.api.items(PODS.format(namespace)):
            owners = pod["metadata"].get("ownerReferences") or []
            if owners and pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                here = found.setdefault(pod["spec"]["nodeName"], {})
                here[pod["metadata"]["name"]] = owners[0]["name"]
        return found


@dataclass(frozen=True)
class Place:
    """What runs before the first request: control plane and kubelets."""

    cluster: Cluster
    kwok_pid: int
    kubeconfig: Path
    """Of the operator."""


@contextlib.contextmanager
def open_place(progress: Progress) -> Iterator[Place]:
    """The cluster; after the block nothing of it is left."""
    cache, name = Cache(), f"bench-{os.getpid()}"
    binary = kwok.program(cache, progress)
    # In the cache, because every sandbox sees that.
    rules = cache.root / "bench-operator" / "audit-policy.yaml"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text(json.dumps(audit.policy(USER)))
    audit_flags = {
        "audit-policy-file": str(rules),
        "audit-log-path": str(_audit_log(cluster_paths(name))),
        "audit-log-maxsize": "4096",
    }
    config = ClusterConfig(
        name=name,
        nodes=(),
        s3=False,
        node_monitor_grace_seconds=_NODE_GRACE_SECONDS,
        flags={
            "kube-apiserver": audit_flags,
            "kube-controller-manager": RATE_FLAGS,
            "kube-scheduler": RATE_FLAGS,
        },
    )
    with Cluster.up(config, progress=progress) as cluster:
        command = kwok.command(binary, cluster.paths.pki / "admin.kubeconfig")
        with (cluster.paths.logs / "kwok.log").open("ab") as log:
            fake = subprocess.Popen(
                contained(cluster.node_pid("control-plane"), command), stdout=log, stderr=log
            )
        try:
            install(cluster)
            yield Place(cluster, fake.pid, _operator_kubeconfig(cluster))
        finally:
            fake.kill()
            fake.wait()
    # After a failure the logs stay, where `Cluster.down` leaves them.
    remove_tree(cluster.paths.data)


def is_noted(job: Mapping[str, Any]) -> bool:
    """A job that has claimed its store is known to report, and its launch is over with its first report."""
    status = job.get("status") or {}
    pods = (status.get("gang") or {}).get("pods") or [{}]
    is_measured = status.get("claims", False) or all("workingTime" in pod for pod in pods)
    return status.get("phase") == "Running" and is_measured


def _audit_log(paths: ClusterPaths) -> Path:
    return paths.logs / "audit.log"


@contextlib.asynccontextmanager
async def open_lab(place: Place, num_jobs: int) -> AsyncIterator[Lab]:
    """The operator leads, and the bench is connected."""
    cluster = place.cluster
    inside = cluster.node_pid("control-plane")
    async with Api(cluster.paths.pki, inside) as api:
        lab = Lab(
            cluster,
            api,
            inside,
            AuditLog(_audit_log(cluster.paths)),
            place.kwok_pid,
            place.kubeconfig,
            num_jobs,
        )
        for namespace in ("ours", "peer"):
            await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        try:
            await lab.replica().lead()
            yield lab
        finally:
            for replica in lab.replicas:
                replica.end(signal.SIGKILL)


def install(cluster: Cluster) -> None:
    """The resource definition, and the rights that the chart gives; no pod of the operator."""
    cluster.kubectl("apply", "-f", str(ROOT / "crds"))
    cluster.wait_for(lambda: _is_served(cluster), timeout_seconds=30, what="the definition to be served")
    cluster.kubectl("create", "namespace", NAMESPACE)
    chart = ROOT / "charts" / "spot-training-operator"
    rendered = cluster.helm("template", ACCOUNT, str(chart), "--namespace", NAMESPACE)
    wanted = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in _RIGHTS]
    cluster.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": wanted})
    )


def _is_served(cluster: Cluster) -> bool:
    try:
        return cluster.api.exists("/apis/spottraining.io/v1alpha1/spottrainingjobs")
    except ApiError:
        return False  # 429 while the storage of the new kind is being set up


def _operator_kubeconfig(cluster: Cluster) -> Path:
    """A kubeconfig with a token of the chart's service account, as a pod of the operator has one."""
    token = cluster.kubectl("create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=6h").strip()
    authority = base64.b64encode((cluster.paths.pki / "ca.crt").read_bytes()).decode()
    server: dict[str, Any] = {"server": f"https://{GATEWAY}:443", "certificate-authority-data": authority}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": server}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "operator"}}],
        "current-context": "local",
    }
    path = cluster.paths.run / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(body))
    return path
