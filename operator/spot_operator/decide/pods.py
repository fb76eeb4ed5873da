"""The pod of one rank of one incarnation, built from the job's template.

A pure function of the observation and the chosen capacity: the same inputs give the same
manifest, so a create that is repeated after a crash asks for the very same pod.
"""

import copy
from collections.abc import Sequence
from datetime import datetime
from itertools import product
from typing import Any, Final

from spot_operator.decide.fates import unreachable_toleration_seconds
from spot_operator.model import (
    Gang,
    JobSpec,
    Json,
    Observation,
    PolicySettings,
    Pool,
    S3Location,
    VolumeLocation,
)
from spot_operator.names import (
    ANNOTATION_CONTRACT_VERSION,
    ANNOTATION_DEFAULT_CONTAINER,
    ANNOTATION_KARPENTER_DO_NOT_DISRUPT,
    ANNOTATION_SAFE_TO_EVICT,
    ANNOTATION_STATUS_CA,
    API_VERSION,
    KIND,
    LABEL_CAPACITY_TYPE,
    LABEL_INCARNATION,
    LABEL_JOB_NAME,
    LABEL_JOB_UID,
    LABEL_RANK,
    LABEL_TRAINER_CONTAINER,
    STATUS_TOKEN_AUDIENCE,
    TAINT_NOT_READY,
    TAINT_UNREACHABLE,
    CapacityType,
)
from spot_trainer.contract import CONTRACT_VERSION, Env, IfExists, format_time

CHECKPOINT_VOLUME: Final = "spot-checkpoints"
CHECKPOINT_PATH: Final = "/checkpoints"
STATUS_VOLUME: Final = "spot-status"
STATUS_PATH: Final = "/var/run/secrets/spottraining.io/status"
TOKEN_LIFETIME_SECONDS: Final = 3600
MASTER_PORT: Final = 29500
HANDOVER_MARGIN_SECONDS: Final = 10
BESIDE_SECONDS: Final = 1800
"""For one that asks for spot: its predecessor goes on until it is told to stop, and nobody may be able to
tell for a while."""
"""Beyond the grace period: for the kubelet to kill, and for its word to arrive."""


def pod_name(job_name: str, job_uid: str, incarnation: int, rank: int) -> str:
    return f"{job_name}-{job_uid[:5]}-{incarnation}-{rank}"


def build_pod(
    observation: Observation,
    spec: JobSpec,
    *,
    gang: Gang,
    rank: int,
    settings: PolicySettings,
    preferences: Sequence[Json] = (),
) -> dict[str, Any]:
    """The manifest of one pod, ready to be created.

    `preferences`: preferred node affinity terms besides the template's own.
    """
    incarnation, capacity_type = gang.incarnation, gang.capacity_type
    template = copy.deepcopy(dict(spec.template))
    pod_spec: dict[str, Any] = template.get("spec") or {}
    pool = spec.spot if capacity_type is CapacityType.SPOT else spec.on_demand
    pod_spec["restartPolicy"] = "Never"
    pod_spec["terminationGracePeriodSeconds"] = spec.grace_seconds
    pod_spec.setdefault("automountServiceAccountToken", False)
    _place(pod_spec, pool, capacity_type, settings)
    if preferences:
        _prefer(pod_spec, preferences)
    for container in pod_spec.get("containers", []):
        if container.get("name") == spec.trainer_container:
            _equip(container, observation, spec, gang, rank)
    _add_volumes(pod_spec, observation, spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(
            observation, spec, template.get("metadata") or {}, incarnation, rank, capacity_type, settings
        ),
        "spec": pod_spec,
    }


def _metadata(
    observation: Observation,
    spec: JobSpec,
    template_metadata: Json,
    incarnation: int,
    rank: int,
    capacity_type: CapacityType,
    settings: PolicySettings,
) -> dict[str, Any]:
    annotations = dict(template_metadata.get("annotations") or {})
    if settings.protect_from_voluntary_disruption:
        annotations.setdefault(ANNOTATION_KARPENTER_DO_NOT_DISRUPT, "true")
        annotations.setdefault(ANNOTATION_SAFE_TO_EVICT, "false")
    annotations.setdefault(ANNOTATION_DEFAULT_CONTAINER, spec.trainer_container)
    annotations[ANNOTATION_CONTRACT_VERSION] = str(CONTRACT_VERSION)
    if observation.status_ca:
        annotations[ANNOTATION_STATUS_CA] = observation.status_ca
    return {
        "name": pod_name(observation.name, observation.uid, incarnation, rank),
        "namespace": observation.namespace,
        "labels": {
            **(template_metadata.get("labels") or {}),
            LABEL_JOB_NAME: observation.name,
            LABEL_JOB_UID: observation.uid,
            LABEL_INCARNATION: str(incarnation),
            LABEL_RANK: str(rank),
            LABEL_CAPACITY_TYPE: str(capacity_type),
            LABEL_TRAINER_CONTAINER: spec.trainer_container,
        },
        "annotations": annotations,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": observation.name,
                "uid": observation.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _place(
    pod_spec: dict[str, Any], pool: Pool, capacity_type: CapacityType, settings: PolicySettings
) -> None:
    if pool.node_selector:
        pod_spec["nodeSelector"] = {**(pod_spec.get("nodeSelector") or {}), **pool.node_selector}
    if pool.node_affinity_terms:
        affinity = pod_spec.setdefault("affinity", {}) or {}
        pod_spec["affinity"] = affinity
        node_affinity = affinity.setdefault("nodeAffinity", {})
        required = node_affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        required["nodeSelectorTerms"] = _both(
            required.get("nodeSelectorTerms") or [], pool.node_affinity_terms
        )
    tolerations = [*(pod_spec.get("tolerations") or []), *(dict(t) for t in pool.tolerations)]
    seconds = unreachable_toleration_seconds(capacity_type, settings)
    for key in (TAINT_UNREACHABLE, TAINT_NOT_READY):
        if not any(toleration.get("key") == key for toleration in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            )
    pod_spec["tolerations"] = tolerations


def _prefer(pod_spec: dict[str, Any], preferences: Sequence[Json]) -> None:
    affinity = pod_spec.get("affinity") or {}
    pod_spec["affinity"] = affinity
    node_affinity = affinity.get("nodeAffinity") or {}
    affinity["nodeAffinity"] = node_affinity
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    node_affinity[key] = [*(node_affinity.get(key) or []), *preferences]


def _both(own: list[Json], pool: tuple[Json, ...]) -> list[dict[str, Any]]:
    """Terms are ORed and a term's expressions ANDed, so "both" is every pair of terms, joined."""
    if not own:
        return [dict(term) for term in pool]
    joined = []
    for left, right in product(own, pool):
        term = {
            key: [*(left.get(key) or []), *(right.get(key) or [])]
            for key in ("matchExpressions", "matchFields")
        }
        joined.append({key: value for key, value in term.items() if value})
    return joined


def _equip(container: dict[str, Any], observation: Observation, spec: JobSpec, gang: Gang, rank: int) -> None:
    environment = _environment(observation, spec, gang, rank)
    container["env"] = [*environment, *(container.get("env") or [])]
    location = spec.checkpoint.location
    mounts = list(container.get("volumeMounts") or [])
    if isinstance(location, S3Location) and location.credentials_secret:
        container["envFrom"] = [
            *(container.get("envFrom") or []),
            {"secretRef": {"name": location.credentials_secret}},
        ]
    if isinstance(location, VolumeLocation):
        mount = {"name": CHECKPOINT_VOLUME, "mountPath": CHECKPOINT_PATH}
        mounts.append({**mount, "subPath": location.sub_path} if location.sub_path else mount)
    if observation.status_url:
        mounts.append({"name": STATUS_VOLUME, "mountPath": STATUS_PATH, "readOnly": True})
    if mounts:
        container["volumeMounts"] = mounts


def checkpoint_uri(location: S3Location | VolumeLocation) -> str:
    if isinstance(location, VolumeLocation):
        return f"file://{CHECKPOINT_PATH}"
    return f"s3://{location.bucket}/{location.prefix}".rstrip("/")


def handover_seconds(spec: JobSpec, gang: Gang) -> int:
    """How long the trainer's claim waits at most for an incarnation that is still saving."""
    if gang.hands_over_from is None:
        return 0
    return BESIDE_SECONDS if gang.is_beside else spec.grace_seconds + HANDOVER_MARGIN_SECONDS


def notice_seconds(spec: JobSpec, capacity_type: CapacityType) -> int:
    """What the trainer may count on from SIGTERM to the end."""
    if capacity_type is CapacityType.SPOT:
        return min(spec.grace_seconds, spec.spot_notice_seconds)
    return spec.grace_seconds


def _environment(observation: Observation, spec: JobSpec, gang: Gang, rank: int) -> list[dict[str, Any]]:
    location = spec.checkpoint.location
    values: dict[str, str | datetime | int | None] = {
        Env.CONTRACT_VERSION: CONTRACT_VERSION,
        Env.JOB_NAME: observation.name,
        Env.JOB_NAMESPACE: observation.namespace,
        Env.JOB_UID: observation.uid,
        Env.JOB_CREATED: observation.created,
        Env.INCARNATION: gang.incarnation,
        Env.CAPACITY_TYPE: gang.capacity_type,
        Env.RUN_ID: spec.checkpoint.run_id,
        Env.CHECKPOINT_URI: checkpoint_uri(location),
        Env.CHECKPOINT_INTERVAL_POLICY: spec.checkpoint.interval_policy,
        Env.CHECKPOINT_INTERVAL_SECONDS: spec.checkpoint.interval_seconds,
        Env.CHECKPOINT_KEEP: spec.checkpoint.keep_last,
        Env.CHECKPOINT_IF_EXISTS: IfExists(spec.checkpoint.if_exists),
        Env.GRACE_SECONDS: notice_seconds(spec, gang.capacity_type),
        Env.HANDOVER_SECONDS: handover_seconds(spec, gang),
        Env.DEADLINE: spec.deadline.finish_by if spec.deadline is not None else None,
        Env.NODES: 1,
        Env.NODE_RANK: rank,
        Env.TEMPLATE_FINGERPRINT: spec.template_fingerprint,
        Env.PET_NNODES: 1,
        Env.PET_NODE_RANK: rank,
        Env.PET_MASTER_ADDR: "127.0.0.1",
        Env.PET_MASTER_PORT: MASTER_PORT,
        Env.PET_NPROC_PER_NODE: 1,
    }
    if isinstance(location, S3Location):
        values[Env.AWS_ENDPOINT_URL_S3] = location.endpoint or None
        values[Env.AWS_REGION] = location.region or None
    if observation.status_url:
        values[Env.STATUS_URL] = observation.status_url
        values[Env.STATUS_CA_CERT] = f"{STATUS_PATH}/ca.crt"
        values[Env.STATUS_TOKEN] = f"{STATUS_PATH}/token"
    return [
        *(
            {"name": str(name), "value": format_time(value) if isinstance(value, datetime) else str(value)}
            for name, value in values.items()
            if value is not None
        ),
        {"name": str(Env.POD_NAME), "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": str(Env.POD_UID), "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]


def _add_volumes(pod_spec: dict[str, Any], observation: Observation, spec: JobSpec) -> None:
    volumes = list(pod_spec.get("volumes") or [])
    if isinstance(spec.checkpoint.location, VolumeLocation):
        claim = {"claimName": spec.checkpoint.location.claim_name}
        volumes.append({"name": CHECKPOINT_VOLUME, "persistentVolumeClaim": claim})
    if observation.status_url:
        annotation = f"metadata.annotations['{ANNOTATION_STATUS_CA}']"
        sources = [
            {
                "serviceAccountToken": {
                    "audience": STATUS_TOKEN_AUDIENCE,
                    "expirationSeconds": TOKEN_LIFETIME_SECONDS,
                    "path": "token",
                }
            },
            {"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": {"fieldPath": annotation}}]}},
        ]
        volumes.append({"name": STATUS_VOLUME, "projected": {"sources": sources, "defaultMode": 0o444}})
    if volumes:
        pod_spec["volumes"] = volumes
