"""Removing what a cluster left on the machine: its cgroups, its directories, and nothing else.

Runs when the supervisor ends, and again before the next `up` or on `down`, for
the case that the supervisor itself was killed. Processes, mounts and network
interfaces need no cleaning: they live in namespaces that end with process 1.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from localcluster import cgroups
from localcluster.paths import ClusterPaths

_TIMEOUT_SECONDS = 10.0
_T = TypeVar("_T")


def remove_leftovers(paths: ClusterPaths) -> None:
    """Remove the cluster's cgroups and files; the logs stay until the next `up`."""
    cgroups.remove_cgroup_patiently(paths.cgroup)
    _retry(remove_tree, paths.run)
    if paths.data.is_dir():
        for path in paths.data.iterdir():
            if path != paths.logs:
                _retry(remove_tree, path)


def remove_tree(path: Path) -> None:
    """Remove a directory or file, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _retry(action: Callable[[_T], None], subject: _T) -> None:
    """A killed process may hold its cgroup or files for a moment longer."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            return action(subject)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
