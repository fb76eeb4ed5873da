"""Who may connect to the status server: how many, how often, for how long.

Every pod of the cluster can reach the server, and it shares its event loop with all that the
operator does; asyncio's own server would begin a TLS handshake with whatever comes, at any
rate. Invariants: a connection that is refused costs an accept and a close, and is refused at
once, since a client that waits does not train; no address can take up the room of the
others; a connection has one deadline, which nothing that it sends or leaves out can move.
"""

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from spot_operator import metrics
from spot_operator.limits import Buckets
from spot_operator.logs import Log

BACKLOG: Final = 512
ACCEPTS_AT_ONCE: Final = 64
"""Then the event loop does something else first."""
PAUSE_SECONDS: Final = 0.5
"""After an accept that failed: the process has no file descriptor left."""

_RESET: Final = struct.pack("ii", 1, 0)
_ALL: Final = ""

_log = Log(__name__)


@dataclass(frozen=True, kw_only=True)
class DoorLimits:
    """A report of a pod takes one connection of some 10 ms, every 5 or 10 s."""

    open: int = 256
    open_per_address: int = 32
    per_second: float = 400.0
    burst: int = 400
    """More would leave the event loop no time for jobs."""
    per_second_per_address: float = 40.0
    burst_per_address: int = 100
    """An address is a pod, or a node that hides its pods."""
    seconds: float = 10.0
    handshake_seconds: float = 5.0


class Door:
    """Listens, lets in what the limits allow, and gives each connection a protocol and its time."""

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        monotonic: Callable[[], float],
        limits: DoorLimits | None = None,
    ) -> None:
        self._make_protocol = make_protocol
        self._tls = tls
        self._limits = limits or DoorLimits()
        self._rate = Buckets[str](
            per_second=self._limits.per_second, burst=self._limits.burst, monotonic=monotonic
        )
        self._rate_of = Buckets[str](
            per_second=self._limits.per_second_per_address,
            burst=self._limits.burst_per_address,
            monotonic=monotonic,
        )
        self._open_of: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []

    def open(self, port: int, host: str | None = None) -> int:
        """Listen, on all addresses unless one is given; returns the port."""
        listener = _listen(port, host)
        listener.setblocking(False)
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("no connection can be taken now", error=str(error))
                self._pause(listener)
                return
            address = str(peer[0])
            if not self._admits(address):
                metrics.CONNECTIONS.labels("refused").inc()
                # Without lingering: a flood leaves nothing behind, and the client knows at once.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()
                continue
            self._open_of[address] += 1
            task = asyncio.create_task(self._attend(connection, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _admits(self, address: str) -> bool:
        return (
            len(self._tasks) < self._limits.open
            and self._open_of[address] < self._limits.open_per_address
            # The address first: what it is refused must not be taken from the others.
            and self._rate_of.take(address)
            and self._rate.take(_ALL)
        )

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)

        def go_on() -> None:
            if listener.fileno() >= 0:
                loop.add_reader(listener, self._accept, listener)

        loop.call_later(PAUSE_SECONDS, go_on)

    async def _attend(self, connection: socket.socket, address: str) -> None:
        guest = _Guest(self._make_protocol())
        result = "served"
        try:
            connection.setblocking(False)
            async with asyncio.timeout(self._limits.seconds):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: guest,
                    connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._limits.handshake_seconds if self._tls else None,
                    ssl_shutdown_timeout=1.0 if self._tls else None,
                )
                await guest.left.wait()
        except TimeoutError:
            result = "expired"
        except OSError:
            result = "failed"  # no TLS, or none that we speak; a handshake that took too long
        finally:
            if guest.transport is not None:
                guest.transport.abort()
            connection.close()
            self._open_of[address] -= 1
            if not self._open_of[address]:
                del self._open_of[address]
            metrics.CONNECTIONS.labels(result).inc()


class _Guest(asyncio.Protocol):
    """The protocol within, and when its connection has ended."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self.transport: asyncio.Transport | None = None
        self.left = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self.left.set()


def _listen(port: int, host: str | None) -> socket.socket:
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    return socket.create_server((host or "", port), backlog=BACKLOG)
