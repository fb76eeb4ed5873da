"""A stand-in for systemd-logind on a machine without systemd, so that its kubelet can shut down gracefully.

It listens where the system's D-Bus listens and answers the four calls that a kubelet makes, without
a bus in between: who connects is the kubelet. Its inhibitor lock is the end of a pipe, as logind's
is; the shutdown may go on when the kubelet has closed it.

Whoever connects to the shutdown socket asks for the shutdown, and reads one word when it may go on:
`released`, or `timeout` when the kubelet has not let go in time.
"""

import argparse
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.shutdown import BUS_SOCKET, RELEASED, SHUTDOWN_SOCKET, TIMED_OUT

_CALL, _REPLY, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _SENDER, _SIGNATURE, _NUM_FDS = 1, 2, 3, 4, 5, 7, 8, 9
_MANAGER, _OBJECT = "org.freedesktop.login1.Manager", "/org/freedesktop/login1"


# --------------------------------------------------------------------------- D-Bus' way of writing


class Writer:
    """Little-endian values, each at a multiple of its own size."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def number(self, value: int) -> None:
        self.align(4)
        self.data += struct.pack("<I", value)

    def large_number(self, value: int) -> None:
        self.align(8)
        self.data += struct.pack("<Q", value)

    def text(self, value: str) -> None:
        raw = value.encode()
        self.number(len(raw))
        self.data += raw + b"\0"

    def signature(self, value: str) -> None:
        self.data += bytes([len(value)]) + value.encode() + b"\0"


def encode(
    kind: int, serial: int, headers: dict[int, tuple[str, str | int]], signature: str = "", body: bytes = b""
) -> bytes:
    """A message; headers are field code -> (type, value)."""
    fields = Writer()
    for code, (type_, value) in (headers | ({_SIGNATURE: ("g", signature)} if signature else {})).items():
        fields.align(8)
        fields.data.append(code)
        fields.signature(type_)
        if isinstance(value, int):
            fields.number(value)
        elif type_ == "g":
            fields.signature(value)
        else:
            fields.text(value)
    length = len(fields.data)
    fields.align(8)
    return struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, length) + bytes(fields.data) + body


@dataclass(frozen=True)
class Message:
    kind: int
    serial: int
    headers: dict[int, str | int]


def read_message(read: Callable[[int], bytes]) -> Message:
    """The next message; its body is not looked at. Raises EOFError at the end."""
    order, kind, _, _, body_length, serial, length = struct.unpack("<cBBBIII", read(16))
    if order != b"l":
        raise ValueError("a big-endian message")
    fields = read(length + -length % 8)
    read(body_length)
    headers: dict[int, str | int] = {}
    at = 0
    while at < length:
        at += -at % 8
        code, type_ = fields[at], chr(fields[at + 2])
        at += 4
        if type_ == "g":
            end = at + 1 + fields[at]
            headers[code] = fields[at + 1 : end].decode()
            at = end + 1
            continue
        at += -at % 4
        (value,) = struct.unpack_from("<I", fields, at)
        at += 4
        if type_ == "u":
            headers[code] = value
        else:
            headers[code] = fields[at : at + value].decode()
            at += value + 1
    return Message(kind, serial, headers)


# --------------------------------------------------------------------------- logind


@dataclass
class Logind:
    delay_seconds: float
    """How long a shutdown waits for those who hold it back."""
    _clients: list[socket.socket] = field(default_factory=list)
    _locks: list[int] = field(default_factory=list)
    """Our ends of the pipes."""

    def serve(self, bus: socket.socket, shutdowns: socket.socket) -> None:
        threading.Thread(target=self._serve_shutdowns, args=(shutdowns,), daemon=True).start()
        while True:
            client, _ = bus.accept()
            threading.Thread(target=self._serve_client, args=(client,), daemon=True).start()

    def _serve_client(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:

            def read(size: int) -> bytes:
                found = stream.read(size)
                if len(found) < size:
                    raise EOFError
                return found

            try:
                _authenticate(client, stream.readline)
                self._clients.append(client)
                while True:
                    self._answer(client, read_message(read))
            except (EOFError, OSError):
                pass  # the kubelet has ended; its next one connects again
            finally:
                if client in self._clients:
                    self._clients.remove(client)

    def _answer(self, client: socket.socket, call: Message) -> None:
        if call.kind != _CALL:
            return
        body, signature, descriptors = Writer(), "", []
        headers: dict[int, tuple[str, str | int]] = {
            _REPLY_SERIAL: ("u", call.serial),
            _SENDER: ("s", ":1.0"),
        }
        kind = _REPLY
        match call.headers.get(_MEMBER):
            case "Hello":
                signature = "s"
                body.text(":1.1")
            case "AddMatch":
                pass
            case "Get":  # there is one property that a kubelet asks for: InhibitDelayMaxUSec
                signature = "v"
                body.signature("t")
                body.large_number(int(self.delay_seconds * 1e6))
            case "Inhibit":
                signature = "h"
                body.number(0)
                ours, theirs = os.pipe()
                self._locks.append(ours)
                descriptors = [theirs]
                headers[_NUM_FDS] = ("u", 1)
            case other:
                kind = _ERROR
                headers[_ERROR_NAME] = ("s", "org.freedesktop.DBus.Error.UnknownMethod")
                print(f"call of {other!r}, which is not known here", flush=True)
        data = encode(kind, call.serial, headers, signature, bytes(body.data))
        socket.send_fds(client, [data], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _serve_shutdowns(self, shutdowns: socket.socket) -> None:
        while True:
            asker, _ = shutdowns.accept()
            with asker:
                said = self._prepare_for_shutdown()
                print(f"shutdown: {said}", flush=True)
                asker.sendall(said.encode())

    def _prepare_for_shutdown(self) -> str:
        """Announce it and wait until every lock is gone."""
        body = Writer()
        body.number(1)
        headers: dict[int, tuple[str, str | int]] = {
            _PATH: ("o", _OBJECT),
            _INTERFACE: ("s", _MANAGER),
            _MEMBER: ("s", "PrepareForShutdown"),
            _SENDER: ("s", ":1.0"),
        }
        for client in list(self._clients):
            client.sendall(encode(_SIGNAL, 1, headers, "b", bytes(body.data)))
        for lock in self._locks:
            # The end of the file: the kubelet has closed its end, or is gone.
            if not select.select([lock], [], [], self.delay_seconds)[0]:
                return TIMED_OUT
        return RELEASED


def _authenticate(client: socket.socket, read_line: Callable[[], bytes]) -> None:
    """Everybody is welcome: only root of the machine gets here."""
    while line := read_line():
        match line.lstrip(b"\0").split():
            case [b"AUTH", _, *_]:
                client.sendall(b"OK 00000000000000000000000000000000\r\n")
            case [b"AUTH"]:
                client.sendall(b"REJECTED EXTERNAL\r\n")
            case [b"NEGOTIATE_UNIX_FD"]:
                client.sendall(b"AGREE_UNIX_FD\r\n")
            case [b"BEGIN"]:
                return
            case _:
                client.sendall(b"ERROR\r\n")
    raise EOFError


def _listen(path: str) -> socket.socket:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description="a stand-in for systemd-logind; started on a node")
    parser.add_argument("--delay-seconds", type=float, required=True)
    delay_seconds: float = parser.parse_args().delay_seconds
    shutdowns = _listen(SHUTDOWN_SOCKET)
    Logind(delay_seconds).serve(_listen(BUS_SOCKET), shutdowns)


if __name__ == "__main__":
    main()
