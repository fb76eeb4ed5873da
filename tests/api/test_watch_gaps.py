"""Watches that break off and whose history is gone when they come back (410): nothing is missed for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_scene import DISRUPTED, Operator, Scene, wait_for
from watch_gap import WatchGap

pytestmark = pytest.mark.api

RESYNC_SECONDS = 8


@pytest.fixture
def gap(api_server: Any, tmp_path: Path) -> Iterator[WatchGap]:
    with WatchGap(api_server.kubeconfig, tmp_path).serving() as gap:
        yield gap


@pytest.fixture
def behind(gap: WatchGap, scene: Scene, tmp_path: Path) -> Iterator[Operator]:
    """An operator that reaches the API server through the proxy."""
    log = tmp_path / "operator.log"
    settings = {
        "SPOT_OPERATOR_RESYNC_SECONDS": str(RESYNC_SECONDS),
        # The container claims nothing, so its successor waits for it to be surely dead.
        "SPOT_OPERATOR_POLICY_PLAIN_TAKE_OVER_SECONDS": "1",
    }
    operator = Operator(str(gap.kubeconfig), scene.namespace, log, **settings).start()
    yield operator
    operator.kill()
    print(text := log.read_text())
    assert "unexpectedly" not in text


def begin(scene: Scene) -> str:
    scene.apply_job()
    pod = scene.pod_of(1)
    scene.run(pod)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    return pod


def open_gap(gap: WatchGap) -> None:
    gap.open()
    wait_for("watches of jobs, pods and nodes answered with 410", lambda: gap.num_gone >= 3, 30)


def test_a_pod_that_ended_within_the_gap_is_found(gap: WatchGap, behind: Operator, scene: Scene) -> None:
    pod = begin(scene)
    open_gap(gap)
    scene.end(pod, 1, "")
    scene.pod_of(2)
    gap.close()
    (restart,) = scene.status()["recentRestarts"]
    assert (restart["cause"], restart["exitCode"]) == ("Failure", 1)


def test_a_pod_and_a_node_that_vanished_within_the_gap_are_missed_no_longer_than_a_listing(
    gap: WatchGap, behind: Operator, scene: Scene
) -> None:
    """No watch ever tells of a deletion that its server has forgotten."""
    pod = begin(scene)
    open_gap(gap)
    scene.kubectl("delete", "pod", pod, "-n", scene.namespace, "--grace-period=0", "--force")
    scene.kubectl("delete", "node", scene.node)
    gap.close()
    restart = wait_for("verdict", lambda: scene.status().get("recentRestarts"), RESYNC_SECONDS + 12)[0]
    assert (restart["cause"], restart["row"]) == ("Interruption", "9")
    scene.pod_of(2)


def test_what_happens_after_the_gap_is_heard(gap: WatchGap, behind: Operator, scene: Scene) -> None:
    pod = begin(scene)
    open_gap(gap)
    gap.close()
    scene.set_taints(DISRUPTED)
    # kopf itself waits between two attempts to watch.
    wait_for("graceful stop", lambda: scene.is_stopping(pod), 40)
