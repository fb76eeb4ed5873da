"""What every test of the repository needs: an event loop in the main thread that somebody closes, and
where several processes share the work, all tests that need a cluster in one of them."""

import asyncio
import os
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters are dear, so one process starts each once. They wait most of the time; another process
    uses what they leave of the machine for everything else (`make test`)."""
    for item in items:
        if any(item.iter_markers("api")) or any(item.iter_markers("e2e")):
            item.add_marker(pytest.mark.xdist_group("cluster"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Beside a cluster, whose tests have limits of seconds, the rest takes the processor that is left."""
    if "PYTEST_XDIST_WORKER" in os.environ and not any(item.iter_markers("xdist_group")):
        os.setpriority(os.PRIO_PROCESS, 0, 5)


@pytest.fixture(scope="session", autouse=True)
def main_thread_loop() -> Iterator[None]:
    """looptime asks for the main thread's loop around synchronous tests too. Where there is none,
    Python 3.11 makes one that is never closed, which fails some later test with a ResourceWarning."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
