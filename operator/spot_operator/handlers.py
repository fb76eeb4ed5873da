"""What kopf's watches deliver, put where it belongs; nothing is decided here.

Only `on.event` handlers: no annotations, no finalizers, no state on objects, and an event
that never comes costs latency, not correctness. Invariant: a handler neither waits nor
fails; it takes a fact in and wakes the jobs that it concerns.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import kopf

from spot_operator.cluster import JobKey, NodeCache, PodBook
from spot_operator.credentials import Credentials
from spot_operator.names import GROUP, LABEL_JOB_UID, PLURAL, VERSION

RECONNECT_MAX_SECONDS: Final = 30.0


class Backoffs:
    """Endless, jittered, and iterable again: with kopf's finite default a server that answers 500
    for a minute ends the process."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            yield min(RECONNECT_MAX_SECONDS, 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)


def watch_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Backoffs()
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["v1", "pods"] = LABEL_JOB_UID
    settings.process.ultimate_exiting_timeout = 20
    return settings


def make_registry(
    credentials: Callable[[], Credentials],
    pods: PodBook,
    nodes: NodeCache,
    *,
    wake: Callable[[JobKey], None],
    is_own_write: Callable[[JobKey, str], bool],
    pod_ended: Callable[[JobKey], None],
) -> kopf.OperatorRegistry:
    """The three watches, and how kopf logs in."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return credentials().for_kopf()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_changed(name: str, namespace: str | None, meta: Any, type: str | None, **_: Any) -> None:
        key = (namespace or "", name)
        if type == "DELETED" or not is_own_write(key, meta.get("resourceVersion", "")):
            wake(key)

    @kopf.on.event("v1", "pods", registry=registry)
    async def pod_changed(event: Any, type: str | None, **_: Any) -> None:
        key, ended = pods.hear(event["object"], deleted=type == "DELETED")
        if key is not None:
            if ended:
                pod_ended(key)
            wake(key)

    @kopf.on.event("v1", "nodes", registry=registry)
    async def node_changed(event: Any, type: str | None, **_: Any) -> None:
        for key in nodes.hear(event["object"], deleted=type == "DELETED"):
            wake(key)

    return registry
