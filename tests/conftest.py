"""What every test of the repository needs: an event loop in the main thread that somebody closes."""

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def main_thread_loop() -> Iterator[None]:
    """looptime asks for the main thread's loop around synchronous tests too. Where there is none,
    Python 3.11 makes one that is never closed, which fails some later test with a ResourceWarning."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
