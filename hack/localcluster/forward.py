"""Ports of the host's loopback that lead into a cluster's own network.

The listening socket belongs to the host's network namespace. For each
connection a second socket is made while the thread is, for the moment of one
system call, a member of the cluster's namespace: a socket stays in the
namespace it was made in. No address, route or rule of the machine is touched.
"""

import asyncio
import ctypes
import os
import socket

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def socket_inside(pid: int) -> socket.socket:
    """A TCP socket that lives in the network namespace of the process."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            _set_namespace(there)
            try:
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            finally:
                _set_namespace(here)
        finally:
            os.close(there)
    finally:
        os.close(here)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


async def listen(pid: int, host: str, port: int) -> tuple[asyncio.Server, int]:
    """Accept on a free port of 127.0.0.1 and connect each client to host:port inside."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = socket_inside(pid)
        inner.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(inner, (host, port))
        except OSError:
            inner.close()
            writer.transport.abort()  # the client sees a reset, as from a closed port
            return
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inner_reader, inner_writer = await asyncio.open_connection(sock=inner)
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction; its end is passed on as a half-close, an error as a reset."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
