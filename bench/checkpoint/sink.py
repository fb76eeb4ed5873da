"""An S3 server that throws every body away, so that only the client's cost is left to measure.

It runs in a process of its own and knows just enough of the protocol to be believed by every
client here. Bodies are dropped inside the kernel (MSG_TRUNC: counted, never copied), a whole
part per call, so that neither the interpreter nor memory bandwidth of the sink limits a client.
Nothing is stored and no signature or checksum is looked at. Linux only.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

BUCKET = "bench"
RECEIVED = "/received"
"""GET answers how many bytes of bodies came since it was last asked."""
DROP_BYTES = 64 * 1024 * 1024
RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
RAW_CONNECTIONS = 4

_CREATED = (
    b"<InitiateMultipartUploadResult><Bucket>bench</Bucket><Key>k</Key><UploadId>1</UploadId>"
    b"</InitiateMultipartUploadResult>"
)
_COMPLETED = (
    b"<CompleteMultipartUploadResult><Bucket>bench</Bucket><Key>k</Key><ETag>&quot;0&quot;</ETag>"
    b"</CompleteMultipartUploadResult>"
)
_EMPTY_LIST = b"<ListBucketResult><Name>bench</Name><KeyCount>0</KeyCount></ListBucketResult>"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The endpoint of a sink that lives as long as the block."""
    process = subprocess.Popen([sys.executable, "-m", "checkpoint.sink"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def raw_seconds(endpoint: str, body: memoryview) -> float:
    """How long plain sockets take to deliver the body in requests of the same size as S3 parts."""
    host, port = endpoint.removeprefix("http://").split(":")
    pieces = [body[start : start + DROP_BYTES] for start in range(0, len(body), DROP_BYTES)]

    def send(own: list[memoryview]) -> None:
        with socket.create_connection((host, int(port))) as connection:
            for piece in own:
                head = f"PUT /{BUCKET}/raw HTTP/1.1\r\nContent-Length: {len(piece)}\r\n\r\n"
                connection.sendall(head.encode())
                connection.sendall(piece)
                connection.recv(4096)

    began = time.perf_counter()
    with ThreadPoolExecutor(RAW_CONNECTIONS) as pool:
        list(pool.map(send, [pieces[number::RAW_CONNECTIONS] for number in range(RAW_CONNECTIONS)]))
    return time.perf_counter() - began


def received(endpoint: str) -> int:
    """How many bytes of bodies came since this was last asked: proof that a client sent them all."""
    with urllib.request.urlopen(endpoint + RECEIVED) as answer:
        return int(answer.read())


class _Count:
    def __init__(self) -> None:
        self._lock, self._total = threading.Lock(), 0

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._total += num_bytes

    def take(self) -> int:
        with self._lock:
            total, self._total = self._total, 0
        return total


def _serve(connection: socket.socket, count: _Count) -> None:
    # Never written to (MSG_TRUNC), so that it costs no memory either.
    nowhere = bytearray(DROP_BYTES)
    held = b""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in held:
                data = connection.recv(65536)
                if not data:
                    return
                held += data
            head, _, held = held.partition(b"\r\n\r\n")
            request, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
            if headers.get("expect", "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            left = int(headers.get("content-length", "0"))
            count.add(left)
            taken = min(left, len(held))
            held, left = held[taken:], left - taken
            while left:
                dropped = connection.recv_into(
                    nowhere, min(left, DROP_BYTES), socket.MSG_TRUNC | socket.MSG_WAITALL
                )
                if not dropped:
                    return
                left -= dropped
            method, target, _ = request.split(" ")
            connection.sendall(_answer(method, target, count))


def _answer(method: str, target: str, count: _Count) -> bytes:
    _, _, query = target.partition("?")
    body = b""
    if method == "POST":
        body = _CREATED if query.startswith("uploads") else _COMPLETED
    elif method == "GET":
        body = str(count.take()).encode() if target == RECEIVED else _EMPTY_LIST
    status = "204 No Content" if method == "DELETE" else "200 OK"
    return (
        f'HTTP/1.1 {status}\r\nETag: "0"\r\nContent-Type: application/xml\r\n'
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _survive_resets(connection: socket.socket, count: _Count) -> None:
    with contextlib.suppress(ConnectionError):
        _serve(connection, count)


def main() -> None:
    count = _Count()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        # Accepted connections inherit it; large windows mean few wake-ups.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_survive_resets, args=(connection, count), daemon=True).start()


if __name__ == "__main__":
    main()
