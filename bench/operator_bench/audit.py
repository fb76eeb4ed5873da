"""The API server's audit log as the clock of the benchmark.

It says when each request arrived and was answered, to the microsecond, whoever sent it: both
controllers are timed in the same way, without a watcher that would take the processor from
them. Invariant: one clock, that of the machine; no time of a client is compared with it but
the bench's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]


def policy(operator_user: str) -> dict[str, Any]:
    """Every write of the operator; of everybody else only what starts or ends a measured time."""
    pods = {"group": "", "resources": ["pods"]}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": True,
        "rules": [
            {"level": "None", "verbs": ["get", "list", "watch"]},
            # With the body: pods that the Job controller makes are named by the server, their owner is not.
            {"level": "Request", "verbs": ["create"], "resources": [pods]},
            {"level": "Metadata", "users": [operator_user]},
            {
                "level": "Metadata",
                "verbs": ["create", "delete"],
                "resources": [{"group": "", "resources": ["pods", "pods/eviction"]}],
            },
            {
                "level": "Metadata",
                "verbs": ["patch", "delete"],
                "resources": [{"group": "", "resources": ["nodes"]}],
            },
            {"level": "None"},
        ],
    }


@dataclass(frozen=True)
class Request:
    """One request that changed something, or tried to."""

    verb: str
    resource: str
    """With its subresource, as in `pods/eviction`."""
    namespace: str
    name: str
    user: str
    code: int
    received: float
    answered: float
    """Both in seconds since the epoch."""
    owner: str = ""
    """Of a pod that was created: the name of its controller."""

    @property
    def is_done(self) -> bool:
        return 200 <= self.code < 300


def parse(line: str | bytes) -> Request:
    event = json.loads(line)
    where = event.get("objectRef") or {}
    subresource = where.get("subresource")
    resource = where.get("resource", "")
    owners = ((event.get("requestObject") or {}).get("metadata") or {}).get("ownerReferences") or []
    return Request(
        verb=event["verb"],
        resource=f"{resource}/{subresource}" if subresource else resource,
        namespace=where.get("namespace", ""),
        name=where.get("name", ""),
        user=event["user"]["username"],
        code=(event.get("responseStatus") or {}).get("code", 0),
        received=_seconds(event["requestReceivedTimestamp"]),
        answered=_seconds(event["stageTimestamp"]),
        owner=next((owner["name"] for owner in owners if owner.get("controller")), ""),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class AuditLog:
    """Follows the log; what was read once is not given again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[Request]:
        """The requests since the last call, in the order of the log."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [parse(line) for line in lines]


def creations(requests: Iterable[Request], namespace: str) -> list[Request]:
    """The pods that were created in a namespace."""
    return [
        request
        for request in requests
        if request.is_done
        and (request.verb, request.resource, request.namespace) == ("create", "pods", namespace)
    ]


def waits(starts: Mapping[str, float], ends: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Seconds from each start to the first end of its key at or after it; what never ended is left out."""
    found = {}
    for key, start in starts.items():
        later = [end - start for end in ends.get(key, ()) if end >= start]
        if later:
            found[key] = min(later)
    return found
