"""A proxy before a real API server that spoils watches: they hear nothing, break, or are refused.

For what a real one does not do on demand. Everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

USER = {"name": "proxy", "user": {}}
KEPT_HEADERS = ("Content-Type", "Accept", "User-Agent")


class WatchProxy:
    """Speaks plain HTTP on a loopback port, and to the API server as its administrator."""

    def __init__(self, upstream: str, tls: ssl.SSLContext) -> None:
        self._upstream, self._tls = upstream, tls
        self._deaf: set[str] = set()
        self._refused: dict[str, int] = {}
        self._watches: dict[str, list[web.StreamResponse]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._start())

    def _do(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(20)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._hand_on)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    def close(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    # ------------------------------------------------------------------ what a test does

    def deafen(self, plural: str) -> None:
        """Watches of these that are open hear no more."""
        self._on_loop(lambda: self._deaf.add(plural))

    def break_watches(self, plural: str, code: int = 500) -> int:
        """Ends the open watches of these with an error; the next ones hear again. Returns how many."""
        return int(self._do(self._break(plural, code)))

    def refuse(self, plural: str, status: int) -> None:
        """Answers every read of a list of these, and every watch, with this HTTP status."""
        self._on_loop(lambda: self._refused.update({plural: status}))

    def grant(self, plural: str) -> None:
        self._on_loop(lambda: self._refused.pop(plural))

    def num_watches(self, plural: str) -> int:
        return len(self._watches.get(plural, []))

    def _on_loop(self, step: Callable[[], Any]) -> None:
        async def on_loop() -> None:
            step()

        self._do(on_loop())

    async def _break(self, plural: str, code: int) -> int:
        self._deaf.discard(plural)
        broken = self._watches.pop(plural, [])
        status = _status(code, "etcdserver: the leader has changed")
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        for watch in broken:
            with contextlib.suppress(ConnectionError):
                await watch.write(line)
        return len(broken)

    # ------------------------------------------------------------------ what passes

    async def _hand_on(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if request.method == "GET" and (code := self._refused.get(plural)):
            return web.json_response(_status(code, "not now"), status=code)
        headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
        body = await request.read()
        url = self._upstream + request.path_qs
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, ssl=self._tls
        ) as answer:
            if "watch=true" in request.query_string:
                return await self._stream(request, answer, plural)
            text = await answer.read()
            return web.Response(body=text, status=answer.status, content_type=answer.content_type)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, plural: str
    ) -> web.StreamResponse:
        watch = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await watch.prepare(request)
        opened = self._watches.setdefault(plural, [])
        opened.append(watch)
        async for line in answer.content:
            # One that was broken is in nobody's list any more.
            if watch not in self._watches.get(plural, []):
                return watch
            if plural not in self._deaf:
                await watch.write(line)
        self._watches[plural].remove(watch)
        return watch


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


@contextlib.contextmanager
def proxied(kubeconfig: Path, copy: Path, tls: ssl.SSLContext) -> Iterator[WatchProxy]:
    """Writes to `copy` a kubeconfig that leads through the proxy."""
    config = yaml.safe_load(kubeconfig.read_text())
    proxy = WatchProxy(config["clusters"][0]["cluster"]["server"], tls)
    config["clusters"] = [
        {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}},
    ]
    config["users"] = [USER]
    config["contexts"] = [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}]
    config["current-context"] = "proxy"
    copy.write_text(yaml.safe_dump(config))
    try:
        yield proxy
    finally:
        proxy.close()
