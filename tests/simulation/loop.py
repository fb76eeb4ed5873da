"""An event loop whose time passes only by leaping to the next thing that is due."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class Stuck(Exception):
    """Nothing is due any more, and the run has not ended."""


class _Leap(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("nothing is left to happen")
        if timeout > 0:
            self.loop.seconds += timeout
        return []

    def get_map(self) -> Mapping[Any, Any]:
        return super().get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """`seconds` is the time since the loop was made; nothing reads a real clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        selector = _Leap()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds
