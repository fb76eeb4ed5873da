"""kwok: the kubelets that are not there. Built from its Go module once, then kept in the cache."""

from __future__ import annotations

from pathlib import Path

from localcluster.binaries import BUILD_FLAGS, Binaries, build_environment
from localcluster.cache import Cache, digest, digest_files
from localcluster.commands import run
from localcluster.progress import Progress

_SOURCE = Path(__file__).parent / "kwok"
_PACKAGE = "sigs.k8s.io/kwok/cmd/kwok"
_LINKER_FLAGS = "-s -w"
NODE_ANNOTATION = "kwok.x-k8s.io/node=fake"


def program(cache: Cache, progress: Progress) -> Path:
    """Its path; the first call on a machine compiles it."""
    module = [_SOURCE / "go.mod", _SOURCE / "go.sum"]
    key = digest(digest_files(module, relative_to=_SOURCE), *BUILD_FLAGS, _LINKER_FLAGS)

    def build(target: Path) -> None:
        with progress.step("kwok (compiled once, 1 to 4 minutes)"):
            log = cache.root / "logs" / "kwok-build.log"
            command = ("build", *BUILD_FLAGS, "-ldflags", _LINKER_FLAGS, "-o", target / "kwok", _PACKAGE)
            run(Binaries(cache).go(), *command, log=log, env=build_environment(), cwd=_SOURCE)

    return cache.entry("kwok", key, build) / "kwok"


def command(binary: Path, kubeconfig: Path) -> list[str]:
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--manage-nodes-with-annotation-selector={NODE_ANNOTATION}",
        f"--config={_SOURCE / 'stages.yaml'}",
        # The heartbeats of real machines are not the cluster's load that is measured here.
        "--node-lease-duration-seconds=1200",
    ]
