"""One operator process: the real core and election on a client of the model, its watches, and its death.

Invariant: after `kill` nothing of the process does anything; what it had sent has either
arrived or not.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import aiohttp

from simulation.api import Api, Object, copied
from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.kube import Kube, KubeError
from spot_operator.leadership import KubeLease
from spot_operator.lease import Elector, LostLease
from spot_operator.model import PolicySettings
from spot_operator.settings import LeaseSettings, Settings

NAMESPACE = "system"
LISTED = "LISTED"
"""What kopf hands on of the listing that a watch begins with."""
SLOWEST_SECONDS = 20
"""What an event of a slow watch takes at most."""
SETTINGS = Settings(
    namespace=NAMESPACE,
    lease=LeaseSettings(duration_seconds=15, renew_deadline_seconds=10, retry_seconds=3),
    # The model's jobs take minutes, not days.
    policy=PolicySettings(launch_seconds=60, on_demand_reserve_seconds=60, return_pause_seconds=20),
)


class Weather:
    """What lies between the operators and the API server; changed by the schedule."""

    def __init__(self, rng: random.Random, lagging: str = "") -> None:
        self.rng = rng
        self.lagging = lagging
        """The kind, in plural, whose watches are slow all the time."""
        self.is_down = False
        """Requests and watches get no answer."""
        self.slow_watches_until = 0.0
        self.are_nodes_unreadable = False
        self.are_pods_unreadable = False
        self.refused_writes = 0
        """So many of the next writes of pods answer 429."""
        self.lost_answers = 0
        """So many of the next writes are done, and their answers get lost."""


class ModelKube(Kube):
    """The operator's client; only the transport is the model's."""

    def __init__(self, process: OperatorProcess, guard: Callable[[], bool] | None = None) -> None:
        credentials = Credentials(server="http://model")
        super().__init__(
            credentials, timeout_seconds=15, session=cast(aiohttp.ClientSession, object()), guard=guard
        )
        self._process = process

    def guarded(self, guard: Callable[[], bool]) -> Kube:
        return ModelKube(self._process, guard)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> tuple[int, str, Mapping[str, str]]:
        return await self._process.send(method, path, query or {}, body)


class OperatorProcess:
    def __init__(
        self,
        number: int,
        api: Api,
        weather: Weather,
        *,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
        on_call: Callable[[str, str, int], None],
        complain: Callable[[str], None],
        skew_seconds: float = 0.0,
    ) -> None:
        self.name = f"operator-{number}"
        self._api, self._weather, self._say, self._on_call = api, weather, say, on_call
        self._complain = complain
        self.stalled_until = 0.0
        """Its calls hang until then."""
        self._skew = timedelta(seconds=skew_seconds)
        self._clock = clock
        self._tasks: list[asyncio.Task[Any]] = []
        self._streams: dict[str, float] = {}
        self._is_cut = False
        self.num_calls = 0
        self.dies_at: tuple[int, str] | None = None
        """Count of the call, and `before` or `after` the server has done it."""
        self.is_dead = False
        self.core: Core | None = None
        self._elector = Elector(
            KubeLease(ModelKube(self), NAMESPACE, "lease"),
            self.name,
            SETTINGS.lease,
            clock=self._now,
            monotonic=self._time,
            looks_per_renewal=1,  # most of all that happens would be looks of a stand-by
        )

    @property
    def is_leading(self) -> bool:
        return not self.is_dead and self._elector.is_leading() and self.core is not None

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _now(self) -> datetime:
        return self._clock() + self._skew

    def start(self) -> None:
        self._say(f"{self.name} starts")
        self._tasks = [asyncio.create_task(self._run())]

    def kill(self, why: str) -> None:
        if self.is_dead:
            return
        self._say(f"{self.name} is dead ({why})")
        self.is_dead = True
        if self._hear in self._api.listeners:
            self._api.listeners.remove(self._hear)
        for task in self._tasks:
            task.cancel()

    async def _run(self) -> None:
        try:
            await self._elector.acquire()
            self._say(f"{self.name} leads")
            acting = ModelKube(self).guarded(self._elector.is_leading)
            core = Core(
                acting,
                SETTINGS,
                component=self.name,
                status_ca=lambda: "",
                clock=self._now,
                monotonic=self._time,
                jitter=self._weather.rng.random,
            )
            while True:
                try:
                    await core.list_all(is_first=True)
                    break
                except KubeError:
                    await asyncio.sleep(2)
            self.core = core
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._elector.hold())
                parts.create_task(core.queue.run())
                parts.create_task(core.list_again())
                parts.create_task(self._begin_watching())
        except* LostLease:
            self.kill("it lost the lease")

    async def _begin_watching(self) -> None:
        """Some time after the first listing: of what goes meanwhile nobody tells."""
        await asyncio.sleep(self._weather.rng.uniform(0.01, 1.0))
        if not self._is_cut:
            self.watch_again()

    # ------------------------------------------------------------------ watches

    def _hear(self, kind: str, plural: str, changed: Object) -> None:
        """Events of a stream arrive in order, late, sometimes twice; those of a broken one never."""
        if plural not in ("pods", "nodes", "spottrainingjobs") or self._weather.is_down:
            return
        rng, now = self._weather.rng, self._time()
        delay = rng.uniform(0.005, 0.1)
        if now < self._weather.slow_watches_until or plural == self._weather.lagging:
            delay = rng.uniform(1, SLOWEST_SECONDS)
        due = max(now + delay, self._streams.get(plural, 0.0) + 1e-6)  # two at one time have no order
        self._streams[plural] = due
        seen = copied(changed)
        loop = asyncio.get_running_loop()
        for again in range(2 if rng.random() < 0.05 else 1):
            loop.call_at(due + again * 1e-7, self._deliver, kind, plural, seen)

    def _deliver(self, kind: str, plural: str, seen: Object) -> None:
        core = self.core
        if self.is_dead or core is None:
            return
        deleted = kind == "DELETED"
        if plural == "pods":
            core.hear_pod(seen, deleted=deleted)
        elif plural == "nodes":
            core.hear_node(seen, deleted=deleted)
        else:
            core.hear_job(seen, deleted=deleted)

    def break_watches(self) -> None:
        self._is_cut = True
        if self._hear in self._api.listeners:
            self._api.listeners.remove(self._hear)

    def watch_again(self) -> None:
        """A watch begins, or a broken one comes back: it tells what is there, and never what has gone."""
        self._is_cut = False
        if self._hear not in self._api.listeners:
            self._api.listeners.append(self._hear)
        for plural in ("nodes", "pods", "spottrainingjobs"):
            for each in self._api.all(plural):
                self._hear(LISTED, plural, each)
            # That it has been listed is told after it, and also of nothing.
            due = max(self._time(), self._streams.get(plural, 0.0))
            asyncio.get_running_loop().call_at(due, self._tell_gap)

    def _tell_gap(self) -> None:
        if not self.is_dead and self.core is not None:
            self.core.hear_gap()

    # ------------------------------------------------------------------ requests

    def _check_leads(self, method: str, path: str) -> None:
        """A write is begun only by who holds the Lease, as far as the API server knows."""
        lease = self._api.get("leases", "lease", NAMESPACE)
        if method == "GET" or "/leases" in path or lease is None:
            return
        holder = lease["spec"].get("holderIdentity")
        if holder not in ("", self.name):
            self._complain(f"{self.name} begins {method} {path} while {holder} leads")

    async def send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if self.is_dead:
            await asyncio.Event().wait()
        rng = self._weather.rng
        self.num_calls += 1
        number = self.num_calls
        self._check_leads(method, path)
        if method == "DELETE" and not (body or {}).get("preconditions", {}).get("uid"):
            self._complain(f"{method} {path} does not say which object it means")
        if self.stalled_until > self._time():
            await asyncio.sleep(self.stalled_until - self._time())
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        if self._weather.is_down:
            await asyncio.sleep(rng.choice([0.01, 5.0]))
            raise aiohttp.ClientConnectionError("no answer")
        if self._weather.are_nodes_unreadable and method == "GET" and "/nodes" in path:
            return 503, '{"reason": "ServiceUnavailable", "message": "overloaded"}', {}
        if self._weather.are_pods_unreadable and method == "GET" and "/pods" in path:
            return 503, '{"reason": "ServiceUnavailable", "message": "overloaded"}', {}
        if self._weather.refused_writes and method in ("POST", "DELETE") and "/pods" in path:
            self._weather.refused_writes -= 1
            return 429, '{"reason": "TooManyRequests", "message": "slow down"}', {}
        if self.dies_at == (number, "before"):
            self.kill(f"before its call {number}, {method} {path}")
            await asyncio.Event().wait()
        status, answer = self._api.handle(method, path, query, body)
        text = json.dumps(answer)
        self._on_call(method, path, status)
        if self.dies_at == (number, "after"):
            self.kill(f"after its call {number}, {method} {path}")
            await asyncio.Event().wait()
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        if method != "GET" and self._weather.lost_answers > 0:
            self._weather.lost_answers -= 1
            raise aiohttp.ServerDisconnectedError
        return status, text, {}
