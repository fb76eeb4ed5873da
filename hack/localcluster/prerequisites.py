"""What the machine must have, checked by looking for programs rather than packages.

A machine with Docker's own containerd has what is needed without Debian's
package, which would replace it. Only what is missing is installed, without
recommended packages. (Where systemd runs, Debian's containerd package starts
its service; the cluster does not use it.)
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localcluster import cgroups
from localcluster.commands import LocalClusterError, run
from localcluster.progress import Progress
from localcluster.spec import ClusterConfig

_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Need:
    """A program, by name or path, and the Debian package that brings it."""

    program: str
    package: str

    def is_met(self) -> bool:
        if self.program.startswith("/"):
            return Path(self.program).exists()
        path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATHS}"
        return shutil.which(self.program, path=path) is not None


_ALWAYS = (
    Need("ip", "iproute2"),
    Need("unshare", "util-linux"),
    Need("nsenter", "util-linux"),
    Need("setpriv", "util-linux"),
    Need("mount", "mount"),
    Need("openssl", "openssl"),
)
_NODES = (
    Need("containerd", "containerd"),
    Need("ctr", "containerd"),
    Need("runc", "runc"),
    Need("/usr/lib/cni/ptp", "containernetworking-plugins"),
    Need("nft", "nftables"),
)
_IMAGES = (
    Need("mmdebstrap", "mmdebstrap"),
    Need("buildah", "buildah"),
    Need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
)


def needs(*, nodes: bool, images: bool) -> tuple[Need, ...]:
    return _ALWAYS + (_NODES if nodes else ()) + (_IMAGES if images else ())


def missing_packages(wanted: tuple[Need, ...]) -> list[str]:
    return sorted({need.package for need in wanted if not need.is_met()})


def ensure(config: ClusterConfig, progress: Progress) -> None:
    """Check the machine, and install what is missing; raises with the remedy where that is not possible."""
    check_machine(progress)
    install(needs(nodes=bool(config.nodes), images=bool(config.images)), progress)


def check_machine(progress: Progress) -> None:
    if sys.platform != "linux":
        raise LocalClusterError("the local cluster needs Linux: use a Linux machine or virtual machine")
    if os.geteuid() != 0:
        raise LocalClusterError(
            "the local cluster makes namespaces and cgroups, which only root may: run it with sudo"
        )
    # Children find programs of the system directories even under a user's PATH.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATHS}"
    if cgroups.is_v2():
        progress.say("note: this machine has cgroup v2 only; the local cluster was tried on v1")
    elif not Path("/sys/fs/cgroup/memory").is_dir():
        raise LocalClusterError("no cgroup tree at /sys/fs/cgroup: mount it (a container needs --privileged)")


def install(wanted: tuple[Need, ...], progress: Progress) -> None:
    packages = missing_packages(wanted)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise LocalClusterError(
            f"missing programs, and no apt-get to install them; packages on Debian: {', '.join(packages)}"
        )
    log = Path(tempfile.gettempdir()) / "spot-localcluster-apt.log"
    with progress.step(f"Install Debian packages: {' '.join(packages)}"):
        try:
            _apt_get("install", *packages, log=log)
        except LocalClusterError:
            # Unknown or outdated package lists; on most machines they are fresh enough.
            _apt_get("update", log=log)
            _apt_get("install", *packages, log=log)
    if still := missing_packages(wanted):
        raise LocalClusterError(f"still missing after installation: {', '.join(still)}\n  log: {log}")


def _apt_get(command: str, *packages: str, log: Path) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", command, "--yes", "--no-install-recommends", *packages, log=log, env=environment)
