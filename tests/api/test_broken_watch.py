"""A watch that breaks with another error than 410, or is refused, begins anew in the same process.

And what was missed meanwhile is found at once, even where the new listing of that kind is empty. The errors
come from a proxy before a real API server, which does not fail on demand; everything else is real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from operator_scene import Operator, Scene, wait_for
from staging import Stage, Stages, hold
from watch_proxy import WatchProxy, proxied

from spot_operator.credentials import find_credentials

pytestmark = pytest.mark.api

SETTINGS = {"SPOT_OPERATOR_RESYNC_SECONDS": "1800"}  # the periodic listing is too far away to help


@dataclass(frozen=True)
class Behind:
    """An operator behind the proxy."""

    proxy: WatchProxy
    stages: Stages

    def is_alive(self) -> bool:
        process = self.stages.operator.process
        return process is not None and process.poll() is None

    def num_errors(self) -> float:
        lines = self.stages.operator.get("/metrics").splitlines()
        found = [line for line in lines if line.startswith("spot_operator_watch_errors_total{")]
        return sum(float(line.split("} ")[1]) for line in found)

    def num_listings(self) -> int:
        """The operator's own; kopf's are not among them."""
        return self.stages.operator.requests()["list", "pods"]


@pytest.fixture
def behind(api_server: Any, namespace: str, tmp_path: Path) -> Iterator[Behind]:
    scene = Scene(api_server, namespace)
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    tls = find_credentials({}, str(api_server.kubeconfig)).ssl_context()
    log, kubeconfig = tmp_path / "operator.log", tmp_path / "kubeconfig"
    with proxied(api_server.kubeconfig, kubeconfig, tls) as proxy:
        operator = Operator(str(kubeconfig), namespace, log, **SETTINGS).start()
        stages = Stages(api_server.api, scene, operator)
        try:
            yield Behind(proxy, stages)
        finally:
            stages.close()
            print(log.read_text())


def settled_stage(behind: Behind) -> Stage:
    """Its pod runs, and no listing is about to come."""
    stage = behind.stages(claims=True)
    seen: list[int] = []

    def is_settled() -> bool:
        seen.append(behind.num_listings())
        return len(seen) > 60 and len(set(seen[-60:])) == 1

    wait_for("no more listings", is_settled, 60)
    return stage


def test_what_a_broken_watch_missed_is_found_although_the_next_listing_is_empty(behind: Behind) -> None:
    stage = settled_stage(behind)
    behind.proxy.deafen("pods")
    stage.vanish()
    hold(2, lambda: stage.find_pod(2) is None, "the proxy lets through what it should not")
    assert behind.proxy.break_watches("pods", 410) == 1
    stage.expect_next_pod()
    assert behind.num_errors() == 0


def test_a_watch_that_breaks_with_an_error_begins_anew(behind: Behind) -> None:
    stage = settled_stage(behind)
    behind.proxy.deafen("pods")
    stage.vanish()
    assert behind.proxy.break_watches("pods", 500) == 1
    stage.expect_next_pod()
    stage.run_next()
    behind.stages.claim(stage)
    wait_for("new watch", lambda: behind.proxy.num_watches("pods") == 1)
    stage.end(75, "stopped")
    stage.expect_next_pod()
    assert (behind.is_alive(), behind.num_errors()) == (True, 1)


@pytest.mark.parametrize(("plural", "status"), [("pods", 404), ("nodes", 403), ("spottrainingjobs", 404)])
def test_a_watch_that_is_refused_for_a_while_costs_nothing_else(
    behind: Behind, plural: str, status: int
) -> None:
    stage = settled_stage(behind)
    behind.proxy.refuse(plural, status)
    assert behind.proxy.break_watches(plural, 410) == 1
    hold(5, behind.is_alive, "the operator gave up")
    stage.end(75, "stopped")
    behind.proxy.grant(plural)
    stage.expect_next_pod(seconds=40)
    wait_for("new watch", lambda: behind.proxy.num_watches(plural) == 1, 40)
    assert behind.is_alive()
