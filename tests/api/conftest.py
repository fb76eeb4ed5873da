"""One real API server for all tests of this folder, with the CRD installed, and a namespace for each."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from operator_scene import Operator, Scene, wait_for
from staging import Stages

from localcluster import Cluster, ClusterConfig
from localcluster.api import ApiClient

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ApiServer:
    kubeconfig: Path
    kubectl_path: Path
    api: ApiClient
    """As administrator."""
    cluster: Cluster

    def run(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as administrator, whatever it answers."""
        command = [self.kubectl_path, "--kubeconfig", self.kubeconfig, *words]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=120)

    def kubectl(self, *words: str, input: str | None = None) -> str:
        """kubectl as administrator: what it printed; fails the test if it failed."""
        result = self.run(*words, input=input)
        assert result.returncode == 0, f"kubectl {' '.join(words)}: {result.stderr}"
        return result.stdout


@contextlib.contextmanager
def serving(name: str) -> Iterator[ApiServer]:
    # Several test runs may share the machine, so the name carries the process.
    with Cluster.up(ClusterConfig.control_plane_only(f"{name}-{os.getpid()}")) as cluster:
        server = ApiServer(cluster.kubeconfig, cluster.kubectl_path, cluster.api, cluster)
        server.kubectl("apply", "-f", str(ROOT / "crds"))
        # A CRD without any status yet makes `kubectl wait` give up instead of waiting.
        cluster.wait_for(
            lambda: "spottrainingjobs" in server.run("api-resources", "--api-group=spottraining.io").stdout,
            timeout_seconds=30,
            what="the CRD to be served",
        )
        yield server


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    with serving("api") as server:
        yield server


@pytest.fixture(scope="module")
def own_api_server() -> Iterator[ApiServer]:
    """One that the module has for itself, so that it may stop it."""
    with serving("own") as server:
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> Iterator[str]:
    name = f"test-{next(_numbers)}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def scene(api_server: ApiServer, namespace: str) -> Iterator[Scene]:
    scene = Scene(api_server, namespace)
    scene.add_node()
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield scene
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")


@pytest.fixture
def operator(api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    log = tmp_path / "operator.log"
    operator = Operator(str(api_server.kubeconfig), namespace, log).start()
    yield operator
    if operator.process is not None and operator.process.poll() is None:
        operator.kill()
    text = log.read_text()
    print(text)
    assert "unexpectedly" not in text


@pytest.fixture(scope="module")
def stages(
    api_server: ApiServer, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stages]:
    """Jobs on nodes of their own, under one operator for the whole module."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    api_server.kubectl("create", "namespace", name)
    scene = Scene(api_server, name)
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    log = tmp_path_factory.mktemp(name) / "operator.log"
    settings = {"SPOT_OPERATOR_POLICY_SETTLE_SECONDS": "3"}
    operator = Operator(str(api_server.kubeconfig), name, log, **settings).start()
    made = Stages(api_server.api, scene, operator)
    yield made
    made.close()
    api_server.kubectl("delete", "namespace", name, "--wait=false")
    print(text := log.read_text())
    assert "unexpectedly" not in text
