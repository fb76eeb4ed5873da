"""Where a cluster keeps its files.

Two places, because of two limits: Unix socket paths must stay below 108 bytes,
so `run` is short and lives under /run; a node's images are hard links into the
cache, so `data` has to be on the cache's file system. `down` removes both.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from localcluster.cache import default_root
from localcluster.commands import LocalClusterError

RUN_ROOT = Path("/run/spot-localcluster")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True)
class ClusterPaths:
    """Every path of one cluster; nothing else builds such paths by hand."""

    name: str
    cache_root: Path

    @property
    def run(self) -> Path:
        return RUN_ROOT / self.name

    @property
    def data(self) -> Path:
        return self.cache_root / "clusters" / self.name

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def kubeconfig(self) -> Path:
        return self.run / "kubeconfig"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def cgroup(self) -> str:
        """The name of the cluster's own parent in every cgroup hierarchy."""
        return f"spot-localcluster-{self.name}"

    def node_run(self, node: str) -> Path:
        """What the node sees as /run."""
        return self.run / "nodes" / node

    def hold(self, machine: str, program: str) -> Path:
        """A file that keeps a program of a node, or of `control-plane`, from being started again."""
        return self.node_run(machine) / "held" / program

    def node_data(self, node: str) -> Path:
        """Holds what the node sees as /var/lib and /var/log."""
        return self.data / "nodes" / node


def cluster_paths(name: str, cache_root: Path | None = None) -> ClusterPaths:
    """The paths of a cluster by its name, which is checked here."""
    return ClusterPaths(checked_name(name), cache_root or default_root())


def checked_name(name: str) -> str:
    """Names end up in socket paths and host names: short DNS labels only."""
    if not _NAME.fullmatch(name):
        raise LocalClusterError(
            f"{name!r} is no usable name: at most 20 of a-z, 0-9 and '-', not at the ends"
        )
    return name
