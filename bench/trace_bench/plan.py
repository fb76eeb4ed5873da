"""Which jobs there are, when each is applied, and the chart's values for compressed time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from localcluster.s3 import S3Access
from localcluster.spec import SPOT_TAINT_KEY

NAMESPACE: Final = "trace"
BUCKET: Final = "trace"
PROGRAM: Final = "trace-trainer"
"""Name of the ConfigMap with the training program."""
IMAGE: Final = "localhost/spot-training-operator:dev"
"""Python and nothing for training: the program needs only the standard library."""
ZONE_LABEL: Final = "topology.kubernetes.io/zone"

SPOT_PRICE, ON_DEMAND_PRICE = 0.9731, 3.06
"""A V100 at AWS, as in the literature."""
STEP_SECONDS: Final = 0.5
INTERVAL_SECONDS: Final = 10
STAGGER_SECONDS: Final = 2.0
"""Between two jobs: two processors for everybody, and users do not come all at once either."""
DEADLINES: Final = (1.35, 1.6, 1.9, 2.3)
"""Time that the jobs of a zone have, over their work: from tight to loose."""

LAUNCH_SECONDS: Final = 5
"""Of a pod here until useful work, before one was seen: no machine has to be bought and no image pulled."""
RESERVE_SECONDS: Final = 8
"""Half of what a look may be late, as the simulator keeps it."""
SETTINGS: Final = (
    f"policy.launchSeconds={LAUNCH_SECONDS}",
    f"policy.onDemandReserveSeconds={RESERVE_SECONDS}",
    # Fifteen minutes of the recording.
    "policy.returnPauseSeconds=11",
    "policy.backoffBaseSeconds=1",
    "policy.backoffMaxSeconds=5",
    "policy.settleSeconds=5",
    "policy.spotUnreachableTolerationSeconds=5",
    # Before its first report nobody knows that a program claims its store.
    "policy.plainTakeOverSeconds=2",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    jobs: int = 20
    work_seconds: float = 220.0
    compression: float = 80.0
    """Seconds of the recording in one of here: launches of 5 s stand for those of 6 to 7 minutes."""
    seed: int = 4

    @property
    def window_seconds(self) -> float:
        """How long the market is replayed: to the last deadline."""
        return self.jobs * STAGGER_SECONDS + max(DEADLINES) * self.work_seconds + 10.0


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    zone: str
    applied_after: float
    """Since the beginning of the market."""
    work_seconds: float
    deadline_seconds: int
    """Since its creation."""

    @property
    def num_steps(self) -> int:
        return round(self.work_seconds / STEP_SECONDS)


def jobs(options: Options, zones: Sequence[str]) -> list[Job]:
    """In the order in which they are applied: the zones take turns, and in each the tight ones come first."""
    made = []
    for number in range(options.jobs):
        turn, zone = number // len(zones), zones[number % len(zones)]
        deadline = DEADLINES[turn % len(DEADLINES)] * options.work_seconds
        made.append(
            Job(
                name=f"{zone}-{turn + 1}",
                zone=zone,
                applied_after=number * STAGGER_SECONDS,
                work_seconds=options.work_seconds,
                deadline_seconds=round(deadline),
            )
        )
    return made


def manifest(job: Job, access: S3Access) -> dict[str, Any]:
    """The job as a user would write it."""
    container = {
        "name": "trainer",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-m", "trace_bench.trainer", str(job.num_steps), str(STEP_SECONDS)],
        "env": [{"name": "PYTHONPATH", "value": "/program"}],
        "envFrom": [{"secretRef": {"name": "s3"}}],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "program", "mountPath": "/program", "readOnly": True}],
    }
    template = {
        "spec": {
            "terminationGracePeriodSeconds": 15,
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": PROGRAM, "items": program_items()}}],
        }
    }
    return {
        "apiVersion": "spottraining.io/v1alpha1",
        "kind": "SpotTrainingJob",
        "metadata": {"name": job.name},
        "spec": {
            "template": template,
            "checkpoint": {
                "s3": {
                    "bucket": BUCKET,
                    "prefix": job.name,
                    "endpoint": access.cluster_endpoint,
                    "region": access.region,
                    "credentialsSecretRef": {"name": "s3"},
                },
                "interval": {"policy": "Fixed", "seconds": INTERVAL_SECONDS},
            },
            "capacity": {
                "preset": "Karpenter",
                "spot": {
                    "nodeSelector": {ZONE_LABEL: job.zone},
                    "tolerations": [{"key": SPOT_TAINT_KEY, "operator": "Exists"}],
                    "pricePerNodeHour": str(SPOT_PRICE),
                },
                "onDemand": {"pricePerNodeHour": str(ON_DEMAND_PRICE)},
            },
            "fallback": {"policy": "Auto"},
            "deadline": {
                "secondsAfterCreation": job.deadline_seconds,
                "expectedDurationSeconds": round(job.work_seconds),
            },
        },
    }


LIBRARY: Final = (
    "__init__", "clock", "contract", "handover", "lineage", "notice", "outcome", "report", "startup",
)  # fmt: skip
"""Modules of the trainer library that need nothing but the standard library."""
PROGRAM_FILES: Final = (
    "trace_bench/bucket.py",
    "trace_bench/trainer.py",
    "localcluster/s3_signing.py",
    *(f"spot_trainer/{name}.py" for name in LIBRARY),
)


def program_items() -> list[dict[str, str]]:
    """Where the ConfigMap's keys, which have no slashes, stand as files."""
    return [{"key": name.replace("/", "."), "path": name} for name in PROGRAM_FILES]
