"""One real API server for all tests of this folder, with the CRD installed, and a namespace for each."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster import Cluster, ClusterConfig

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ApiServer:
    kubeconfig: Path
    kubectl_path: Path

    def run(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as administrator, whatever it answers."""
        command = [self.kubectl_path, "--kubeconfig", self.kubeconfig, *words]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=120)

    def kubectl(self, *words: str, input: str | None = None) -> str:
        """kubectl as administrator: what it printed; fails the test if it failed."""
        result = self.run(*words, input=input)
        assert result.returncode == 0, f"kubectl {' '.join(words)}: {result.stderr}"
        return result.stdout


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    # Several test runs may share the machine, so the name carries the process.
    with Cluster.up(ClusterConfig.control_plane_only(f"api-{os.getpid()}")) as cluster:
        server = ApiServer(cluster.kubeconfig, cluster.kubectl_path)
        server.kubectl("apply", "-f", str(ROOT / "crds"))
        # A CRD without any status yet makes `kubectl wait` give up instead of waiting.
        cluster.wait_for(
            lambda: "spottrainingjobs" in server.run("api-resources", "--api-group=spottraining.io").stdout,
            timeout_seconds=30,
            what="the CRD to be served",
        )
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> Iterator[str]:
    name = f"test-{next(_numbers)}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")
