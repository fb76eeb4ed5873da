"""What every test of the repository needs: an event loop in the main thread that somebody closes, and
where several processes share the work, all tests that need a cluster in one of them."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CLUSTER_FOLDERS = ("tests/api/", "tests/e2e/")


class ClusterScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Clusters are dear, so one process starts each once and has all tests that use it. They wait most of
    the time; another process uses what they leave of the machine for everything else (`make test`)."""

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith(CLUSTER_FOLDERS) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ClusterScheduling:
    return ClusterScheduling(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Beside a cluster, whose tests have limits of seconds, the rest takes the processor that is left."""
    if "PYTEST_XDIST_WORKER" in os.environ and not item.nodeid.startswith(CLUSTER_FOLDERS):
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
