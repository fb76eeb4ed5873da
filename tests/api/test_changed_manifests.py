"""What may change in a job, and when."""

import json
from typing import Any

import pytest
from manifests import BASE

pytestmark = pytest.mark.api


IMAGE = {"template": {"spec": {"containers": [{"name": "trainer", "image": "other"}]}}}
BUCKET = {"checkpoint": {"s3": {"bucket": "other-bucket"}}}
VOLUME = {"checkpoint": {"s3": None, "persistentVolumeClaim": {"claimName": "c"}}}


@pytest.fixture
def job(api_server: Any, namespace: str) -> str:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(BASE))
    return namespace


def patch(api_server: Any, namespace: str, spec: dict[str, Any]) -> Any:
    body = json.dumps({"spec": spec})
    return api_server.run("patch", "stj", "digits", "-n", namespace, "--type=merge", "-p", body)


REFUSED = {
    "a template": (
        IMAGE,
        "spec.template: Forbidden: template can be changed only while the job is suspended; "
        "set suspend to true first",
    ),
    "the trainer's container, as it is by default": (
        {"trainerContainer": "trainer"},
        "spec.trainerContainer: Forbidden: trainerContainer can be changed only while the job is suspended; "
        "set suspend to true first",
    ),
    "the bucket": (
        BUCKET,
        "spec.checkpoint: Forbidden: the store can be changed only while the job is suspended; "
        "set suspend to true first",
    ),
    "the kind of store": (
        VOLUME,
        "spec.checkpoint: Forbidden: the store can be changed only while the job is suspended; "
        "set suspend to true first",
    ),
}
NEVER = {
    "the run identity": (
        {"checkpoint": {"runID": "other/run"}},
        "spec.checkpoint.runID: Forbidden: runID cannot be changed; "
        "delete the job and create it again under the new runID",
    ),
    "the controller": (
        {"managedBy": "kueue.x-k8s.io/multikueue"},
        "spec.managedBy: Forbidden: managedBy cannot be changed; delete the job and create it again",
    ),
}


@pytest.mark.parametrize(("change", "message"), [*REFUSED.values(), *NEVER.values()], ids=[*REFUSED, *NEVER])
def test_not_while_running(api_server: Any, job: str, change: dict[str, Any], message: str) -> None:
    result = patch(api_server, job, change)
    assert result.stderr.strip() == f'The SpotTrainingJob "digits" is invalid: {message}'


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_while_suspended(api_server: Any, job: str, change: dict[str, Any], message: str) -> None:
    assert patch(api_server, job, {"suspend": True}).returncode == 0
    assert patch(api_server, job, change | {"suspend": False}).returncode == 0


@pytest.mark.parametrize(("change", "message"), NEVER.values(), ids=list(NEVER))
def test_never(api_server: Any, job: str, change: dict[str, Any], message: str) -> None:
    assert patch(api_server, job, {"suspend": True}).returncode == 0
    assert message in patch(api_server, job, change).stderr


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": True},
        {"numNodes": 1},
        {"fallback": {"afterInterruptions": {"count": 3}}},
        {"deadline": {"secondsAfterCreation": 7200}},
        {"checkpoint": {"keepLast": 5, "interval": {"seconds": 60}}},
        {"capacity": {"spot": {"pricePerNodeHour": "1.5"}}},
        {"podRetention": "All"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_at_any_time(api_server: Any, job: str, change: dict[str, Any]) -> None:
    assert patch(api_server, job, change).stderr == ""
