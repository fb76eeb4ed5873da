"""A whole cluster as one object: the API that the command line, the tests and the demo share."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from localcluster import bringup, prerequisites
from localcluster.api import ApiClient
from localcluster.binaries import Binaries
from localcluster.cache import Cache, file_lock
from localcluster.cleanup import remove_leftovers
from localcluster.commands import LocalClusterError, run
from localcluster.fabric import DNS_PORT, PARTITION, partition_rules
from localcluster.images import Images
from localcluster.node import shutdown_socket
from localcluster.nodes import Nodes
from localcluster.paths import cluster_paths
from localcluster.processes import children_of, program_of
from localcluster.progress import Progress
from localcluster.reclaim import Machine, ReclaimRecord, reclaim
from localcluster.s3 import PORT as S3_PORT
from localcluster.s3 import S3Server, make_access
from localcluster.shutdown import shut_down
from localcluster.spec import CapacityType, ClusterConfig, NodeSpec, ReclaimStyle, Taint
from localcluster.state import ClusterState, changed_state
from localcluster.supervision import Supervision
from localcluster.template import template_for
from localcluster.volumes import shared_volume


class Cluster:
    """A running cluster. As a context manager it is gone after the block, or when this process dies."""

    def __init__(self, name: str = "default", *, cache_root: Path | None = None) -> None:
        """Attach to a cluster that runs already; `Cluster.up` starts one."""
        self.paths = cluster_paths(name, cache_root)
        self.name = name
        self._cache = Cache(self.paths.cache_root)
        self._binaries = Binaries(self._cache)
        self._supervision = Supervision(self.paths)
        state = ClusterState.load(self.paths)
        self.api = ApiClient(state.api_port, self.paths.pki)
        self._nodes = Nodes(self.paths, self._supervision, self.api)
        self._owner_fd: int | None = None

    @classmethod
    def up(
        cls, config: ClusterConfig | None = None, *, owned: bool = True, progress: Progress | None = None
    ) -> Self:
        """Start a cluster and wait until it is usable.

        An owned one ends with this process, however that ends; otherwise it
        stays until `down`. Raises LocalClusterError if a cluster of that name runs.
        """
        config, progress = config or ClusterConfig(), progress or Progress()
        paths = cluster_paths(config.name, config.cache_root)
        with file_lock(paths.cache_root / "locks" / f"cluster-{config.name}"):
            if Supervision(paths).is_alive():
                raise LocalClusterError(f"the cluster {config.name!r} is running already")
            remove_leftovers(paths)
            owner_fd = bringup.bring_up(paths, config, progress, owned=owned)
        cluster = cls(config.name, cache_root=config.cache_root)
        cluster._owner_fd = owner_fd
        return cluster

    def down(self) -> None:
        """End the cluster and remove everything of it but the logs."""
        take_down(self.name, cache_root=self.paths.cache_root)
        self.api.close()
        if self._owner_fd is not None:
            os.close(self._owner_fd)
            self._owner_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """Works from the host, for every Kubernetes client."""
        return self.paths.kubeconfig

    @property
    def kubectl_path(self) -> Path:
        return self._binaries.kubectl()

    @property
    def helm_path(self) -> Path:
        return self._binaries.helm()

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator; returns its output, raises CommandError."""
        return run(self._binaries.kubectl(), "--kubeconfig", self.kubeconfig, *words, stdin=stdin)

    def helm(self, *words: str) -> str:
        return run(self._binaries.helm(), "--kubeconfig", self.kubeconfig, *words)

    def wait_for(
        self, condition: Callable[[], bool], *, timeout_seconds: float = 120, what: str = "condition"
    ) -> None:
        """Poll until the condition holds; raises LocalClusterError on time-out."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise LocalClusterError(f"waited {timeout_seconds:.0f} s in vain for: {what}")
            time.sleep(0.1)

    def node_names(self) -> list[str]:
        """The machines that are switched on."""
        return list(ClusterState.load(self.paths).nodes)

    def add_node(
        self,
        node: NodeSpec | str,
        *,
        capacity_type: CapacityType | str = CapacityType.SPOT,
        labels: dict[str, str] | None = None,
        taints: Sequence[Taint] | None = None,
        keep_object: bool = False,
    ) -> None:
        """Switch a machine on and wait until it is Ready.

        As a new Node object with a new UID, or, to keep the object, as the one that was of its name.
        """
        spec = node if isinstance(node, NodeSpec) else NodeSpec(
            node,
            CapacityType(capacity_type),
            labels=labels or {},
            taints=None if taints is None else tuple(taints),
        )  # fmt: skip
        state = ClusterState.load(self.paths)
        if not state.image_layouts:
            raise LocalClusterError(f"{self.name!r} was started without nodes, so it can have none")
        if spec.name not in state.nodes and not keep_object:
            self._nodes.delete_object(spec.name)
        self._nodes.boot(spec, template_for(self._cache, [Path(p) for p in state.image_layouts]))
        self._nodes.wait_ready([spec.name])
        self._nodes.manage_like_karpenter(spec.name)

    def remove_node(self, name: str) -> None:
        """Switch off and remove the Node object, without drain."""
        if name in self.node_names():
            self._nodes.power_off(name)
        self._nodes.delete_object(name)

    def kill_node(self, name: str, *, delete_node_after_seconds: float | None = None) -> None:
        """Power off without notice. The Node object stays, unless a time for its removal is given."""
        self._nodes.power_off(name)
        if delete_node_after_seconds is not None:
            time.sleep(delete_node_after_seconds)
            self._nodes.delete_object(name)

    def reclaim(
        self,
        name: str,
        *,
        style: ReclaimStyle | str = ReclaimStyle.KARPENTER,
        notice_seconds: float = 120,
        leave_when_empty: bool = True,
    ) -> ReclaimRecord:
        """Take a spot machine away with notice; returns when it is gone, with the times of each step."""
        state, style = ClusterState.load(self.paths), ReclaimStyle(style)
        if name not in state.nodes:
            raise LocalClusterError(f"there is no running node {name!r}")
        if style is ReclaimStyle.GKE and not state.nodes[name].spec.graceful_shutdown:
            raise LocalClusterError(f"the node {name!r} was not added with graceful_shutdown")
        return reclaim(
            self.api,
            name,
            style=style,
            notice_seconds=notice_seconds,
            machine=Machine(
                shut_down=lambda seconds: shut_down(shutdown_socket(self.paths, name), seconds),
                power_off=lambda: self._nodes.power_off(name),
            ),
            leave_when_empty=leave_when_empty,
        )

    def stop_program(self, machine: str, program: str) -> None:
        """Kill -9 a program of a node, or of `control-plane`, and keep it from being started again."""
        hold = self.paths.hold(machine, program)
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        for pid in children_of(self.node_pid(machine)):
            if program_of(pid) == program:
                os.kill(pid, signal.SIGKILL)

    def start_program(self, machine: str, program: str) -> None:
        """Let a stopped program start; returns at once."""
        self.paths.hold(machine, program).unlink(missing_ok=True)

    def cut_off(self, node: str) -> None:
        """Part a node from all others and from the control plane; only S3 and DNS stay within its reach."""
        rules = partition_rules({S3_PORT: "tcp", DNS_PORT: "udp"})
        run(*self.exec_command(node, "nft", "--file", "-"), stdin=rules)

    def reconnect(self, node: str) -> None:
        """Undo `cut_off`."""
        run(*self.exec_command(node, "nft", "delete", "table", "inet", PARTITION))

    def node_pid(self, name: str) -> int:
        """Process 1 of a node (or of `control-plane`), as seen from the host."""
        try:
            return self._supervision.children()[name]
        except KeyError:
            raise LocalClusterError(f"{name!r} is not running") from None

    def exec_command(self, name: str, *argv: str) -> list[str]:
        """The command line that runs a program on a node; `ctr` and `nft` work as on a real one."""
        pid = str(self.node_pid(name))
        return ["nsenter", "-t", pid, "--net", "--mount", "--uts", "--pid", "--", *argv]

    def forward(self, host: str, port: int) -> int:
        """The port of 127.0.0.1 that leads to a pod, node or service-less address in the cluster."""
        return self._supervision.forward(host, port)

    def forward_service(self, namespace: str, name: str, port: int) -> int:
        """The port of 127.0.0.1 that leads to one ready endpoint of a Service's port."""
        service = self.api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        (wanted,) = (p for p in service["spec"]["ports"] if p["port"] == port)
        slices = self.api.get(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        )["items"]
        for each in slices:
            ports = [p["port"] for p in each["ports"] or [] if p.get("name") == wanted.get("name")]
            ready = [e for e in each["endpoints"] or [] if e["conditions"].get("ready")]
            if ports and ready:
                return self.forward(ready[0]["addresses"][0], ports[0])
        raise LocalClusterError(f"service {namespace}/{name} has no ready endpoint on port {port}")

    def has_s3(self) -> bool:
        return bool(ClusterState.load(self.paths).s3_port)

    @property
    def s3(self) -> S3Server:
        state = ClusterState.load(self.paths)
        if not state.s3_port:
            raise LocalClusterError(f"the cluster {self.name!r} was started without S3")
        access = make_access(state.s3_access_key, state.s3_secret_key, state.s3_port)
        return S3Server(self.paths, self._supervision, access, self._binaries.weed())

    def build_image(self, *names: str, progress: Progress | None = None) -> list[Path]:
        """Layouts of well-known images (`operator`, `trainer`, ...), built if their inputs changed."""
        return build_images(names, progress or Progress(), cache_root=self.paths.cache_root)

    def load_image(self, *layouts: Path) -> None:
        """Bring images to all nodes, those of now and those to come.

        Each is a directory with an OCI layout, as `build_image` makes them.
        """
        known = ClusterState.load(self.paths).image_layouts
        fresh = [layout for layout in layouts if str(layout) not in known]
        self._nodes.load_images(fresh)
        with changed_state(self.paths) as state:
            state.image_layouts += [str(layout) for layout in fresh]

    def shared_volume(self, namespace: str, name: str, *, owner_uid: int = 1000, size: str = "10Gi") -> Path:
        """A ReadWriteMany claim `name` that every node mounts; returns its directory on the host."""
        return shared_volume(self.api, self.paths, namespace, name, owner_uid=owner_uid, size=size)


def build_images(names: tuple[str, ...], progress: Progress, *, cache_root: Path | None = None) -> list[Path]:
    """Build images without a cluster; returns their layouts, bases first."""
    prerequisites.check_machine(progress)
    prerequisites.install(prerequisites.needs(nodes=False, images=True), progress)
    cache = Cache(cache_root)
    with progress.step(f"Images {', '.join(names)}"):
        return Images(cache, Binaries(cache)).layouts(names)


def take_down(name: str, *, cache_root: Path | None = None) -> None:
    """End a cluster by name; also removes what a crashed one left. No cluster is no error."""
    paths = cluster_paths(name, cache_root)
    supervision = Supervision(paths)
    with contextlib.suppress(OSError):  # no socket, or nobody listens: there is nothing to stop
        supervision.stop()
    remove_leftovers(paths)
