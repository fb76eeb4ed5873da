"""What is known about a running cluster between two commands: a JSON file, changed only under a lock.

It records what was asked for (nodes, their index, images, credentials), never
what runs: that is asked of the supervisor, so the file cannot lie about it.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from localcluster.cache import file_lock
from localcluster.commands import LocalClusterError
from localcluster.fabric import MAX_NODES
from localcluster.paths import ClusterPaths
from localcluster.spec import CapacityType, NodeSpec, Taint


@dataclass
class NodeRecord:
    spec: NodeSpec
    index: int

    @classmethod
    def from_json(cls, raw: dict[str, object]) -> "NodeRecord":
        spec = raw["spec"]
        assert isinstance(spec, dict)
        assert isinstance(raw["index"], int)
        taints = spec.pop("taints")
        spec["capacity_type"] = CapacityType(spec["capacity_type"])
        spec["taints"] = None if taints is None else tuple(Taint(**taint) for taint in taints)
        return cls(NodeSpec(**spec), raw["index"])


@dataclass
class ClusterState:
    binaries: str
    api_port: int = 0
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    image_layouts: list[str] = field(default_factory=list)
    """In the order in which they build on each other."""
    s3_access_key: str = ""
    s3_secret_key: str = ""
    s3_port: int = 0

    def free_index(self) -> int:
        taken = {record.index for record in self.nodes.values()}
        for index in range(1, MAX_NODES + 1):
            if index not in taken:
                return index
        raise LocalClusterError(f"the cluster is full: {MAX_NODES} nodes")

    @classmethod
    def load(cls, paths: ClusterPaths) -> "ClusterState":
        try:
            raw = json.loads(paths.state.read_text())
        except FileNotFoundError:
            raise LocalClusterError(
                f"there is no cluster {paths.name!r}; start it with `up --name {paths.name}`"
            ) from None
        raw["nodes"] = {name: NodeRecord.from_json(node) for name, node in raw["nodes"].items()}
        return cls(**raw)

    def save(self, paths: ClusterPaths) -> None:
        fresh = paths.state.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.rename(paths.state)


@contextlib.contextmanager
def changed_state(paths: ClusterPaths) -> Iterator[ClusterState]:
    """Load, let the body change it, save; an exception in the body saves nothing."""
    with file_lock(Path(f"{paths.state}.lock")):
        state = ClusterState.load(paths)
        yield state
        state.save(paths)
