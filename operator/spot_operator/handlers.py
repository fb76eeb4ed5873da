"""What kopf's watches deliver, put where it belongs; nothing is decided here.

Only `on.event` handlers: no annotations, no finalizers, no state on objects. Invariant: a
handler neither waits nor fails; it hands a fact on.
"""

from collections.abc import Callable
from typing import Any

import kopf

from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.names import GROUP, LABEL_JOB_UID, PLURAL, VERSION
from spot_operator.watches import Backoffs


class NoDiffs(kopf.DiffBaseStorage):
    """Nobody asks kopf what has changed; finding out would copy every object of every event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        raise NotImplementedError("no handler leaves state on objects")


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
    settings.persistence.diffbase_storage = NoDiffs()
    settings.process.ultimate_exiting_timeout = 20
    return settings


def make_registry(credentials: Callable[[], Credentials], core: Core) -> kopf.OperatorRegistry:
    """The three watches, and how kopf logs in."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return credentials().for_kopf()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_changed(event: Any, type: str | None, **_: Any) -> None:
        core.hear_job(event["object"], deleted=type == "DELETED")

    @kopf.on.event("v1", "pods", registry=registry)
    async def pod_changed(event: Any, type: str | None, **_: Any) -> None:
        core.hear_pod(event["object"], deleted=type == "DELETED")

    @kopf.on.event("v1", "nodes", registry=registry)
    async def node_changed(event: Any, type: str | None, **_: Any) -> None:
        core.hear_node(event["object"], deleted=type == "DELETED")

    return registry
