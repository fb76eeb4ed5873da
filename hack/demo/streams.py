"""Long answers of the API server, line by line: watches and followed logs.

Logs are followed from the start of a container, because they are gone with the machine.
Invariant: `close` ends every reader at once, also one that waits for the next line.
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from localcluster.api import ApiClient, ApiError

Handler = Callable[[str, dict[str, Any]], None]
"""Called with the kind of change (LISTED, ADDED, MODIFIED, DELETED) and the object."""

RETRY_SECONDS = 0.3


class Streams:
    """Opens any number of streams as the cluster's administrator; safe to use from several threads."""

    def __init__(self, api: ApiClient, port: int, pki: Path) -> None:
        self._api, self._port = api, port
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._open: set[http.client.HTTPSConnection] = set()
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def lines(self, path: str, *, patience_seconds: float | None = None) -> Iterator[bytes]:
        """The lines of the answer as they come; raises ApiError, or OSError when the stream breaks.

        A stream that says nothing for longer than the patience counts as broken.
        """
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=patience_seconds
        )
        with self._lock:
            self._open.add(connection)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status >= 300:
                raise ApiError(response.status, response.reason, response.read(300).decode(errors="replace"))
            while line := response.readline():
                yield line
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def watch(self, collection: str, handle: Handler, *, query: str = "") -> None:
        """List, then watch, until closed; after a break everything is listed again."""
        while not self.closing.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError, ValueError):
                listed = self._api.get(f"{collection}?{query}")
                for item in listed["items"]:
                    handle("LISTED", item)
                version = listed["metadata"]["resourceVersion"]
                for line in self.lines(f"{collection}?watch=1&resourceVersion={version}&{query}"):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    handle(event["type"], event["object"])
            self.closing.wait(RETRY_SECONDS)

    def close(self) -> None:
        self.closing.set()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError, AttributeError):
                    # `close` alone would not wake a thread that is reading.
                    connection.sock.shutdown(socket.SHUT_RDWR)
