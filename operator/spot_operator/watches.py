"""What kopf's watches are made to do beyond kopf: tell of every listing, and survive every answer.

kopf lists where a watch begins, and anew when the API server says that it no longer knows what was missed;
of a listing that holds nothing its handlers hear nothing. And any other error within a watch, an answer
like 404 to it, or one that is no JSON ends all watches for good. kopf has no setting for either, so the one
function that makes a watch is wrapped; `tests/api/test_broken_watch.py` fails where a version of kopf makes
them elsewhere.
"""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import aiohttp
from kopf._cogs.clients import watching  # kopf exports no name for it
from kopf._cogs.clients.errors import APIClientError

from spot_operator import metrics
from spot_operator.logs import Log

MAX_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A watch that has lived as long begins with the shortest wait again."""
LEFT_TO_KOPF: Final = frozenset({401, 429})
"""It logs in anew, or begins anew."""
BREAKS: Final = (
    watching.WatchingError,
    APIClientError,
    aiohttp.ClientResponseError,
    json.JSONDecodeError,
    KeyError,  # an ERROR without its code
)

Watch = Callable[..., AsyncIterator[Any]]
_log = Log(__name__)


class Backoffs:
    """Endless, jittered, and iterable again: with kopf's finite default a server that answers 500
    for a minute ends the process."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            yield min(MAX_SECONDS, 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)


@contextlib.contextmanager
def steady_watches(hear_gap: Callable[[], None], hear_break: Callable[[], None]) -> Iterator[None]:
    """While open, watches begin anew after an error, calling `hear_break`; `hear_gap` after a listing."""
    original = watching.continuous_watch
    watching.continuous_watch = steady(original, hear_gap, hear_break)
    try:
        yield
    finally:
        watching.continuous_watch = original


def steady(watch: Watch, hear_gap: Callable[[], None], hear_break: Callable[[], None]) -> Watch:
    """`watch`, begun anew after every error that kopf would give up at."""

    async def steady_watch(*, resource: Any, **arguments: Any) -> AsyncIterator[Any]:
        now = asyncio.get_running_loop().time
        waits = iter(Backoffs())
        while True:
            began = now()
            try:
                async for event in watch(resource=resource, **arguments):
                    if event is watching.Bookmark.LISTED:
                        hear_gap()
                    yield event
                return
            except BREAKS as error:
                if isinstance(error, APIClientError) and error.status in LEFT_TO_KOPF:
                    raise
                if now() - began >= STEADY_SECONDS:
                    waits = iter(Backoffs())
                seconds = next(waits)
                metrics.WATCH_ERRORS.labels(resource.plural).inc()
                _log.warning(
                    "a watch broke, begins anew", what=resource.plural, seconds=seconds, error=str(error)
                )
                hear_break()
            # Not while the error is handled: it keeps the broken watch, and kopf's timer for that one would
            # end this task.
            await asyncio.sleep(seconds)

    return steady_watch
