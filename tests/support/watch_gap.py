"""An API server whose watches can break off, with everything that happened meanwhile compacted away.

A proxy in front of the real one. While a gap is open each watch is answered as an API server does whose
history no longer reaches back to the version that was asked for (410 Gone, as an ERROR event); everything
else passes.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "Expired",
        "message": "too old resource version: 1 (2)",
        "code": 410,
    },
}
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


class WatchGap:
    """`kubeconfig` leads through the proxy; `open()` begins a gap, `close()` ends it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._upstream = urlsplit(cluster["server"])
        self._context = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority", kubeconfig))
        for name in ("client-certificate", "client-key"):
            (folder / name).write_text(_pem(user, name, kubeconfig))
        self._context.load_cert_chain(folder / "client-certificate", folder / "client-key")
        self._is_open = False
        self._lock = threading.Lock()
        self._watches: set[http.client.HTTPSConnection] = set()
        self.num_gone = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.kubeconfig = folder / "kubeconfig"
        through = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        config["clusters"][0]["cluster"] = through
        config["users"][0]["user"] = {"token": "unused"}
        self.kubeconfig.write_text(yaml.safe_dump(config))

    @contextlib.contextmanager
    def serving(self) -> Iterator[WatchGap]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.open()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def open(self) -> None:
        with self._lock:
            self._is_open = True
            for watch in self._watches:
                if watch.sock is not None:
                    with contextlib.suppress(OSError):
                        watch.sock.shutdown(2)

    def close(self) -> None:
        with self._lock:
            self._is_open = False

    def _begin_watch(self, upstream: http.client.HTTPSConnection) -> bool:
        with self._lock:
            if self._is_open:
                self.num_gone += 1
            else:
                self._watches.add(upstream)
            return not self._is_open

    def _handler(gap) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                upstream = http.client.HTTPSConnection(
                    gap._upstream.hostname or "", gap._upstream.port, context=gap._context, timeout=310
                )
                is_watch = parse_qs(urlsplit(self.path).query).get("watch") == ["true"]
                try:
                    upstream.connect()
                    if is_watch and not gap._begin_watch(upstream):
                        self._answer(200, [("Content-Type", "application/json")])
                        self._chunk(json.dumps(GONE).encode() + b"\n")
                        self._chunk(b"")
                        return
                    dropped = {*HOP_BY_HOP, "authorization", "accept-encoding"}
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
                    upstream.request(self.command, self.path, body or None, headers)
                    response = upstream.getresponse()
                    self._answer(response.status, response.getheaders())
                    while data := response.read1():
                        self._chunk(data)
                    self._chunk(b"")
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                finally:
                    with gap._lock:
                        gap._watches.discard(upstream)
                    upstream.close()

            def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        return Handler


def _pem(source: dict[str, Any], key: str, kubeconfig: Path) -> str:
    if f"{key}-data" in source:
        return base64.b64decode(source[f"{key}-data"]).decode()
    return (kubeconfig.parent / source[key]).read_text()
