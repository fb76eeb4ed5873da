"""One test for each race of section C2 of the interruption catalogue that can be staged at an API server.

C2.7, C2.9, C2.11, C2.13 and C2.16 need kubelets, several pods or minutes: they are in tests/e2e,
tests/simulation and tests/unit.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from operator_scene import wait_for
from staging import Stages, hold

pytestmark = pytest.mark.api

SPOT_ITN = "aws-node-termination-handler/spot-itn"


def test_race_01_the_node_is_gone_before_its_pod_is_marked(stages: Stages) -> None:
    """The pod object says Running for another minute; its job does not wait for that."""
    stage = stages(claims=True)
    stage.remove_node()
    stage.expect("Interruption", "9", seconds=5)
    stage.expect_next_pod(5)
    # The same look asks the old one to go, a call later.
    stage.wait_stopping(1)


def test_race_02_a_pod_is_gone_without_a_terminal_state(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    stage.vanish()
    stage.expect("Interruption", "5")
    stage.expect_next_pod()


def test_race_03_exit_0_after_sigterm_on_a_reclaimed_node(stages: Stages) -> None:
    stage = stages()
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    stage.end(0)
    stage.expect("Interruption", "5")
    stage.expect_next_pod()


def test_race_04_143_and_137_mean_the_same(stages: Stages) -> None:
    verdicts = []
    for code in (143, 137):
        stage = stages()
        stage.taint(SPOT_ITN)
        stage.wait_stopping(2)
        stage.end(code)
        verdicts.append({k: stage.verdict()[k] for k in ("cause", "row", "charged", "evidence")})
    assert verdicts[0] | {"evidence": ""} == verdicts[1] | {"evidence": ""}


def test_race_05_a_stale_disruption_is_no_disruption(stages: Stages) -> None:
    """Kubernetes sets the condition back to False when nothing came of it."""
    stage = stages()
    stage.disrupt("EvictionByEvictionAPI")
    stage.disrupt("EvictionByEvictionAPI", status="False")
    hold(1.5, lambda: not stage.is_stopping(), "a warning that was withdrawn stopped the pod")
    stage.end(1)
    stage.expect("Failure", "21", charged=True)


def test_race_05_a_notice_that_is_withdrawn_costs_at_most_one_restart(stages: Stages) -> None:
    stage = stages()
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    stage.untaint()
    stage.end(75, "stopped")
    stage.run_next()
    hold(2, lambda: not stage.is_stopping(), "the withdrawn notice stopped the next pod as well")
    assert len(stage.restarts()) == 1


def test_race_06_the_kubelets_last_word_is_lost(stages: Stages) -> None:
    """Graceful node shutdown, and the status of the pod never arrives: only the node tells."""
    stage = stages(claims=True)
    stage.node_condition("Ready", "False", "node is shutting down")
    stage.wait_stopping(2)
    stage.remove_node()
    stage.expect("Interruption", "6")


def test_race_08_the_node_comes_back_under_its_name(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.remove_node()
    stage.add_node()
    stage.expect("Interruption", "9")
    stage.expect_next_pod()


def test_race_10_two_controllers_drain_at_once(stages: Stages) -> None:
    stage = stages()
    stage.taint("karpenter.sh/disrupted")
    stage.taint(SPOT_ITN)
    stage.evict()
    stage.evict()
    stage.wait_stopping(2)
    stage.end(75, "stopped")
    stage.expect("Interruption", "5")
    stage.expect_next_pod()
    assert len(stage.restarts()) == 1


def test_race_12_the_program_crashed_and_was_evicted_only_afterwards(stages: Stages) -> None:
    stage = stages()
    stage.disrupt("EvictionByEvictionAPI")
    stage.end(1, finished=-30)
    stage.expect("Failure", "21", charged=True)


def test_race_13_the_crash_comes_first_and_the_loss_of_the_node_later(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.end(1)
    first = stage.expect("Failure", "21", charged=True)
    stage.remove_node()
    wait_for("upgrade", lambda: not stage.restarts()[0]["charged"], 10)
    assert stage.restarts()[0]["evidence"].startswith(first["evidence"] + "; its node was gone")
    assert stage.status()["restarts"].get("failures", 0) == 0


def test_race_14_the_operator_was_down_during_everything(stages: Stages) -> None:
    """Afterwards there are only a missing pod and a missing node."""
    stage = stages(claims=True)
    stages.operator.kill()
    stage.vanish()
    stage.remove_node()
    stages.operator.start()
    stage.expect("Interruption", "9")
    stage.expect_next_pod()


def test_race_14_the_notice_was_seen_before_the_operator_went_down(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    stages.operator.kill()
    stage.vanish()
    stage.remove_node()
    stages.operator.start()
    stage.expect("Interruption", "5")


def test_race_15_clocks_that_differ_by_seconds_change_no_verdict(stages: Stages) -> None:
    """The kubelet's clock is 4 s behind: the program seems to have ended before it was told to stop."""
    stage = stages()
    stage.taint(SPOT_ITN)
    stage.wait_stopping(2)
    stage.end(1, finished=-4)
    stage.expect("Interruption", "5")


def test_race_17_durable_progress_resets_the_budget(stages: Stages) -> None:
    """Failures that are far apart in steps never add up to a job that does not get on."""
    stage = stages(claims=True, failurePolicy={"backoffLimit": 1, "windowSeconds": 1})
    for _ in range(3):
        stage.end(1, "failed")
        restart = stage.verdict()
        ended = datetime.fromisoformat(restart["time"])
        wait_for("the window to pass", lambda ended=ended: (datetime.now(UTC) - ended).total_seconds() > 1.1)
        stage.run_next()
    assert stage.condition("Failed").get("status") != "True"


# --- hand-over ------------------------------------------------------------------------------


def test_hand_over_prepares_the_next_pod_before_the_last_one_has_ended(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    second = stage.expect_next_pod(3)
    assert stage.pod_now() is not None, "the first pod had ended already"
    environment = {e["name"]: e.get("value") for e in second["spec"]["containers"][0]["env"]}
    assert environment["SPOT_HANDOVER_SECONDS"] == "40"
    status = stage.status()
    assert (status["predecessor"]["incarnation"], status["gang"]["incarnation"]) == (1, 2)
    stage.untaint()
    stage.end(75, "stopped")
    wait_for("verdict", lambda: "predecessor" not in stage.status())
    stage.expect("Interruption", "5")
    assert stage.find_pod(3) is None


def test_hand_over_tells_the_successor_when_its_predecessor_is_dead(stages: Stages) -> None:
    stage = stages(claims=True)
    stage.taint(SPOT_ITN)
    stage.expect_next_pod(3)
    stage.untaint()
    stage.pods.append(stage.find_pod(2) or {})
    waiting = {"step": None, "durableStep": None, "checkpointName": None}
    assert "predecessorDead" not in stages.report(stage, waiting)
    assert stages.report(stage, {"step": 95}, incarnation=1)["stop"] == "NodeSignal"
    stage.pods.pop()
    stage.vanish()
    stage.verdict()
    stage.pods.append(stage.find_pod(2) or {})
    assert stages.report(stage, waiting)["predecessorDead"] == 1
