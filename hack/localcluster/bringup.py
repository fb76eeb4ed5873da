"""From nothing to a usable cluster: first the parts that are slow once, then the parts that start.

Downloads, the Go build and the images wait for different things (network,
processors, disks), so they run side by side. A failure at any point takes down
what had been started.
"""

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import prerequisites
from localcluster.api import ApiClient, ApiError
from localcluster.binaries import KUBERNETES_VERSION, Binaries
from localcluster.cache import Cache
from localcluster.cleanup import remove_leftovers, remove_tree
from localcluster.commands import LocalClusterError, log_tail
from localcluster.control_plane import API_PORT, control_plane_spec, corefile, first_objects
from localcluster.fabric import GATEWAY
from localcluster.images import Images
from localcluster.nodes import Nodes
from localcluster.paths import ClusterPaths
from localcluster.pki import make_authority, write_kubeconfig
from localcluster.progress import Progress
from localcluster.s3 import PORT as S3_PORT
from localcluster.s3 import S3Server, make_access, new_credentials
from localcluster.spec import ClusterConfig
from localcluster.state import ClusterState
from localcluster.supervision import FABRIC, Supervision, kept_paths
from localcluster.template import template_for

_READY_TIMEOUT_SECONDS = 90.0
_COLLECTIONS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Service": "/api/v1/namespaces/kube-system/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
}


@dataclass(frozen=True)
class Parts:
    """Everything that comes out of the cache."""

    kube: Path
    weed: Path | None
    layouts: list[Path]
    template: Path | None


def bring_up(paths: ClusterPaths, config: ClusterConfig, progress: Progress, *, owned: bool) -> int | None:
    """Start the cluster; returns the descriptor whose closing ends it, if it is owned."""
    parts = prepare(config, paths.cache_root, progress)
    remove_tree(paths.logs)
    supervision = Supervision(paths)
    owner_fd = supervision.start(owned=owned)
    try:
        _start(paths, config, parts, supervision, progress)
    except BaseException:
        with contextlib.suppress(OSError):
            supervision.stop()
        if owner_fd is not None:
            os.close(owner_fd)
        remove_leftovers(paths)
        raise
    return owner_fd


def prepare(config: ClusterConfig, cache_root: Path, progress: Progress) -> Parts:
    """Install, download, build: nothing to do but look-ups once the cache is warm."""
    prerequisites.ensure(config, progress)
    cache = Cache(cache_root)
    binaries = Binaries(cache)
    with ThreadPoolExecutor() as pool:
        clients = pool.submit(_fetch_clients, binaries, progress)
        weed = pool.submit(_fetch_weed, binaries, progress) if config.s3 else None
        bases = pool.submit(_make_bases, cache, binaries, config, progress)
        kube = pool.submit(_build_kube, binaries, progress)
        for future in (clients, bases, kube):
            future.result()
        weed_path = weed.result() if weed else None
    layouts, template = [], None
    if config.nodes:
        images = Images(cache, binaries)
        with progress.step("Container images") if config.images else contextlib.nullcontext():
            layouts = images.layouts(config.images)
        with progress.step("Unpack images"):
            template = template_for(cache, layouts)
    return Parts(kube.result(), weed_path, layouts, template)


def _fetch_clients(binaries: Binaries, progress: Progress) -> None:
    with progress.step("kubectl and Helm"):
        binaries.kubectl()


def _fetch_weed(binaries: Binaries, progress: Progress) -> Path:
    with progress.step("SeaweedFS"):
        return binaries.weed()


def _make_bases(cache: Cache, binaries: Binaries, config: ClusterConfig, progress: Progress) -> None:
    images = Images(cache, binaries)
    for base in images.bases(config.images):
        with progress.step(f"Base image {base.name}"):
            images.base(base)


def _build_kube(binaries: Binaries, progress: Progress) -> Path:
    note = "" if binaries.kube_is_cached() else " (compiled once, 5 to 10 minutes)"
    with progress.step(f"Kubernetes v{KUBERNETES_VERSION}{note}"):
        return binaries.kube()


def _start(
    paths: ClusterPaths,
    config: ClusterConfig,
    parts: Parts,
    supervision: Supervision,
    progress: Progress,
) -> None:
    with progress.step("Control plane"):
        port = _start_control_plane(paths, config, parts, supervision)
        access_key, secret_key = new_credentials()
        layouts = [str(layout) for layout in parts.layouts]
        state = ClusterState(str(parts.kube), port, image_layouts=layouts)
        if parts.weed is not None:
            state.s3_access_key, state.s3_secret_key = access_key, secret_key
            state.s3_port = supervision.forward(GATEWAY, S3_PORT)
        state.save(paths)
    with contextlib.closing(ApiClient(port, paths.pki)) as api, ThreadPoolExecutor() as pool:
        work = [pool.submit(_wait_for_api, api, paths)]
        if parts.weed is not None:
            access = make_access(state.s3_access_key, state.s3_secret_key, state.s3_port)
            server = S3Server(paths, supervision, access, parts.weed)
            work.append(pool.submit(_start_s3, server, progress))
        work[0].result()
        if config.nodes and parts.template is not None:
            _start_nodes(paths, config, parts.template, supervision, api, progress)
        for future in work:
            future.result()


def _start_control_plane(
    paths: ClusterPaths, config: ClusterConfig, parts: Parts, supervision: Supervision
) -> int:
    """Returns the port of 127.0.0.1 that leads to the API server."""
    make_authority(paths.pki)
    (paths.data / "Corefile").write_text(corefile(paths))
    spec_file = paths.run / "control-plane.json"
    spec_file.write_text(control_plane_spec(paths, config, parts.kube, kept_paths(paths)).to_json())
    supervision.sandbox(FABRIC, spec_file, paths.logs / "control-plane.log")
    port = supervision.forward(GATEWAY, API_PORT)
    write_kubeconfig(paths.kubeconfig, paths.pki, "admin", f"https://127.0.0.1:{port}")
    return port


def _start_s3(server: S3Server, progress: Progress) -> None:
    with progress.step("S3 server"):
        server.start()


def _wait_for_api(api: ApiClient, paths: ClusterPaths) -> None:
    """Ready means: requests are served, controllers work, the first objects are there."""
    deadline = time.monotonic() + _READY_TIMEOUT_SECONDS

    def wait(is_so: Callable[[], bool], what: str) -> None:
        while not is_so():
            if time.monotonic() > deadline:
                log = paths.logs / "kube-apiserver.log"
                raise LocalClusterError(f"{what} in vain\n  log: {log}\n{log_tail(log)}")
            time.sleep(0.05)

    wait(api.is_ready, "waited for the API server")
    for body in first_objects():
        _create_unless_there(api, _COLLECTIONS[body["kind"]], body)
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    wait(lambda: api.exists(account), "waited for the controllers")


def _create_unless_there(api: ApiClient, collection: str, body: dict[str, Any]) -> None:
    try:
        api.create(collection, body)
    except ApiError as error:
        if error.status != 409:
            raise


def _start_nodes(
    paths: ClusterPaths,
    config: ClusterConfig,
    template: Path,
    supervision: Supervision,
    api: ApiClient,
    progress: Progress,
) -> None:
    nodes = Nodes(paths, supervision, api)
    names = [node.name for node in config.nodes]
    with progress.step(f"Nodes {', '.join(names)}"):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda node: nodes.boot(node, template), config.nodes))
        nodes.wait_ready(names)
        for name in names:
            nodes.manage_like_karpenter(name)
