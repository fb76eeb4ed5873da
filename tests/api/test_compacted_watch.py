"""The API server no longer knows what a watch has missed (410 Gone); the operator acts upon it all the same.

For real: the operator is cut off, the cluster moves on, and kube-apiserver is killed meanwhile, whose next
process remembers nothing of the gap. kopf then lists anew, and a listing does not tell what is no longer
there. The operator's own listing is too far away to help.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from operator_scene import Operator, Scene, wait_for
from staging import Stage, Stages, hold
from tcp_proxy import TcpProxy, proxied

from localcluster.api import ApiClient, ApiError

pytestmark = pytest.mark.api

NAMESPACE = "gap"
WATCHED = (
    "/api/v1/nodes",
    f"/api/v1/namespaces/{NAMESPACE}/pods",
    f"/apis/spottraining.io/v1alpha1/namespaces/{NAMESPACE}/spottrainingjobs",
)
MAX_LISTINGS = 3
"""The three watches begin anew one after the other."""
SETTINGS = {
    "SPOT_OPERATOR_RESYNC_SECONDS": "1800",
    # It has to stay the same process: a new one would list everything.
    "SPOT_OPERATOR_LEASE_DURATION_SECONDS": "120",
    "SPOT_OPERATOR_LEASE_RENEW_DEADLINE_SECONDS": "100",
}


@dataclass(frozen=True)
class Gap:
    """One job for each thing that happened while nobody looked."""

    ended: Stage
    vanished: Stage
    stranded: Stage
    untouched: Stage
    operator: Operator
    num_listings: int
    """Of the nodes, before the gap."""


@pytest.fixture(scope="module")
def gap(own_api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gap]:
    server, folder = own_api_server, tmp_path_factory.mktemp("gap")
    server.kubectl("create", "namespace", NAMESPACE)
    scene = Scene(server, NAMESPACE)
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    address = server.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    port = address.rpartition(":")[2]
    with proxied(int(port)) as proxy:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(server.kubeconfig.read_text().replace(f":{port}", f":{proxy.port}"))
        log = folder / "operator.log"
        operator = Operator(str(kubeconfig), NAMESPACE, log, **SETTINGS).start()
        stages = Stages(server.api, scene, operator)
        try:
            yield open_gap(server, proxy, stages)
        finally:
            stages.close()
            print(text := log.read_text())
        assert "unexpectedly" not in text


def open_gap(server: Any, proxy: TcpProxy, stages: Stages) -> Gap:
    ended, vanished, stranded, untouched = (stages(claims=True) for _ in range(4))
    time.sleep(2)  # what was woken by the reports has been looked at
    num_listings = count_listings(stages.operator)
    proxy.cut()
    version = server.api.get("/api/v1/nodes")["metadata"]["resourceVersion"]  # nothing newer was heard
    ended.end(75, "stopped")
    vanished.vanish()
    vanished.remove_node()
    stranded.remove_node()
    untouched.beat()
    server.cluster.stop_program("control-plane", "kube-apiserver")
    server.cluster.start_program("control-plane", "kube-apiserver")
    wait_for("API server", server.api.is_ready, 60)
    for path in WATCHED:
        wait_for(f"410 at {path}", lambda path=path: is_compacted(server.api, path, version))
    proxy.mend()
    return Gap(ended, vanished, stranded, untouched, stages.operator, num_listings)


def count_listings(operator: Operator) -> int:
    """kopf's own are not among them."""
    return operator.requests()["list", "nodes"]


def is_compacted(api: ApiClient, path: str, version: str) -> bool:
    """Whether a watch that goes on from this version is told that it cannot."""
    try:
        event = api.get(f"{path}?watch=1&resourceVersion={version}&timeoutSeconds=1")
    except ApiError as error:
        if error.status == 429:  # "storage is (re)initializing"
            return False
        raise
    return (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_a_pod_that_ended_in_the_gap_has_a_successor(gap: Gap) -> None:
    gap.ended.expect_next_pod()
    assert len(gap.ended.restarts()) == 1


def test_a_pod_that_vanished_with_its_node_in_the_gap_is_an_interruption(gap: Gap) -> None:
    gap.vanished.expect("Interruption", "9")
    gap.vanished.expect_next_pod()


def test_a_node_that_vanished_in_the_gap_is_an_interruption_of_the_pod_that_stayed(gap: Gap) -> None:
    gap.stranded.expect("Interruption", "9")
    gap.stranded.expect_next_pod()


def test_a_job_to_which_nothing_happened_in_the_gap_goes_on(gap: Gap) -> None:
    hold(2, lambda: not gap.untouched.is_stopping(), "the gap alone stopped its pod")
    assert (gap.untouched.restarts(), gap.untouched.status()["incarnation"]) == ([], 1)


def test_everything_is_listed_at_the_start_and_where_a_watch_begins_and_hardly_more_often(gap: Gap) -> None:
    assert gap.num_listings in (1, 2)  # nothing was there yet for the watches to begin with, or it was
    most = gap.num_listings + MAX_LISTINGS
    hold(3, lambda: count_listings(gap.operator) <= most, "one listing after the other")
    assert count_listings(gap.operator) > gap.num_listings
