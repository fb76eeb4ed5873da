"""Unmodified Hugging Face `transformers` in a container: its reports, a reclaim, and its own resume."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from operator_scene import REPOSITORY
from scene_bench import Bench, Place, Result

from demo.lab import TRAINER_UID
from demo.manifests import CLAIM, Manifest

pytestmark = pytest.mark.e2e

NAME = "volume-hf"
STEPS = 60
STEP_SECONDS = 0.6
SCRIPT = REPOSITORY / "tests/support/transformers_train.py"
PACKAGES = REPOSITORY / ".venv-transformers/image"
CONTAINER_ROOT = "/checkpoints"


def put_packages(root: Path) -> None:
    """What a user's image would hold: transformers, and the script."""
    if not PACKAGES.is_dir():
        subprocess.run([REPOSITORY / "hack/setup-transformers.sh"], check=True)
    root.mkdir()
    shutil.copytree(PACKAGES, root / "packages")
    shutil.copy(SCRIPT, root / "train.py")
    (root / "output").mkdir()
    for path in (root, root / "output"):
        shutil.chown(path, TRAINER_UID, TRAINER_UID)


def without_library(job: Manifest) -> None:
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    words = ["python3", f"{CONTAINER_ROOT}/train.py", "--output", f"{CONTAINER_ROOT}/output"]
    container["command"] = [*words, "--steps", str(STEPS), "--step-seconds", str(STEP_SECONDS)]
    container["resources"] = {"requests": {"memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    container["env"] = [
        {"name": "PYTHONPATH", "value": f"{CONTAINER_ROOT}/packages"},
        {"name": "HF_HUB_OFFLINE", "value": "1"},
        # Failed reports are told at this level only.
        {"name": "TRANSFORMERS_VERBOSITY", "value": "debug"},
    ]


def transformers_reclaim(place: Place) -> Result:
    place.add_nodes(1, 2)
    plan, stage = place.plan(volume=True), place.stage
    put_packages(place.lab.cluster.paths.volumes / place.name / CLAIM / plan.name)
    place.apply(plan, without_library)
    shown: list[dict[str, Any]] = []

    def look() -> dict[str, Any]:
        status: dict[str, Any] = place.jobs.get(plan.name).get("status", {})
        progress = status.get("progress", {})
        if progress and (not shown or shown[-1] != progress):
            shown.append(progress)
        return status

    def has_reached(step: int) -> bool:
        return int(look().get("progress", {}).get("step") or 0) >= step

    place.lab.cluster.wait_for(lambda: has_reached(10), what="step 10 in status", timeout_seconds=150)
    scene = stage.reclaim(notice_seconds=60)
    place.lab.cluster.wait_for(
        lambda: look()["phase"] in ("Complete", "Failed"), what="the end", timeout_seconds=200
    )
    last = place.jobs.pods(plan.name)[-1]["metadata"]["name"]
    log = place.lab.cluster.kubectl("logs", "--namespace", place.name, last)
    return place.result(plan, scene=scene, shown=shown, log=log)


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start({NAME: transformers_reclaim})


def test_reports_reach_the_status_before_and_after_a_reclaim(bench: Bench) -> None:
    result = bench.result(NAME)
    shown = result.notes["shown"]
    print([(progress.get("step"), progress.get("percentage")) for progress in shown])
    assert result.status["phase"] == "Complete"
    assert len(result.pods) == 2
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
    assert not result.status.get("claims")
    assert {progress.get("launch") for progress in shown} - {None} == {1, 2}
    steps = [progress.get("step") or 0 for progress in shown]
    assert steps == sorted(steps)
    # transformers says 100 % whenever its loop ends: when it was stopped in the middle, that was not the end.
    assert all(progress["percentage"] < 100 for progress in shown if progress.get("launch") == 1)
    # The last launch's loop ended where the run does. What it says then may repeat the step of the report
    # before, and may be seen more than once; nothing else comes after it.
    percentages = [progress["percentage"] for progress in shown]
    assert set(percentages[percentages.index(max(percentages)) :]) == {max(percentages)}
    assert f"resuming {CONTAINER_ROOT}/output/checkpoint-" in result.notes["log"]
    assert f"ended at step {STEPS}" in result.notes["log"]
    assert "Failed to update status" not in result.notes["log"]
    assert 0 < shown[-1]["stepsPerSecond"] < 1 / STEP_SECONDS * 1.2
