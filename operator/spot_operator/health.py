"""Probes and metrics over plain HTTP, for the kubelet and Prometheus.

That an answer comes proves that the event loop runs. Invariant: an API server that cannot
be reached makes nothing unhealthy, because a restart would not help and would lose what is
in memory; only work that is stuck does.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from spot_operator import metrics

MAX_STANDSTILL_SECONDS: Final = 120.0
"""A look ends within its calls' time-outs, whatever it waits for. Many that wait make all others late,
but that is no reason to begin again with all of them."""


class Health:
    """What the probes know; the parts set it as they start."""

    def __init__(self, *, is_leading: Callable[[], bool]) -> None:
        self._is_leading = is_leading
        self.queue_lateness: Callable[[], float] = lambda: 0.0
        self.queue_standstill: Callable[[], float] = lambda: 0.0
        self.queue_depth: Callable[[], int] = lambda: 0
        self.is_started = False
        """Ready to take over, or to lead."""
        self.is_watching = False
        """The first listing was made: leading means serving now."""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def _healthz(self, _: web.Request) -> web.Response:
        standstill = self.queue_standstill()
        text = f"queue lateness {self.queue_lateness():.1f} s, standstill {standstill:.1f} s\n"
        return web.Response(status=500 if standstill > MAX_STANDSTILL_SECONDS else 200, text=text)

    async def _readyz(self, _: web.Request) -> web.Response:
        leading = self._is_leading()
        ready = self.is_started and (self.is_watching or not leading)
        text = f"started {self.is_started}, leading {leading}, watching {self.is_watching}\n"
        return web.Response(status=200 if ready else 503, text=text)

    async def _metrics(self, _: web.Request) -> web.Response:
        metrics.LEADER.set(self._is_leading())
        metrics.QUEUE_DEPTH.set(self.queue_depth())
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
