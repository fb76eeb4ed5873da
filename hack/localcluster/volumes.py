"""A ReadWriteMany volume without a storage system: all nodes are one machine, so they share a directory."""

import os
from pathlib import Path
from typing import Any

from localcluster.api import ApiClient
from localcluster.paths import ClusterPaths


def shared_volume(
    api: ApiClient, paths: ClusterPaths, namespace: str, name: str, *, owner_uid: int, size: str
) -> Path:
    """Make a directory, a volume on it, and a claim bound to it; returns the directory.

    The directory belongs to the pods' user, because fsGroup does not apply to
    host paths.
    """
    directory = paths.volumes / namespace / name
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, owner_uid, owner_uid)
    # The kubelet makes a subPath's directory itself, owned by root, with the mode of the volume's root.
    directory.chmod(0o777)
    for path in (paths.volumes, *directory.parents):
        if path.is_relative_to(paths.volumes):
            path.chmod(0o755)
    for collection, body in claim_objects(namespace, name, directory, size):
        api.create(collection, body)
    return directory


def claim_objects(namespace: str, name: str, directory: Path, size: str) -> list[tuple[str, dict[str, Any]]]:
    """The volume and the claim, each with the collection to create it in."""
    common: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume_name = f"{namespace}-{name}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name},
        "spec": {
            **common,
            "capacity": {"storage": size},
            "hostPath": {"path": str(directory), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": name},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **common,
            "volumeName": volume_name,
            "resources": {"requests": {"storage": size}},
        },
    }
    return [
        ("/api/v1/persistentvolumes", volume),
        (f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim),
    ]
