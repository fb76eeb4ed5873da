"""The chart's RBAC is what the operator uses: nothing that it needs is missing, nothing is spare.

The operator runs with the rights of the rendered chart's ServiceAccount and nothing else,
goes through everything that it ever does, and what it asked for (by its own count, in RBAC's
words) is compared with what the chart grants.
"""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_scene import DISRUPTED, Operator, Scene, report, wait_for
from staging import NODE_CLAIM_CRD

from localcluster.api import ApiClient, ApiError
from localcluster.binaries import Binaries
from localcluster.cache import Cache

pytestmark = pytest.mark.api

CHART = Path(__file__).parents[2] / "charts" / "spot-training-operator"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
RELEASE = "spot-training-operator"
WATCHED = ("spottrainingjobs", "pods", "nodes")
# Never a request of its own: admission asks for it when an owner reference blocks deletion.
BY_ADMISSION = {("update", "spottrainingjobs/finalizers")}

Granted = set[tuple[str, str]]


def render(namespace: str, *settings: str) -> list[dict[str, Any]]:
    arguments = [part for setting in settings for part in ("--set", setting)]
    command = [Binaries(Cache()).helm(), "template", RELEASE, CHART, "--namespace", namespace, *arguments]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents = [document for document in yaml.safe_load_all(text) if document]
    return [d for d in documents if d["kind"] in RIGHTS and not _is_for_users(d)]


def _is_for_users(document: dict[str, Any]) -> bool:
    """The chart's aggregated editor and viewer roles are nobody's until a user is bound."""
    return any("aggregate-to" in label for label in document["metadata"].get("labels") or {})


def granted_by(documents: list[dict[str, Any]]) -> Granted:
    return {
        (verb, resource)
        for document in documents
        for rule in document.get("rules") or ()
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture
def scene(api_server: Any, namespace: str) -> Iterator[Scene]:
    scene = Scene(api_server, namespace)
    scene.add_node()
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield scene
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")


@pytest.fixture
def rights(scene: Scene) -> Iterator[list[dict[str, Any]]]:
    documents = render(scene.namespace)
    for document in documents:
        scene.kubectl("apply", "-f", "-", body=document)
    yield documents
    for document in documents:
        where = ("-n", document["metadata"]["namespace"]) if "namespace" in document["metadata"] else ()
        scene.kubectl("delete", document["kind"], document["metadata"]["name"], *where)


@pytest.fixture
def operator(
    api_server: Any, scene: Scene, rights: list[dict[str, Any]], tmp_path: Path
) -> Iterator[Operator]:
    """The operator with the chart's identity, cluster-wide, as a pod that exists in its namespace."""
    config = yaml.safe_load(Path(api_server.kubeconfig).read_text())
    config["users"][0]["user"] = {
        "token": scene.kubectl("create", "token", RELEASE, "-n", scene.namespace).strip()
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    for name in ("operator-0", "operator-1"):
        labels = {"spottraining.io/leader": "true"} if name == "operator-1" else {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": scene.namespace, "labels": labels},
            "spec": {"containers": [{"name": "operator", "image": "operator"}]},
        }
        scene.kubectl("create", "-f", "-", body=pod)
    operator = Operator(
        str(kubeconfig),
        scene.namespace,
        tmp_path / "operator.log",
        SPOT_OPERATOR_WATCH_NAMESPACES="",
        SPOT_OPERATOR_POD_NAME="operator-0",
        SPOT_OPERATOR_POD_UID="uid-0",
        SPOT_OPERATOR_LEASE_NAME=RELEASE,
    ).start()
    yield operator
    if operator.process is not None and operator.process.poll() is None:
        operator.kill()
    print((tmp_path / "operator.log").read_text())


def claim_for(api: ApiClient, node: str) -> dict[str, str]:
    """An owner that exists: the garbage collector removes a node whose claim is gone."""
    kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    with contextlib.suppress(ApiError):  # another test was first
        api.create(kinds, NODE_CLAIM_CRD)
    kind = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim"}

    def create() -> Any:
        with contextlib.suppress(ApiError):
            body = {**kind, "metadata": {"name": f"{node}-claim"}}
            return api.create("/apis/karpenter.sh/v1/nodeclaims", body)
        return None

    uid = wait_for("node claim", create)["metadata"]["uid"]
    return {**kind, "name": f"{node}-claim", "uid": uid}


def test_chart_grants_exactly_what_the_operator_asks_for(
    api_server: Any, operator: Operator, scene: Scene, rights: list[dict[str, Any]], tmp_path: Path
) -> None:
    used = dict.fromkeys(operator.requests())
    leaders = scene.kubectl(
        "get", "pods", "-n", scene.namespace, "-l", "spottraining.io/leader", "-o", "name"
    )
    assert leaders.split() == ["pod/operator-0"]

    scene.apply_job()
    first = scene.pod_of(1)
    scene.run(first)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    assert report(operator, scene, scene.token(first), {"step": 1, "incarnation": 1})[0] == 200
    taken = first.replace("-1-0", "-2-0")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": taken, "namespace": scene.namespace}}
    pod["spec"] = {"containers": [{"name": "somebody", "image": "somebody"}]}
    scene.kubectl("create", "-f", "-", body=pod)
    claimed = claim_for(api_server.api, scene.node)
    owned = json.dumps({"metadata": {"ownerReferences": [claimed]}})
    scene.kubectl("patch", "node", scene.node, "--type=merge", "-p", owned)
    scene.set_taints(DISRUPTED)
    wait_for("graceful stop", lambda: scene.is_stopping(first))
    scene.set_taints()
    scene.end(first, 75, "stopped", remove=True)
    wait_for("name taken", lambda: "does not belong" in json.dumps(scene.status()))
    scene.kubectl("delete", "pod", taken, "-n", scene.namespace, "--grace-period=0", "--force")
    second = wait_for(
        "second pod", lambda: scene.get("pod", taken).get("metadata", {}).get("ownerReferences")
    )
    assert second

    used |= operator.requests()
    damaged = json.dumps({"data": {"tls.crt": ""}})
    secret = f"{RELEASE}-tls"
    scene.kubectl("patch", "secret", secret, "-n", scene.namespace, "--type=merge", "-p", damaged)
    # The node that a pod is on is read live when the watch has not told of it.
    operator.kill(signal.SIGTERM)
    operator.start()
    scene.run(taken)
    scene.kubectl("delete", "node", scene.node)
    wait_for("live read of the node", lambda: ("get", "nodes") in operator.requests())
    used |= operator.requests()

    granted = granted_by(rights)
    asked = {pair for pair in used if pair[1] != "(discovery)"}
    asked |= {(verb, resource) for resource in WATCHED for verb in ("list", "watch")} | BY_ADMISSION
    assert asked - granted == set(), "asked for and not granted"
    assert granted - asked == set(), "granted and never asked for"
    # What RBAC refuses reads `User "..." cannot list resource ...`.
    assert '" cannot ' not in (tmp_path / "operator.log").read_text().replace("\\", "")


def test_watching_namespaces_moves_the_rights_on_jobs_into_them() -> None:
    everywhere, listed = render("operators"), render("operators", "watchNamespaces={team-a,team-b}")
    assert granted_by(everywhere) == granted_by(listed)
    cluster = granted_by([d for d in listed if d["kind"] == "ClusterRole"])
    nodes = {("get", "nodes"), ("list", "nodes"), ("watch", "nodes"), ("get", "nodeclaims")}
    assert cluster == nodes | {("create", "tokenreviews")}


def test_secrets_and_lease_are_granted_by_name_only(rights: list[dict[str, Any]], scene: Scene) -> None:
    identity = f"system:serviceaccount:{scene.namespace}:{RELEASE}"

    def may(verb: str, resource: str, *where: str) -> bool:
        arguments = ("auth", "can-i", verb, resource, "--as", identity, *where)
        try:
            return scene.kubectl(*arguments).strip() == "yes"
        except (AssertionError, RuntimeError):
            return False  # kubectl exits with 1 on "no"

    own = ("-n", scene.namespace)
    assert may("get", f"secrets/{RELEASE}-tls", *own)
    assert not may("get", "secrets/other", *own)
    assert not may("list", "secrets", *own)
    assert not may("get", f"secrets/{RELEASE}-tls", "-n", "default")
    assert not may("update", "leases/other", *own)
    assert not may("patch", "pods", "-n", "default")
    assert not may("create", "pods", "--subresource=exec", *own)


def test_missing_right_is_named_in_the_log_and_nothing_is_destroyed(
    operator: Operator, scene: Scene, tmp_path: Path
) -> None:
    """Without the right to list pods they are unknown, and unknown pods are neither lost nor replaced."""
    scene.apply_job()
    first = scene.pod_of(1)
    scene.run(first)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    rules = json.loads(scene.kubectl("get", "clusterrole", RELEASE, "-o", "json"))["rules"]
    kept = [rule for rule in rules if "pods" not in rule["resources"]]
    scene.kubectl("patch", "clusterrole", RELEASE, "--type=merge", "-p", json.dumps({"rules": kept}))
    log = tmp_path / "operator.log"

    def is_told() -> bool:
        # Again and again: for a moment the API server goes by the role as it was.
        note = f"note={time.monotonic()}"
        scene.kubectl("annotate", "--overwrite", "spottrainingjob", "digits", "-n", scene.namespace, note)
        return "pods are unknown" in log.read_text()

    wait_for("log line", is_told)
    time.sleep(1)
    assert "deletionTimestamp" not in scene.get("pod", first)["metadata"]
    assert scene.status()["incarnation"] == 1
