"""Machines come and go: start a node, cut its power, take it off the list."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localcluster import cgroups, fabric
from localcluster.api import STRATEGIC_PATCH, ApiClient, ApiError
from localcluster.cleanup import remove_tree
from localcluster.commands import LocalClusterError, log_tail
from localcluster.node import CONTAINERD_SOCKET, node_sandbox, write_node_files
from localcluster.paths import ClusterPaths
from localcluster.pki import issue, node_identity
from localcluster.spec import NodeSpec
from localcluster.state import ClusterState, NodeRecord, changed_state
from localcluster.supervision import FABRIC, Supervision, kept_paths
from localcluster.template import import_image, link_store

KARPENTER_FINALIZER = "karpenter.sh/termination"
_READY_TIMEOUT_SECONDS = 90.0


class Nodes:
    """The cluster's machines."""

    def __init__(self, paths: ClusterPaths, supervision: Supervision, api: ApiClient) -> None:
        self._paths = paths
        self._supervision = supervision
        self._api = api

    def boot(self, spec: NodeSpec, template: Path) -> None:
        """Switch a machine on; returns when its programs have been started, not when it is Ready."""
        name = spec.name
        with changed_state(self._paths) as state:
            if name in state.nodes:
                raise LocalClusterError(f"there is a node {name!r} already; kill or remove it first")
            record = NodeRecord(spec, state.free_index())
            state.nodes[name] = record
        data = self._paths.node_data(name)
        remove_tree(data)
        (data / "lib").mkdir(parents=True)
        link_store(template, data / "lib" / "containerd")
        issue(self._paths.pki, node_identity(name))
        cgroups.make_node_cgroup(self._paths.cgroup, name)
        write_node_files(self._paths, spec, record.index)
        binaries = Path(ClusterState.load(self._paths).binaries)
        sandbox = node_sandbox(self._paths, spec, record.index, binaries, kept_paths(self._paths))
        spec_file = data / "sandbox.json"
        spec_file.write_text(sandbox.to_json())
        pid = self._supervision.sandbox(name, spec_file, self._paths.logs / name / "sandbox.log")
        fabric.plug_in(self._supervision.children()[FABRIC], pid, record.index)

    def wait_ready(self, names: Sequence[str], *, after: dict[str, str] | None = None) -> None:
        """Wait until the nodes are Ready; `after` names UIDs of earlier objects that do not count."""
        deadline = time.monotonic() + _READY_TIMEOUT_SECONDS
        for name in names:
            while not self._is_ready(name, (after or {}).get(name)):
                if time.monotonic() > deadline:
                    log = self._paths.logs / name / "kubelet.log"
                    raise LocalClusterError(
                        f"node {name} did not become Ready\n  log: {log}\n{log_tail(log)}"
                    )
                time.sleep(0.1)

    def _is_ready(self, name: str, old_uid: str | None) -> bool:
        node = self.object(name)
        if node is None or node["metadata"]["uid"] == old_uid:
            return False
        conditions = node["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def manage_like_karpenter(self, name: str) -> None:
        """Karpenter's finalizer: the Node object stays while its machine is being drained."""
        patch = {"metadata": {"finalizers": [KARPENTER_FINALIZER]}}
        self._api.patch(f"/api/v1/nodes/{name}", patch, STRATEGIC_PATCH)

    def object(self, name: str) -> dict[str, Any] | None:
        """The Node object, or nothing."""
        try:
            found: dict[str, Any] = self._api.get(f"/api/v1/nodes/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def power_off(self, name: str) -> None:
        """No notice: every process of the machine is gone at once. The Node object stays."""
        if name not in ClusterState.load(self._paths).nodes:
            raise LocalClusterError(f"there is no running node {name!r}")
        self._supervision.kill(name)
        with changed_state(self._paths) as state:
            del state.nodes[name]
        cgroups.remove_cgroup_patiently(f"{self._paths.cgroup}/{name}")
        shutil.rmtree(self._paths.node_data(name), ignore_errors=True)
        shutil.rmtree(self._paths.node_run(name), ignore_errors=True)

    def delete_object(self, name: str) -> None:
        """Remove the Node object, whatever holds it."""
        try:
            # In this order: a deletion that waits for a finalizer would be seen as a drain that begins.
            self._api.patch(f"/api/v1/nodes/{name}", {"metadata": {"finalizers": None}})
            self._api.delete(f"/api/v1/nodes/{name}")
        except ApiError as error:
            if error.status != 404:
                raise

    def load_images(self, layouts: Sequence[Path]) -> None:
        """Bring images to the nodes that run already."""
        inits = self._supervision.children()
        names = [name for name in ClusterState.load(self._paths).nodes if name in inits]

        def load(name: str) -> None:
            enter = ("nsenter", "-t", str(inits[name]), "-m", "-p", "--")
            for layout in layouts:
                import_image(Path(CONTAINERD_SOCKET), layout, *enter)

        with ThreadPoolExecutor(max(1, len(names))) as pool:
            list(pool.map(load, names))
