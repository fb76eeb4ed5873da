"""A client of the API server, small enough to have no dependency: JSON over one kept-alive connection."""

import http.client
import json
import select
import ssl
import threading
from pathlib import Path
from typing import Any

JSON_TYPE = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_TIMEOUT_SECONDS = 30.0


class ApiError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class ApiClient:
    """Speaks as the cluster's administrator; safe to use from several threads (one connection each)."""

    def __init__(self, port: int, pki: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._local = threading.local()
        self._open: list[http.client.HTTPSConnection] = []

    def close(self) -> None:
        """Close the connections of all threads; the client is not to be used any more."""
        for connection in self._open:
            connection.close()

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, path: str, body: dict[str, Any]) -> Any:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any, content_type: str = MERGE_PATCH) -> Any:
        return self.request("PATCH", path, body, content_type)

    def delete(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.request("DELETE", path, body)

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def request(self, method: str, path: str, body: Any = None, content_type: str = JSON_TYPE) -> Any:
        """Send one request; a connection that broke before is replaced by a fresh one first."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": JSON_TYPE}
        connection = self._connection()
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise
        if response.status >= 300:
            raise _error(response.status, text)
        return json.loads(text) if text[:1] in (b"{", b"[") else text.decode()

    def is_ready(self) -> bool:
        try:
            return bool(self.get("/readyz") == "ok")
        except (OSError, http.client.HTTPException, ApiError):
            return False

    def _connection(self) -> http.client.HTTPSConnection:
        known: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if known is not None and _is_dropped(known):
            known.close()
            known = None
        if known is None:
            known = http.client.HTTPSConnection(
                "127.0.0.1", self._port, context=self._context, timeout=_TIMEOUT_SECONDS
            )
            self._local.connection = known
            self._open.append(known)
        return known


def _is_dropped(connection: http.client.HTTPSConnection) -> bool:
    """Whether the server has hung up since the last answer, as it does after a minute and a half."""
    # Between two requests nothing is due: what can be read is the end of the connection.
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


def _error(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return ApiError(status, "", text.decode(errors="replace")[:200])
    return ApiError(status, answer.get("reason", ""), answer.get("message", ""))
