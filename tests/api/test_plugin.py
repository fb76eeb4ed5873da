"""`kubectl spottraining` against a real API server, with the operator behind it and the test as kubelet.

It is started the way a user starts it: by kubectl, as an executable on PATH.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from operator_scene import wait_for
from staging import Stage, Stages

pytestmark = pytest.mark.api
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plugin:
    environ: dict[str, str]
    kubectl: Path
    kubeconfig: Path
    namespace: str

    def start(self, *words: str) -> subprocess.Popen[str]:
        where = ("-n", self.namespace, "--kubeconfig", str(self.kubeconfig))
        command = [str(self.kubectl), "spottraining", *words, *where]
        return subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str, code: int = 0) -> str:
        """What it printed; errors are what it printed to stderr."""
        return self.end(self.start(*words), code=code)

    def end(self, process: subprocess.Popen[str], *, code: int = 0) -> str:
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, (out, err)
        return err if code else out


@pytest.fixture(scope="module")
def plugin(stages: Stages, api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    folder = tmp_path_factory.mktemp("path")
    program = folder / "kubectl-spottraining"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m spot_plugin "$@"\n')
    program.chmod(0o755)
    (folder / "kubectl").symlink_to(api_server.kubectl_path)
    environ = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer'}",
        "KUBECONFIG": str(folder / "none"),
    }
    return Plugin(environ, folder / "kubectl", api_server.kubeconfig, "plugin")


def test_status_lists_jobs_with_capacity_progress_and_slack(plugin: Plugin, stages: Stages) -> None:
    stage = stages(claims=True, deadline={"secondsAfterCreation": 7200, "expectedDurationSeconds": 3600})
    wait_for("durable step", lambda: stage.status().get("progress", {}).get("durableStep") == 80)
    lines = plugin.run("status").splitlines()
    assert lines[0].split() == [
        "NAME", "PHASE", "CAPACITY", "PROGRESS", "STEP", "SAFE", "ETA", "DEADLINE", "SLACK",
        "INTERRUPTED", "FAILED", "COST", "PROJECTED",
    ]  # fmt: skip
    (line,) = (line.split() for line in lines if line.startswith(stage.name + " "))
    assert line[:6] == [stage.name, "Running", "spot", "9%", "90/1000", "80"]
    found = json.loads(plugin.run("status", stage.name, "--json"))
    assert (found["phase"], found["capacity"]["type"]) == ("Running", "spot")
    assert found["progress"]["durableStep"] == 80
    assert found["deadline"] == stage.status()["deadline"].replace("Z", "+00:00")


def test_explain_says_why_and_what_would_change_it(plugin: Plugin, stages: Stages) -> None:
    fallback = {"policy": "Rules", "afterInterruptions": {"count": 3, "windowSeconds": 3600}}
    stage = stages(claims=True, fallback=fallback, deadline={"secondsAfterCreation": 7200})
    stage.taint("karpenter.sh/disrupted")
    wait_for("stop", lambda: "stop" in stage.status().get("gang", {}) or stage.status().get("predecessor"))
    said = plugin.run("explain", stage.name)
    assert "karpenter.sh/disrupted" in said
    stage.end(75, "stopped")
    stage.untaint()
    wait_for("restart", lambda: stage.status().get("recentRestarts"))
    stage.run_next()
    said = plugin.run("explain", stage.name)
    print(said)
    assert f"plugin/{stage.name}: Running, spot since" in said
    assert "Capacity spot (SpotFirst): no fallback rule has fired" in said
    assert "the deadline; if the work is not done, it goes on, late" in said
    restart = stage.status()["recentRestarts"][-1]
    assert restart["evidence"] in said
    assert restart["row"] in said
    assert f"kubectl spottraining checkpoint {stage.name} -n plugin: save now" in said
    found = json.loads(plugin.run("explain", stage.name, "--json"))
    assert found["recentRestarts"][-1] == restart
    assert any(each["time"] is not None for each in found["changes"])


def test_a_job_that_waits_for_spot_is_explained_with_the_time_when_it_gives_up(
    plugin: Plugin, stages: Stages, api_server: Any
) -> None:
    container = {"name": "trainer", "image": "trainer", "command": ["train"]}
    job = {
        "apiVersion": "spottraining.io/v1alpha1",
        "kind": "SpotTrainingJob",
        "metadata": {"name": "waiting", "namespace": plugin.namespace},
        "spec": {
            "template": {"spec": {"containers": [container]}},
            "checkpoint": {"s3": {"bucket": "checkpoints"}},
            "capacity": {
                "preset": "Labels",
                "spot": {"nodeSelector": {"pool": "nowhere"}},
                "onDemand": {"nodeSelector": {"pool": "elsewhere"}},
            },
            "fallback": {"afterPendingSeconds": 900},
        },
    }
    api_server.kubectl("create", "-f", "-", input=json.dumps(job))

    def is_unschedulable() -> bool:
        found = json.loads(plugin.run("explain", "waiting", "--json"))["conditions"]
        return any(c["type"] == "CapacityAvailable" and c["status"] == "False" for c in found)

    wait_for("no capacity", is_unschedulable)
    said = plugin.run("explain", "waiting")
    print(said)
    assert "plugin/waiting: Pending, spot since" in said
    assert "CapacityAvailable is false" in said
    assert "on-demand, if no spot node comes within 15m (afterPendingSeconds)" in said
    assert "set spec.fallback.policy to OnDemandOnly: start on on-demand now" in said


def test_suspend_waits_for_the_last_checkpoint_and_resume_for_the_next_pod(
    plugin: Plugin, stages: Stages
) -> None:
    stage = stages(claims=True)
    suspending = plugin.start("suspend", stage.name, "--wait", "--timeout", "40s")
    wait_for("graceful stop", lambda: is_going(stage))
    assert suspending.poll() is None
    stage.end(75, "stopped")
    said = plugin.end(suspending)
    assert f"{stage.name} is suspended; its last checkpoint holds step 100" in said
    assert stage.status()["phase"] == "Suspended"
    said = plugin.run("explain", stage.name)
    assert f"plugin/{stage.name}: Suspended" in said
    assert f"kubectl spottraining resume {stage.name} -n plugin: go on from the last checkpoint" in said

    resuming = plugin.start("resume", stage.name, "--wait", "--timeout", "40s")
    stage.run_next()
    assert f"{stage.name} runs on {stage.node}" in plugin.end(resuming)
    assert stage.status()["phase"] == "Running"


def test_checkpoint_asks_the_trainer_and_waits_until_it_is_durable(plugin: Plugin, stages: Stages) -> None:
    stage = stages(claims=True)
    wait_for("durable step", lambda: stage.status().get("progress", {}).get("durableStep") == 80)
    asking = plugin.start("checkpoint", stage.name, "--wait", "--timeout", "40s")
    report = {"step": 95, "totalSteps": 1000, "durableStep": 80}
    wait_for("directive", lambda: "checkpointNow" in stages.report(stage, report))
    assert asking.poll() is None
    stages.report(stage, {"step": 97, "totalSteps": 1000, "durableStep": 96})
    assert f"{stage.name} has saved; it is safe up to step 96" in plugin.end(asking)


def test_checkpoint_of_a_job_that_cannot_be_asked_is_an_error(plugin: Plugin, stages: Stages) -> None:
    stage = stages()
    assert "has not reported yet" in plugin.run("checkpoint", stage.name, code=3)
    plugin.run("suspend", stage.name)
    wait_for("graceful stop", lambda: is_going(stage))
    stage.end(75, "stopped")
    wait_for("Suspended", lambda: stage.status().get("phase") == "Suspended")
    said = plugin.run("checkpoint", stage.name, code=3)
    assert f"{stage.name} is not running, so nothing could save" in said


def test_a_wait_that_takes_too_long_says_where_it_stands(plugin: Plugin, stages: Stages) -> None:
    stage = stages()
    said = plugin.run("suspend", stage.name, "--wait", "--timeout", "2s", code=4)
    assert f"{stage.name}: not yet after 2s (Stopping: stopping: " in said
    assert "kubectl spottraining explain" in said


def test_what_kubectl_refuses_reaches_the_user_with_a_remedy(plugin: Plugin) -> None:
    said = plugin.run("explain", "absent", code=3)
    assert '"absent" not found' in said
    assert "kubectl spottraining status -A" in said
    said = plugin.run("status", "--context", "absent", code=3)
    assert "absent" in said


def is_going(stage: Stage) -> bool:
    found = stage.pod_now()
    return found is None or "deletionTimestamp" in found["metadata"]
