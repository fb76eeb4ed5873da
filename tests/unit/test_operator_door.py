"""Connections are let in within limits, refused at once beyond them, and end by a deadline."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spot_operator.door import Door, DoorLimits

HOST = "127.0.0.1"


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextlib.asynccontextmanager
async def opened(**limits: Any) -> AsyncIterator[int]:
    door = Door(Echo, tls=None, monotonic=time.monotonic, limits=DoorLimits(**limits))
    try:
        yield door.open(0, HOST)
    finally:
        await door.close()


class Caller:
    """A connection, which may have been refused while it was being made."""

    def __init__(self, ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
        self._ends = ends

    @classmethod
    async def call(cls, port: int, source: str = HOST) -> "Caller":
        try:
            return cls(await asyncio.open_connection(HOST, port, local_addr=(source, 0)))
        except ConnectionError:
            return cls(None)

    async def is_served(self, sends: bytes = b"x", seconds: float = 5.0) -> bool:
        """Whether something comes back."""
        if self._ends is None:
            return False
        reader, writer = self._ends
        try:
            writer.write(sends)
            async with asyncio.timeout(seconds):
                return await reader.read(1) != b""
        except ConnectionError:
            self._ends = None
            return False

    @property
    def is_over(self) -> bool:
        return self._ends is None or self._ends[0].at_eof()

    async def hang_up(self) -> None:
        if self._ends is not None:
            writer = self._ends[1]
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_connections_beyond_the_limit_of_an_address_are_refused_at_once() -> None:
    async with opened(open_per_address=2) as port:
        callers = [await Caller.call(port) for _ in range(3)]
        assert [await caller.is_served() for caller in callers] == [True, True, False]
        other = await Caller.call(port, "127.0.0.2")
        assert await other.is_served()
        for caller in (*callers, other):
            await caller.hang_up()


async def test_connections_beyond_the_limit_of_all_are_refused() -> None:
    async with opened(open=2) as port:
        callers = [await Caller.call(port, f"127.0.0.{n}") for n in (2, 3, 4)]
        assert [await caller.is_served() for caller in callers] == [True, True, False]
        for caller in callers:
            await caller.hang_up()


async def test_an_address_that_calls_too_often_does_not_use_up_the_rate_of_the_others() -> None:
    async with opened(
        per_second=0.001, burst=10, per_second_per_address=0.001, burst_per_address=3, open_per_address=99
    ) as port:
        flood = [await Caller.call(port, "127.0.0.2") for _ in range(50)]
        assert sum([await caller.is_served() for caller in flood]) == 3
        honest = await Caller.call(port, "127.0.0.3")
        assert await honest.is_served()
        for caller in (*flood, honest):
            await caller.hang_up()


async def test_room_is_free_again_when_a_connection_has_ended() -> None:
    async with opened(open_per_address=1) as port:
        for _ in range(5):
            caller = await Caller.call(port)
            assert await caller.is_served()
            assert not await (await Caller.call(port)).is_served()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await caller.hang_up()
            await asyncio.wait(others, timeout=5)


@pytest.mark.parametrize("sends", [b"", b"x"], ids=["says nothing", "goes on sending"])
async def test_no_connection_outlives_its_deadline(sends: bytes) -> None:
    async with opened(seconds=0.3) as port:
        caller, began = await Caller.call(port), time.monotonic()
        while not caller.is_over:
            with contextlib.suppress(TimeoutError):
                await caller.is_served(sends, 0.02)
        assert 0.25 < time.monotonic() - began < 3
        await caller.hang_up()


async def test_listens_on_every_address() -> None:
    door = Door(Echo, tls=None, monotonic=time.monotonic)
    port = door.open(0)
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
                continue
            caller = Caller(await asyncio.open_connection(host, port))
            assert await caller.is_served()
            await caller.hang_up()
    finally:
        await door.close()
