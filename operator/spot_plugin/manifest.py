"""The job in a manifest, checked as the operator checks it, before anything is simulated.

Invariant: what a field means is `api.effective`'s business; in here only the one job is found, and the
policy that it names is set aside, since every policy is simulated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from spot_operator.api.effective import parse_spec
from spot_operator.market import Policy
from spot_operator.model import InvalidSpec, JobSpec
from spot_operator.names import KIND
from spot_plugin.errors import PluginError


@dataclass(frozen=True, kw_only=True)
class Manifest:
    name: str
    namespace: str
    spec: JobSpec
    chosen: Policy
    """What `fallback.policy` says, or comes to where it says nothing."""
    num_nodes: int
    status: Mapping[str, Any] = field(default_factory=dict)
    """Of a job that was read from a cluster (kubectl get -o yaml): what has been measured; else empty."""


def read_manifest(path: str, stdin: str, *, name: str, namespace: str, created: datetime) -> Manifest:
    """`-` is standard input; `name` chooses among several jobs."""
    try:
        text = stdin if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}: {error}", do="name a readable manifest with -f") from error
    try:
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, Mapping)]
    except yaml.YAMLError as error:
        raise PluginError(f"{path} is no YAML: {error}") from error
    return manifest_of(documents, path=path, name=name, namespace=namespace, created=created)


def manifest_of(
    documents: list[Mapping[str, Any]], *, path: str, name: str, namespace: str, created: datetime
) -> Manifest:
    jobs = [each for each in _flat(documents) if each.get("kind") == KIND]
    if name:
        jobs = [each for each in jobs if _metadata(each).get("name") == name]
    if len(jobs) != 1:
        found = ", ".join(str(_metadata(each).get("name")) for each in jobs)
        which = f" named {name}" if name else ""
        raise PluginError(
            f"{path} has {'no' if not jobs else len(jobs)} {KIND}{which}" + (f": {found}" if found else ""),
            do=f"the file must hold a {KIND}" if not jobs else "choose one with --name",
        )
    return _manifest(jobs[0], path=path, namespace=namespace, created=created)


def _flat(documents: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    flat: list[Mapping[str, Any]] = []
    for each in documents:
        items = each.get("items") if each.get("kind") == "List" else None
        flat += [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else [each]
    return flat


def _metadata(job: Mapping[str, Any]) -> Mapping[str, Any]:
    found = job.get("metadata")
    return found if isinstance(found, Mapping) else {}


def _manifest(job: Mapping[str, Any], *, path: str, namespace: str, created: datetime) -> Manifest:
    spec, metadata = job.get("spec"), _metadata(job)
    if not isinstance(spec, Mapping):
        raise PluginError(f"{path}: spec: required, but not set")
    job_name = str(metadata.get("name") or metadata.get("generateName", "").rstrip("-") or "")
    if not job_name:
        raise PluginError(f"{path}: metadata.name: required, but not set")
    space = str(metadata.get("namespace") or namespace or "default")

    # What YAML read as a time is text to the API.
    found = parse_spec(_plain(spec), namespace=space, name=job_name, created=created)
    if isinstance(found, InvalidSpec):
        raise PluginError(
            f"{path}: {found.field}: {found.why}", do="mend this field; the operator would refuse it too"
        )
    nodes = spec.get("numNodes")
    return Manifest(
        name=job_name,
        namespace=space,
        spec=found,
        chosen=Policy(found.fallback.policy),
        num_nodes=nodes if isinstance(nodes, int) else 1,
        status=job["status"] if isinstance(job.get("status"), Mapping) else {},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value
