"""What is missing is named and heals by itself; what breaks beside the training costs a warning."""

import subprocess
import threading
import time

import pytest
from scene_bench import FINISH_SECONDS, TOTAL_STEPS, Bench, Place, Result, SceneFunction, problems

from demo.jobs import condition
from demo.lab import TRAINER_UID
from demo.manifests import TRAINER_IMAGE

pytestmark = pytest.mark.e2e

NAMED_WITHIN_SECONDS = 60
NAMED_BY_THE_TRAINER_WITHIN_SECONDS = 120
"""Its program has to start and to end before."""
S3_AWAY_SECONDS = 60


def _names(
    place: Place,
    name: str,
    reason: str,
    missing: str,
    *,
    type_: str = "PodsReady",
    within_seconds: float = NAMED_WITHIN_SECONDS,
) -> None:
    """Wait until the condition says what is missing, by its name."""
    job = place.jobs.wait_condition(
        name, type_, status="False", reason=reason, timeout_seconds=within_seconds
    )
    assert missing in condition(job, type_)["message"]


def missing_secret(place: Place) -> Result:
    place.add_nodes(1)
    plan = place.plan(secret="absent")
    place.apply(plan)
    _names(place, plan.name, "CreateContainerConfigError", 'secret "absent" not found')
    place.lab.cluster.s3.publish(place.lab.cluster.api, place.jobs.namespace, name="absent")
    place.stage.finish(FINISH_SECONDS)
    return place.result(plan)


def missing_image(place: Place) -> Result:
    place.add_nodes(1)
    image = "localhost/absent:1"
    plan = place.plan(image=image)
    place.apply(plan)
    _names(place, plan.name, "ImagePullFailed", image)
    tag = ("ctr", "--namespace", "k8s.io", "images", "tag", TRAINER_IMAGE, image)
    subprocess.run(place.lab.cluster.exec_command(f"{place.name}-1", *tag), check=True, timeout=60)
    place.stage.finish(FINISH_SECONDS)
    return place.result(plan)


def missing_claim(place: Place) -> Result:
    place.add_nodes(1)
    plan = place.plan(volume=True, claim="absent")
    place.apply(plan)
    _names(place, plan.name, "MissingObject", 'persistentvolumeclaim "absent" not found')
    place.lab.cluster.shared_volume(place.jobs.namespace, "absent", owner_uid=TRAINER_UID)
    place.stage.finish(FINISH_SECONDS)
    return place.result(plan)


def missing_bucket(place: Place) -> Result:
    place.add_nodes(1)
    plan = place.plan(bucket="absent-bucket")
    place.apply(plan)
    _names(
        place,
        plan.name,
        "NoSuchBucket",
        "absent-bucket",
        type_="CheckpointReady",
        within_seconds=NAMED_BY_THE_TRAINER_WITHIN_SECONDS,
    )
    place.lab.cluster.s3.create_bucket("absent-bucket")
    place.stage.finish(FINISH_SECONDS)
    return place.result(plan, compare=False)


SCENES: dict[str, SceneFunction] = {
    "missing-secret": missing_secret,
    "missing-image": missing_image,
    "missing-claim": missing_claim,
    "missing-bucket": missing_bucket,
}


@pytest.fixture(scope="module", autouse=True)
def _started(bench: Bench) -> None:
    bench.start(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_what_is_missing_is_named_and_the_job_heals_when_it_appears(bench: Bench, name: str) -> None:
    result = bench.result(name)
    assert result.training.last_step == TOTAL_STEPS
    assert problems(result, bench.reference) == []
    assert result.status["restarts"].get("failures", 0) == 0


def s3_away(place: Place) -> Result:
    place.add_nodes(1)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(12)
    place.lab.cluster.s3.stop()
    # The length of the outage is the disturbance itself.
    time.sleep(S3_AWAY_SECONDS)
    place.lab.cluster.s3.start()
    stage.finish(FINISH_SECONDS)
    return place.result(plan)


def test_a_store_that_goes_away_for_a_while_costs_a_warning(bench: Bench) -> None:
    bench.wait_for_all()
    result = bench.play("s3-away", s3_away)
    (life,) = result.training.lives.values()
    assert life.warnings
    assert problems(result, bench.reference) == []
    assert result.restarts == []


def operator_killed(place: Place) -> Result:
    """The operator dies while it handles a reclaim; nobody but its kubelet brings it back."""
    place.add_nodes(1, 2)
    plan, stage = place.plan(), place.stage
    place.apply(plan)
    stage.wait_for_step(15)
    reclaim = threading.Thread(target=stage.reclaim, kwargs={"notice_seconds": 60})
    reclaim.start()
    killed = place.lab.kill_program(place.lab.operator_pod())
    reclaim.join()
    stage.finish(FINISH_SECONDS)
    return place.result(plan, killed=killed)


def test_killing_the_operator_in_the_middle_of_a_reclaim_loses_nothing(bench: Bench) -> None:
    bench.wait_for_all()
    result = bench.play("operator-killed", operator_killed)
    assert [found["cause"] for found in result.restarts] == ["Interruption"]
    assert (len(result.pods), result.status["incarnation"]) == (2, 2)
    assert problems(result, bench.reference) == []
