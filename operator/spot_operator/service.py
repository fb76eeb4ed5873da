"""The parts put together: what runs, in which order, and what ends it.

A stand-by has its certificate, its probes and its place in the election, and nothing else;
a leader adds the watches, the queue and the label that brings it the reports. Invariant:
nothing needs a clean end. Whatever is under way at a signal, at the loss of the Lease or at
a crash is found again in the API server, so the end is: give the Lease back, and go.
"""

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import kopf
from aiohttp import web
from kopf._core.engines.peering import Identity  # kopf exports no name for it

from spot_operator import metrics
from spot_operator.certificates import Certificates
from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.door import Door
from spot_operator.handlers import make_registry, watch_settings
from spot_operator.health import Health
from spot_operator.kube import JOBS, Kube, KubeError
from spot_operator.leadership import KubeLease, LeaderLabel
from spot_operator.lease import Elector, LostLease
from spot_operator.logs import Log
from spot_operator.settings import Settings
from spot_operator.status_server import StatusServer
from spot_operator.tokens import TokenReviewer
from spot_operator.watches import steady_watches
from spot_operator.workqueue import MAX_SLOW, MAX_SLOW_URGENT

CERTIFICATE_CHECK_SECONDS: Final = 300.0
"""Who deletes the Secret takes the CA from the pods that run, once no process remembers it any more."""
START_RETRY_SECONDS: Final = 2.0
LEASE_CONNECTIONS: Final = 2
SPARE_CONNECTIONS: Final = 32
"""Beyond one for each look that may be under way: for listings, reviews of tokens, and looks at several
nodes."""
TELL_SECONDS: Final = 1.0
"""For Events at the end; the next leader is waiting."""

_log = Log(__name__)


def wall_clock() -> datetime:
    """The one place where the operator reads the wall clock."""
    return datetime.now(UTC)  # noqa: TID251


class Service:
    """One operator process."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        identity = f"{settings.pod_name}_{settings.pod_uid}"
        if not settings.pod_name:
            identity = f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
        self._identity = identity
        self._kube = Kube(
            credentials,
            timeout_seconds=settings.request_timeout_seconds,
            max_connections=settings.workers + MAX_SLOW + MAX_SLOW_URGENT + SPARE_CONNECTIONS,
        )
        # However many calls hang, because a webhook does, the Lease is renewed.
        self._lease_kube = Kube(
            credentials,
            timeout_seconds=settings.request_timeout_seconds,
            max_connections=LEASE_CONNECTIONS,
        )
        self._elector = Elector(
            KubeLease(self._lease_kube, settings.namespace, settings.lease.name),
            identity,
            settings.lease,
            clock=wall_clock,
            monotonic=time.monotonic,
        )
        self._label = LeaderLabel(self._kube, settings.namespace, settings.pod_name)
        self._acting = self._kube.guarded(self._elector.is_leading)
        self._health = Health(is_leading=self._elector.is_leading)
        self._certificates = Certificates(
            self._kube,
            settings.namespace,
            settings.tls_secret_name,
            settings.status_address or "localhost",
            clock=wall_clock,
        )
        self._core = Core(
            self._acting,
            settings,
            component=identity[:128],
            status_ca=self._certificates.ca_pem,
            clock=wall_clock,
            monotonic=time.monotonic,
        )
        self._health.queue_lateness = self._core.queue.lateness
        self._health.queue_standstill = self._core.queue.standstill
        self._health.queue_depth = self._core.queue.depth
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until a signal (returns 0) or until a part fails (returns 1)."""
        self._listen_to_signals()
        parts = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._serve())]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        failed = [task.exception() for task in done if task.exception() is not None]
        for error in failed:
            _log.error("stopping: a part failed", exception=error)
        if not any(_is_lost_lease(error) for error in failed):
            await self._tell_the_rest()
            await self._label.drop()
            await self._elector.release()
        _log.info("stopped", code=1 if failed else 0)
        return 1 if failed else 0

    async def _tell_the_rest(self) -> None:
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await self._core.reconciler.tell_all()
        except TimeoutError:
            _log.warning("events were not written", jobs=self._core.reconciler.num_untold())

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _serve(self) -> None:
        await self._listen(self._health.application(), self._settings.metrics_port)
        # A container that was restarted within its pod still carries the label of its last life.
        await self._label.drop()
        if self._settings.status_address:
            await self._start("certificates", self._certificates.ensure)
            await self._open_door()
        self._health.is_started = True
        _log.info("standing by")
        await self._elector.acquire()
        metrics.LEADER.set(1)
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._elector.hold())
            parts.create_task(self._lead())

    async def _lead(self) -> None:
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._core.queue.run())
            async with asyncio.TaskGroup() as first:
                first.create_task(self._start("leader label", self._label.take))
                first.create_task(self._list_first())
            self._health.is_watching = True
            parts.create_task(self._core.list_again())
            if self._settings.status_address:
                # At once: the last leader may have changed what this replica read when it started.
                parts.create_task(
                    self._repeat(
                        "certificates", CERTIFICATE_CHECK_SECONDS, self._certificates.ensure, first_after=0.0
                    )
                )
            parts.create_task(self._watch())

    async def _list_first(self) -> None:
        await self._start("resource definition", self._require_definition)
        await self._start("first listing", lambda: self._core.list_all(is_first=True))

    async def _watch(self) -> None:
        registry = make_registry(lambda: self._credentials, self._core)
        others = asyncio.all_tasks()
        namespaces = self._settings.watch_namespaces
        with steady_watches(self._core.hear_gap, self._core.hear_break):
            tasks = await kopf.spawn_tasks(
                registry=registry,
                settings=watch_settings(),
                # Otherwise kopf asks for the name of our user, which in a container is only a number.
                identity=Identity(self._identity),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
            )
            self._listen_to_signals()  # kopf has just put its own handlers in their place
            await kopf.run_tasks(tasks, ignored=others)
        raise RuntimeError("the watches ended")

    async def _require_definition(self) -> None:
        if not await self._acting.has_kind(JOBS):
            raise KubeError("the SpotTrainingJob resource definition is not installed")

    def _status_server(self) -> StatusServer:
        return StatusServer(
            # Reviews are no writes to jobs: the guard of the leader does not apply to them.
            TokenReviewer(self._kube, monotonic=time.monotonic),
            self._core.pods,
            self._core.reports,
            answer=self._core.reconciler.answer,
            wake=lambda key, urgent: self._core.queue.wake(
                key, 0.0 if urgent else self._settings.report_wake_seconds
            ),
            is_leading=self._elector.is_leading,
            clock=wall_clock,
            monotonic=time.monotonic,
        )

    async def _open_door(self) -> None:
        runner = self._status_server().runner()
        await runner.setup()
        assert runner.server is not None
        self._door = Door(runner.server, tls=self._certificates.context, monotonic=time.monotonic)
        self._door.open(self._settings.status_port)

    async def _listen(self, application: web.Application, port: int) -> None:
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()

    async def _start(self, what: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a step that nothing works without, for as long as it takes."""
        while True:
            try:
                return await step()
            except KubeError as error:
                _log.warning("not started yet", waiting_for=what, error=error.message)
            await asyncio.sleep(START_RETRY_SECONDS)

    async def _repeat(
        self,
        what: str,
        period: float,
        step: Callable[[], Coroutine[Any, Any, None]],
        *,
        first_after: float | None = None,
    ) -> None:
        wait = period if first_after is None else first_after
        while True:
            await asyncio.sleep(wait)
            wait = period
            try:
                await step()
            except KubeError as error:
                _log.warning("failed, will be repeated", what=what, error=error.message)


def _is_lost_lease(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_lost_lease(inner) for inner in error.exceptions)
    return isinstance(error, LostLease)
