"""Asking a machine to shut down, from outside; inside, `logind` answers."""

import socket
from pathlib import Path

BUS_SOCKET = "/run/dbus/system_bus_socket"
SHUTDOWN_SOCKET = "/run/shutdown.sock"
RELEASED, TIMED_OUT = "released", "timeout"


def shut_down(shutdown_socket: Path, timeout_seconds: float) -> str:
    """Tell a machine's programs that it is going to be switched off; returns what its kubelet made of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(shutdown_socket))
        try:
            return connection.recv(64).decode() or TIMED_OUT
        except TimeoutError:
            return TIMED_OUT
