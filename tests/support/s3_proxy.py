"""A proxy before a real S3 server that spoils requests: errors, resets, stalls, wrong bytes, lost answers."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ERRORS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
}


@dataclass
class Faults:
    """What happens to the next requests: `choose(method, path)` names a fault or nothing."""

    choose: Callable[[str, str], str | None] = lambda _method, _path: None
    stall_seconds: float = 3.0
    num_spoilt: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers (names in lower case) of what was asked."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    upstream: tuple[str, int]

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.faults.requests.append((self.command, self.path, headers))
        fault = self.faults.choose(self.command, self.path)
        self.faults.num_spoilt += fault is not None
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        if fault in ERRORS:
            status, code = ERRORS[fault]
            return self._answer(
                status, {}, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            )
        if fault == "stall":
            time.sleep(self.faults.stall_seconds)
            return self._hang_up()
        if fault == "wrong bytes" and body:
            body = _flipped(body)
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "lost answer":
            return self._hang_up()
        if fault == "wrong answer" and data:
            data = _flipped(data)
        if fault == "no conditions" and answer.status == 412:
            return self._answer(200, {"ETag": '"0"'}, b"")
        return self._answer(answer.status, dict(answer.getheaders()), data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        # Without lingering the peer sees a reset instead of an end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


@contextmanager
def s3_proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """The endpoint of a proxy before `endpoint`."""
    upstream = urlsplit(endpoint)
    assert upstream.hostname is not None
    assert upstream.port is not None
    bound = {"faults": faults, "upstream": (upstream.hostname, upstream.port)}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), bound))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
