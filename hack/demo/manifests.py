"""The example manifests, changed only where this cluster differs from a user's.

Pure but for reading the examples: the demo runs what the documentation shows. Spot nodes
here are tainted, the image has a local name, and steps are slowed down so that there is
time to take nodes away; `--step-seconds` is a sleep and does not touch the arithmetic.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from localcluster.images import REPOSITORY
from localcluster.s3 import S3Access
from localcluster.spec import SPOT_TAINT_KEY

Manifest = dict[str, Any]

EXAMPLES = REPOSITORY / "examples" / "digits"
TRAINER_IMAGE = "localhost/spot-trainer:dev"
OPERATOR_IMAGE = "localhost/spot-training-operator"
SCRIPT_CONFIG_MAP = "digits"
BUCKET = "checkpoints"
CREDENTIALS_SECRET = "s3"
CLAIM = "checkpoints"
SPOT_TOLERATION = {"key": SPOT_TAINT_KEY, "operator": "Exists"}


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """What distinguishes one job of the demo or of a test from the example."""

    name: str
    epochs: int
    step_seconds: float = 0.0
    interval_seconds: int = 5
    volume: bool = False
    """Checkpoints go to the persistent volume instead of S3."""
    fallback: Mapping[str, Any] = field(default_factory=dict)
    deadline: Mapping[str, Any] | None = None
    spot_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that this job may run on, where several jobs lose nodes at once."""
    image: str = TRAINER_IMAGE
    bucket: str = BUCKET
    secret: str = CREDENTIALS_SECRET
    claim: str = CLAIM
    failure_limit: int = 6


def checkpoint_uri(plan: JobPlan) -> str:
    """Where a pod finds this job's checkpoints."""
    if plan.volume:
        return f"file:///checkpoints/{plan.name}"
    return f"s3://{plan.bucket}/{plan.name}"


def load_example(name: str) -> list[Manifest]:
    """The documents of examples/digits/NAME."""
    return [document for document in yaml.safe_load_all((EXAMPLES / name).read_text()) if document]


def make_job(plan: JobPlan, access: S3Access | None) -> Manifest:
    """The example's SpotTrainingJob, adapted."""
    documents = load_example("job-volume.yaml" if plan.volume else "job.yaml")
    job = copy.deepcopy(next(found for found in documents if found["kind"] == "SpotTrainingJob"))
    job["metadata"] = {"name": plan.name}
    spec = job["spec"]
    _slow_down(trainer_container(job), plan)
    checkpoint = spec["checkpoint"]
    checkpoint["interval"] = {"policy": "Fixed", "seconds": plan.interval_seconds}
    if plan.volume:
        checkpoint["persistentVolumeClaim"] = {"claimName": plan.claim, "subPath": plan.name}
    else:
        checkpoint["s3"] = {
            "bucket": plan.bucket,
            "prefix": plan.name,
            "credentialsSecretRef": {"name": plan.secret},
        }
        if access is not None:
            checkpoint["s3"] |= {"endpoint": access.cluster_endpoint, "region": access.region}
    spot = spec["capacity"].setdefault("spot", {})
    spot["tolerations"] = [SPOT_TOLERATION]
    if plan.spot_selector:
        spot["nodeSelector"] = dict(plan.spot_selector)
    _set_policies(spec, plan)
    return job


def _slow_down(container: Manifest, plan: JobPlan) -> None:
    container["image"] = plan.image
    container["imagePullPolicy"] = "IfNotPresent"
    # Two processors for a whole cluster: what a pod asks for must not keep it from being placed.
    container["resources"] = {"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}}
    container["command"] += [
        f"--epochs={plan.epochs}",
        f"--step-seconds={plan.step_seconds:g}",
        "--log-seconds=0",
    ]


def _set_policies(spec: Manifest, plan: JobPlan) -> None:
    spec["fallback"] = dict(plan.fallback)
    spec["failurePolicy"] = {"backoffLimit": plan.failure_limit}
    spec.pop("deadline", None)
    if plan.deadline is not None:
        spec["deadline"] = dict(plan.deadline)


def trainer_container(job: Manifest) -> Manifest:
    """The first container of the job's template."""
    container: Manifest = job["spec"]["template"]["spec"]["containers"][0]
    return container


def script_config_map(script: Path = EXAMPLES / "train.py") -> Manifest:
    """What `kubectl create configmap digits --from-file=...` makes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SCRIPT_CONFIG_MAP},
        "data": {script.name: script.read_text()},
    }


def make_tool_pod(
    name: str, arguments: Sequence[str], *, volume: bool, environment: Mapping[str, str] | None = None
) -> Manifest:
    """A pod on an on-demand node that looks at checkpoints with `python -m spot_trainer`."""
    container: Manifest = {
        "name": "tool",
        "image": TRAINER_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "spot_trainer", *arguments],
        "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
    }
    spec: Manifest = {"restartPolicy": "Never", "containers": [container]}
    if volume:
        container["volumeMounts"] = [{"name": "checkpoints", "mountPath": "/checkpoints"}]
        spec["volumes"] = [{"name": "checkpoints", "persistentVolumeClaim": {"claimName": CLAIM}}]
    else:
        container["envFrom"] = [{"secretRef": {"name": CREDENTIALS_SECRET}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
