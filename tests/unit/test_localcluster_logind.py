"""The stand-in for logind holds a shutdown back for as long as somebody holds its lock."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.logind import Logind, Message, encode, read_message
from localcluster.shutdown import RELEASED, TIMED_OUT, shut_down

CALL, SIGNAL = 1, 4
MEMBER, REPLY_SERIAL, SIGNATURE = 3, 5, 8


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


class Kubelet:
    """The side that speaks to logind."""

    def __init__(self, bus: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(str(bus))
        self.descriptors: list[int] = []

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            data, descriptors, _, _ = socket.recv_fds(self.socket, size - len(found), 4)
            if not data:
                raise EOFError
            self.descriptors += descriptors
            found += data
        return found

    def greet(self) -> None:
        for said, answer in (
            (b"\0AUTH\r\n", b"REJECTED EXTERNAL\r\n"),
            (b"AUTH EXTERNAL 30\r\n", b"OK "),
            (b"NEGOTIATE_UNIX_FD\r\n", b"AGREE_UNIX_FD\r\n"),
        ):
            self.socket.sendall(said)
            assert self.socket.recv(100).startswith(answer)
        self.socket.sendall(b"BEGIN\r\n")

    def call(self, member: str, serial: int) -> Message:
        self.socket.sendall(encode(CALL, serial, {MEMBER: ("s", member)}))
        return read_message(self.read)


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    bus, shutdowns = listen(tmp_path / "bus"), listen(tmp_path / "shutdown")
    threading.Thread(target=Logind(0.2).serve, args=(bus, shutdowns), daemon=True).start()
    made = Kubelet(tmp_path / "bus")
    made.greet()
    yield made
    made.socket.close()


def test_a_message_says_the_same_after_its_way_over_the_wire() -> None:
    data = encode(
        SIGNAL, 7, {1: ("o", "/a"), MEMBER: ("s", "Gone"), REPLY_SERIAL: ("u", 9)}, "b", b"\1\0\0\0"
    )
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    expected = {1: "/a", MEMBER: "Gone", REPLY_SERIAL: 9, SIGNATURE: "b"}
    assert read_message(read) == Message(SIGNAL, 7, expected)
    assert at == len(data)


def test_the_shutdown_goes_on_when_the_lock_is_given_back(kubelet: Kubelet, tmp_path: Path) -> None:
    assert kubelet.call("Inhibit", 3).headers[REPLY_SERIAL] == 3
    (lock,) = kubelet.descriptors
    said: list[str] = []
    asker = threading.Thread(target=lambda: said.append(shut_down(tmp_path / "shutdown", 5)))
    asker.start()
    assert read_message(kubelet.read).headers[MEMBER] == "PrepareForShutdown"
    os.close(lock)
    asker.join()
    assert said == [RELEASED]


def test_a_shutdown_does_not_wait_for_ever(kubelet: Kubelet, tmp_path: Path) -> None:
    kubelet.call("Inhibit", 3)
    assert shut_down(tmp_path / "shutdown", 5) == TIMED_OUT
    os.close(kubelet.descriptors[0])


def test_what_is_not_known_is_refused(kubelet: Kubelet) -> None:
    assert kubelet.call("Reboot", 4).kind == 3
