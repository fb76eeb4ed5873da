"""What is made of what kopf hands on."""

from typing import Any, cast

import kopf
import pytest

from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.handlers import make_registry

KINDS = ("spottrainingjobs", "pods", "nodes")


class Heard:
    """In the place of the core: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def hear_job(self, _: object, *, deleted: bool) -> None:
        self.told.append(("spottrainingjobs", deleted))

    def hear_pod(self, _: object, *, deleted: bool) -> None:
        self.told.append(("pods", deleted))

    def hear_node(self, _: object, *, deleted: bool) -> None:
        self.told.append(("nodes", deleted))


async def hand_on(heard: Heard, plural: str, type_: str | None) -> None:
    registry = make_registry(lambda: Credentials(server="http://x"), cast(Core, heard))
    handlers = [
        each
        for each in registry._watching._handlers
        if each.selector.any_name == plural or each.selector.plural == plural
    ]
    for each in handlers:
        handler = cast(Any, each.fn)
        await handler(event={"type": type_, "object": {}}, type=type_, memo=kopf.Memo())


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.parametrize("type_", [None, "ADDED", "MODIFIED", "DELETED"])
async def test_what_a_watch_tells_is_handed_on(plural: str, type_: str | None) -> None:
    heard = Heard()
    await hand_on(heard, plural, type_)
    assert heard.told == [(plural, type_ == "DELETED")]
