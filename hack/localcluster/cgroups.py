"""The cluster's own parent in the machine's cgroup tree.

cgroup v1 has one tree per controller, and a new cpuset directory is unusable
until it is given CPUs and memory nodes. cgroup v2 has one tree, where a
controller must be passed down by each parent; no process is ever put into the
parents made here, as v2 demands.
"""

import contextlib
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = (
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
    "hugetlb", "net_cls", "net_prio", "perf_event",
)  # fmt: skip
_BUSY_TIMEOUT_SECONDS = 10.0
_V2_NEEDED = ("cpu", "cpuset", "memory", "pids")
_V2_WELCOME = ("io", "hugetlb")


def is_v2() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def make_node_cgroup(parent: str, node: str) -> None:
    """The directories below which the node's kubelet keeps its pods."""
    if is_v2():
        available = (_ROOT / "cgroup.controllers").read_text().split()
        wanted = [name for name in (*_V2_NEEDED, *_V2_WELCOME) if name in available]
        for directory in (_ROOT, _ROOT / parent, _ROOT / parent / node):
            directory.mkdir(exist_ok=True)
            enabled = (directory / "cgroup.subtree_control").read_text().split()
            for name in wanted:
                if name not in enabled:
                    (directory / "cgroup.subtree_control").write_text(f"+{name}")
        return
    for controller in _v1_hierarchies():
        for directory in (controller / parent, controller / parent / node):
            directory.mkdir(exist_ok=True)
            if controller.name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (directory / file).write_text((controller / file).read_text())


def remove_cgroup(path: str) -> None:
    """Remove a parent and all below it; only empty ones can be, so nothing alive is harmed."""
    # Not only the trees made above: runtimes also make directories in the v2 tree of a mixed machine.
    for tree in [_ROOT] if is_v2() else sorted(_ROOT.iterdir()):
        top = tree / path
        below = sorted(top.rglob("*"), reverse=True) if top.is_dir() else []
        for directory in [*(entry for entry in below if entry.is_dir()), top]:
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()


def _v1_hierarchies() -> list[Path]:
    """Each controller's tree once: cpu and cpuacct are often two links to one mount."""
    found = {(_ROOT / name).resolve() for name in _V1_CONTROLLERS if (_ROOT / name).is_dir()}
    return sorted(found)


def remove_cgroup_patiently(path: str) -> None:
    """As `remove_cgroup`, for a moment in which killed processes still leave."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            return remove_cgroup(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
