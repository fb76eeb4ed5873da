"""The only module that talks to the API server (kopf's own watches aside).

A thin asynchronous client on one aiohttp session: plain JSON in, plain JSON out, every
failure one typed error. Invariants: every call has a time-out; a list is complete or fails;
a mutating call of a guarded client fails, before it is sent, when the guard says that this
process does not lead. Why not the official client: docs/decisions/0001.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from spot_operator.credentials import Credentials
from spot_operator.metrics import API_ERRORS, API_REQUESTS
from spot_operator.names import GROUP, PLURAL, VERSION

Json = Mapping[str, Any]

_PAGE: Final = 500
WEBHOOK_FAILED: Final = "failed calling webhook"
"""In the words of a 500 that is a refusal: admission comes before anything is stored."""
_VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""RBAC's words, so that the metrics say what the operator's role has to allow."""
_USER_AGENT: Final = "spot-training-operator"


class KubeError(Exception):
    """The API server did not do what was asked; `message` is its own, for people."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


class NotFound(KubeError):
    """No such object, or no such kind."""


class Conflict(KubeError):
    """The object changed since it was read, or a precondition did not hold."""


class AlreadyExists(KubeError):
    """Another object has this name."""


class Refused(KubeError):
    """Understood and refused (400, 422 and the like): the same request will not do better soon."""


class Forbidden(Refused):
    """Refused by RBAC, quota, pod security or an admission webhook (403)."""


class TooManyRequests(KubeError):
    """Asked to slow down; `retry_after` says how long where the server did."""


class Expired(KubeError):
    """The continuation of a list is too old (410)."""


class Unreachable(KubeError):
    """No answer, no answer in time, or an answer that says nothing (5xx, 401)."""


class NotLeading(KubeError):
    """The guard forbade a write: this process does not hold the Lease (any more)."""


@dataclass(frozen=True)
class Kind:
    """Where objects of a kind live."""

    prefix: str
    plural: str
    namespaced: bool = True


PODS: Final = Kind("/api/v1", "pods")
NODES: Final = Kind("/api/v1", "nodes", namespaced=False)
NODE_CLAIMS: Final = Kind("/apis/karpenter.sh/v1", "nodeclaims", namespaced=False)
EVENTS: Final = Kind("/api/v1", "events")
SECRETS: Final = Kind("/api/v1", "secrets")
LEASES: Final = Kind("/apis/coordination.k8s.io/v1", "leases")
TOKEN_REVIEWS: Final = Kind("/apis/authentication.k8s.io/v1", "tokenreviews", namespaced=False)
JOBS: Final = Kind(f"/apis/{GROUP}/{VERSION}", PLURAL)


def error_of(status: int, body: str, headers: Mapping[str, str]) -> KubeError:
    """The typed error for an answer that is not a success."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = {}
    details: Json = parsed if isinstance(parsed, dict) else {}
    message = str(details.get("message") or body or f"HTTP {status}")[:2000]
    retry_after = headers.get("Retry-After", "")
    kind: type[KubeError]
    match status, details.get("reason"):
        case 404, _:
            kind = NotFound
        case 409, "AlreadyExists":
            kind = AlreadyExists
        case 409, _:
            kind = Conflict
        case 410, _:
            kind = Expired
        case 403, _:
            kind = Forbidden
        case 429, _:
            kind = TooManyRequests
        # 401 is a token that was just replaced: it heals by itself, like an absent server.
        case (401, _) | (408, _):
            kind = Unreachable
        case _ if 400 <= status < 500 or WEBHOOK_FAILED in message:
            kind = Refused
        case _:
            kind = Unreachable
    return kind(message, status=status, retry_after=float(retry_after) if retry_after.isdigit() else None)


class Kube:
    """The client; make it inside a running event loop, and `close` it."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: float,
        max_connections: int = 100,
        session: aiohttp.ClientSession | None = None,
        guard: Callable[[], bool] | None = None,
    ) -> None:
        self._credentials = credentials
        self._timeout = timeout_seconds
        self._guard = guard
        self._session = session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=credentials.ssl_context(), limit=max_connections),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, connect=min(5.0, timeout_seconds)),
            headers={"User-Agent": _USER_AGENT, "Accept": "application/json"},
        )

    def guarded(self, guard: Callable[[], bool]) -> "Kube":
        """The same client, which writes only while `guard` says so."""
        return Kube(self._credentials, timeout_seconds=self._timeout, session=self._session, guard=guard)

    async def close(self) -> None:
        await self._session.close()

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        return await self._call("GET", kind, name=name, namespace=namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        """All objects, read from the store itself (no resourceVersion: never a stale cache)."""
        selectors = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        query = {key: value for key, value in selectors.items() if value}
        items: list[dict[str, Any]] = []
        while True:
            page = await self._call("GET", kind, namespace=namespace, query=query)
            items += page.get("items") or []
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    async def create(self, kind: Kind, body: Json, namespace: str | None = None) -> dict[str, Any]:
        return await self._call("POST", kind, namespace=namespace, body=body)

    async def replace(self, kind: Kind, body: Json, *, subresource: str = "") -> dict[str, Any]:
        """PUT; the object's own metadata names it, and its resourceVersion guards it."""
        metadata = body["metadata"]
        if not metadata.get("resourceVersion"):
            raise ValueError(f"refusing to replace {metadata.get('name')} without its resourceVersion")
        return await self._call(
            "PUT",
            kind,
            name=metadata["name"],
            namespace=metadata.get("namespace"),
            subresource=subresource,
            body=body,
        )

    async def patch(self, kind: Kind, name: str, body: Json, namespace: str | None = None) -> dict[str, Any]:
        """A merge patch."""
        return await self._call("PATCH", kind, name=name, namespace=namespace, body=body)

    async def delete(
        self, kind: Kind, name: str, namespace: str | None = None, *, uid: str
    ) -> dict[str, Any]:
        """Delete gracefully the object of this UID and no other."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        return await self._call("DELETE", kind, name=name, namespace=namespace, body=body)

    async def has_kind(self, kind: Kind) -> bool:
        """Whether the server serves a kind (a custom one may not be installed yet)."""
        try:
            answer = await self._request("GET", kind.prefix, "(discovery)", single=True)
        except NotFound:
            return False
        return any(entry.get("name") == kind.plural for entry in answer.get("resources", []))

    async def _call(
        self,
        method: str,
        kind: Kind,
        *,
        name: str = "",
        namespace: str | None = None,
        subresource: str = "",
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> dict[str, Any]:
        scope = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        path = f"{kind.prefix}{scope}/{kind.plural}{tail}"
        if method in ("POST", "PUT"):
            # Nobody reads the warnings for which the server would decode the body a second time.
            query = {"fieldValidation": "Ignore"}
        return await self._request(method, path, resource, single=bool(name), query=query, body=body)

    async def _request(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        single: bool = False,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> dict[str, Any]:
        verb = "list" if method == "GET" and not single else _VERBS[method]
        if method != "GET" and self._guard is not None and not self._guard():
            raise NotLeading(f"not the leader: {verb} {resource} is not sent")
        API_REQUESTS.labels(verb, resource).inc()
        try:
            status, text, headers = await self._send(method, path, query, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            API_ERRORS.labels(verb, resource, "Unreachable").inc()
            raise Unreachable(f"{verb} {resource}: {type(error).__name__}: {error}") from error
        failure: KubeError
        if status < 300:
            try:
                parsed: dict[str, Any] = json.loads(text)
                return parsed
            except ValueError:
                failure = Unreachable(f"{verb} {resource}: the answer is not JSON", status=status)
        else:
            failure = error_of(status, text, headers)
        API_ERRORS.labels(verb, resource, type(failure).__name__).inc()
        raise failure

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        headers = {}
        if token := self._credentials.bearer_token():
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            patch = method == "PATCH"
            headers["Content-Type"] = "application/merge-patch+json" if patch else "application/json"
        # The session has its own time-out; this one also bounds the wait for a connection of the pool.
        async with (
            asyncio.timeout(self._timeout),
            self._session.request(
                method,
                self._credentials.server + path,
                params=query,
                data=json.dumps(body) if body is not None else None,
                headers=headers,
                # A redirect would carry the token to another host.
                allow_redirects=False,
            ) as response,
        ):
            # What is between here and the server may answer in any encoding, or none.
            text = await response.text(encoding="utf-8", errors="replace")
            return response.status, text, dict(response.headers)
