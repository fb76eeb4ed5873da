"""A job, its pods and its nodes as one version of the operator has left them, kept as data.

What `freeze` takes from an API server `thaw` puts into another. There UIDs, names and times are others:
those that the data hold are replaced wherever they stand, in status as in the pods. Invariant: nothing
else of what was written is touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from staging import JOBS, Stage, stamp

from localcluster.api import ApiClient

Json = dict[str, Any]

_TIME = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
_OF_THE_SERVER = ("managedFields", "resourceVersion", "creationTimestamp", "generation", "selfLink")


def freeze(stage: Stage, about: str) -> Json:
    """Everything of the stage that outlives the operator's process."""
    job = stage.api.get(f"{JOBS}/{stage.namespace}/spottrainingjobs/{stage.name}")
    selector = f"labelSelector=spottraining.io/job-name%3D{stage.name}"
    pods = stage.api.get(f"/api/v1/namespaces/{stage.namespace}/pods?{selector}")["items"]
    node = stage.api.get(f"/api/v1/nodes/{stage.node}")
    return {
        "about": about,
        "time": stamp(),
        "job": _bare(job),
        "pods": [_bare(pod) for pod in pods],
        "node": {key: node["metadata"][key] for key in ("name", "uid", "labels")},
    }


def _bare(thing: Json) -> Json:
    kept = {key: value for key, value in thing["metadata"].items() if key not in _OF_THE_SERVER}
    return {**thing, "metadata": kept}


def thaw(api: ApiClient, namespace: str, frozen: Json) -> Stage:
    """The same job, pods and node in another namespace, and nobody who looks at them yet."""
    frozen = _recent(frozen)
    metadata = frozen["job"]["metadata"]
    stage = Stage(api, namespace, metadata["name"])
    stage.node = f"{namespace}-node"
    stage.add_node()
    old = frozen["node"]
    frozen = _replaced(frozen, {old["name"]: stage.node, old["uid"]: stage.node_uid})

    path = f"{JOBS}/{namespace}/spottrainingjobs"
    job = {**frozen["job"], "metadata": {"name": stage.name}}
    uid = api.create(path, {key: value for key, value in job.items() if key != "status"})["metadata"]["uid"]
    frozen = _replaced(
        frozen,
        {
            metadata["namespace"]: namespace,
            metadata["uid"]: uid,
            f"{stage.name}-{metadata['uid'][:5]}-": f"{stage.name}-{uid[:5]}-",
        },
    )

    uids = {pod["metadata"]["uid"]: _thaw_pod(api, namespace, pod) for pod in frozen["pods"]}
    frozen = _replaced(frozen, uids)
    api.patch(f"{path}/{stage.name}/status", {"status": frozen["job"]["status"]})
    # A stage counts incarnations by their pods, gone ones too.
    numbers = range(1, frozen["job"]["status"]["incarnation"] + 1)
    stage.pods = [stage.find_pod(number) or {} for number in numbers]
    return stage


def _thaw_pod(api: ApiClient, namespace: str, pod: Json) -> str:
    """The UID that it has now."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    metadata = dict(pod["metadata"])
    was_deleted = metadata.pop("deletionTimestamp", None) is not None
    grace = metadata.pop("deletionGracePeriodSeconds", None)
    del metadata["uid"]
    created = api.create(path, {**pod, "metadata": metadata, "status": {}})["metadata"]
    api.patch(f"{path}/{metadata['name']}/status", {"status": pod["status"]})
    if was_deleted:
        api.delete(f"{path}/{metadata['name']}", {"gracePeriodSeconds": grace})
    return str(created["uid"])


def _replaced(frozen: Json, others: dict[str, str]) -> Json:
    text = json.dumps(frozen)
    for old, new in others.items():
        text = text.replace(old, new)
    return dict(json.loads(text))


def _recent(frozen: Json) -> Json:
    """All times later by the same amount, so that it was frozen just now: an upgrade takes seconds."""
    later = datetime.now(UTC) - datetime.fromisoformat(frozen["time"])
    later -= timedelta(microseconds=later.microseconds)

    def moved(found: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(f'{found[1]}Z') + later:%Y-%m-%dT%H:%M:%S}{found[2] or ''}Z"

    return dict(json.loads(_TIME.sub(moved, json.dumps(frozen))))


def written(frozen: Json) -> set[str]:
    """The fields that the operator itself writes; the server adds its own defaults to a pod.

    A gang that became a predecessor is still a gang: what is known of it depends on when it did.
    """
    fields = _fields(frozen["job"]["status"], "status")
    found = {field.replace("status.predecessor.", "status.gang.") for field in fields}
    for pod in frozen["pods"]:
        for where in ("labels", "annotations"):
            found |= {f"{where}.{key}" for key in pod["metadata"].get(where, {})}
        (trainer,) = pod["spec"]["containers"]
        found |= {f"env.{each['name']}" for each in trainer["env"]}
    return found


def _fields(value: Any, path: str) -> Iterator[str]:
    """The path of every field and the type of what it holds; of a list, that of its entries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, f"{path}[]")
    else:
        # A float that happens to be whole is written as an integer.
        kind = "number" if type(value) in (int, float) else type(value).__name__
        yield f"{path}: {kind}"
