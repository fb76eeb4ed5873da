"""A model of the API server: objects with versions, optimistic conflicts, preconditions, graceful deletion.

It answers in HTTP's terms, so that the operator's own client (its errors, paging and guard)
is part of what is tried. Invariant: every change raises the one resource version and is told
to the listeners in order; what they and callers get is theirs to change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace (empty for none), name."""
Listener = Callable[[str, str, Object], None]
"""ADDED, MODIFIED or DELETED; plural; the object."""


class Refusal(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def copied(value: Any) -> Any:
    """JSON shares nothing with its copy; `copy.deepcopy` takes five times as long to say so."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value


class Api:
    def __init__(self, now: Callable[[], datetime], rng: random.Random) -> None:
        self._now, self._rng = now, rng
        self._objects: dict[Key, Object] = {}
        self._version = 0
        self.listeners: list[Listener] = []
        self.refuse_pods = False
        """A quota: creating a pod answers 403."""

    # ------------------------------------------------------------------ for the model's own parts

    def get(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """The object itself: look, and change it only through `update`."""
        return self._objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        return [each for (kind, _, _), each in self._objects.items() if kind == plural]

    def create(self, plural: str, body: Mapping[str, Any], namespace: str = "") -> Object:
        created: Object = copied(dict(body))
        metadata = created.setdefault("metadata", {})
        name = metadata.get("name") or metadata.get("generateName", "") + f"{self._rng.getrandbits(32):08x}"
        if (plural, namespace, name) in self._objects:
            raise Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists')
        if plural == "pods" and self.refuse_pods:
            raise Refusal(403, "Forbidden", f'pods "{name}" is forbidden: exceeded quota: gpus')
        digits = f"{self._rng.getrandbits(128):032x}"
        metadata |= {"name": name, "uid": f"{digits[:8]}-{digits[8:]}"}
        metadata["creationTimestamp"] = format_time(self._now())
        if namespace:
            metadata["namespace"] = namespace
        if plural == "pods":
            created["status"] = {"phase": "Pending"}
        if plural == "spottrainingjobs":
            metadata["generation"] = 1
        self._objects[plural, namespace, name] = created
        self._changed("ADDED", plural, created)
        return created

    def update(self, plural: str, name: str, change: Callable[[Object], None], namespace: str = "") -> None:
        """Change an object in place if it is there."""
        found = self._objects.get((plural, namespace, name))
        if found is not None:
            change(found)
            self._changed("MODIFIED", plural, found)

    def remove(self, plural: str, name: str, namespace: str = "", uid: str = "") -> None:
        found = self._objects.get((plural, namespace, name))
        if found is not None and uid in ("", found["metadata"]["uid"]):
            del self._objects[plural, namespace, name]
            self._changed("DELETED", plural, found)

    def delete_pod(self, pod: Object, *, grace_seconds: int | None = None) -> None:
        """Graceful: the kubelet removes a pod that has a node, unless it has none or the grace is 0."""
        metadata, spec = pod["metadata"], pod["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        # As the pod strategy has it: a pod that has ended already needs no grace.
        if not spec.get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            grace = 0
        if metadata.get("deletionTimestamp") and grace > 0:
            return

        def mark(found: Object) -> None:
            due = datetime.fromtimestamp(self._now().timestamp() + grace, self._now().tzinfo)
            found["metadata"] |= {"deletionTimestamp": format_time(due), "deletionGracePeriodSeconds": grace}

        name, namespace = metadata["name"], metadata["namespace"]
        if self.get("pods", name, namespace) is pod:
            self.update("pods", name, mark, namespace)
            if grace == 0:
                self.remove("pods", name, namespace)

    def _changed(self, kind: str, plural: str, changed: Object) -> None:
        self._version += 1
        changed["metadata"]["resourceVersion"] = str(self._version)
        for listener in list(self.listeners):
            listener(kind, plural, changed)

    # ------------------------------------------------------------------ for clients

    def handle(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, Object]:
        """An answer as the API server gives it."""
        try:
            return 200, self._handle(method, path.strip("/").split("/"), query, dict(body or {}))
        except Refusal as refusal:
            return refusal.status, {"kind": "Status", "reason": refusal.reason, "message": str(refusal)}

    def _handle(self, method: str, parts: list[str], query: Mapping[str, str], body: Object) -> Object:
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        subresource = rest[2] if len(rest) > 2 else ""
        match method:
            case "GET" if name:
                return self._found(plural, namespace, name)
            case "GET":
                return {"items": self._list(plural, namespace, query), "metadata": {}}
            case "POST":
                return self.create(plural, body, namespace)
            case "PUT":
                return self._replace(plural, namespace, name, subresource, body)
            case "DELETE":
                return self._delete(plural, namespace, name, body)
        raise Refusal(405, "MethodNotAllowed", method)

    def _found(self, plural: str, namespace: str, name: str) -> Object:
        found = self._objects.get((plural, namespace, name))
        if found is None:
            raise Refusal(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def _list(self, plural: str, namespace: str, query: Mapping[str, str]) -> list[Object]:
        label, _, value = query.get("labelSelector", "").partition("=")
        return [
            each
            for (kind, place, _), each in self._objects.items()
            if kind == plural
            and namespace in ("", place)
            and (not label or label in each["metadata"].get("labels", {}))
            and (not value or each["metadata"]["labels"][label] == value)
        ]

    def _replace(self, plural: str, namespace: str, name: str, subresource: str, body: Object) -> Object:
        found = self._found(plural, namespace, name)
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", f'{plural} "{name}": the object has been modified')
        if subresource == "status":
            found["status"] = copied(body["status"])
        else:
            found["spec"] = copied(body["spec"])
        self._changed("MODIFIED", plural, found)
        return found

    def _delete(self, plural: str, namespace: str, name: str, body: Object) -> Object:
        found = self._found(plural, namespace, name)
        uid = body.get("preconditions", {}).get("uid", found["metadata"]["uid"])
        if uid != found["metadata"]["uid"]:
            raise Refusal(409, "Conflict", "the UID in the precondition does not match")
        if plural == "pods":
            self.delete_pod(found)
        else:
            self.remove(plural, name, namespace)
        return found
