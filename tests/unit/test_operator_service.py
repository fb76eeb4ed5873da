"""The operator process as it is put together."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from spot_operator import core
from spot_operator.credentials import Credentials
from spot_operator.kube import PODS, KubeError
from spot_operator.service import Service
from spot_operator.settings import Settings


@contextlib.asynccontextmanager
async def api_server_whose_pods_hang() -> AsyncIterator[tuple[str, list[str]]]:
    """Its address, and the calls that hang, as a create does whose webhook does not answer."""
    hanging: list[str] = []
    forever = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if "/leases" not in request.path:
            hanging.append(request.path)
            await forever.wait()
        if request.method == "GET":
            return web.json_response({"kind": "Status", "message": "not found"}, status=404)
        return web.json_response(await request.json())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", hanging
    finally:
        forever.set()
        await runner.cleanup()


async def test_the_lease_is_renewed_while_every_connection_of_the_looks_hangs() -> None:
    async with api_server_whose_pods_hang() as (server, hanging):
        service = Service(Settings(namespace="system"), Credentials(server=server))
        calls = [asyncio.create_task(service._kube.get(PODS, f"pod-{n}", "team")) for n in range(400)]
        try:
            async with asyncio.timeout(20):
                seen = -1
                while seen != len(hanging):  # until no connection is left
                    seen = len(hanging)
                    await asyncio.sleep(0.5)
                assert 100 < seen < 400
            async with asyncio.timeout(3):  # before any of the calls times out
                await service._elector.acquire()
            assert service._elector.is_leading()
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await service._kube.close()
            await service._lease_kube.close()


async def test_a_listing_after_a_gap_is_repeated_until_it_succeeds_and_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "GAP_SETTLING_SECONDS", 0.02)
    process = Service(Settings(namespace="system"), Credentials(server="http://127.0.0.1:1"))
    listed, fails = list[float](), 3
    succeeded = asyncio.Event()

    async def list_all(*, spread_seconds: float = 0.0) -> None:
        listed.append(asyncio.get_running_loop().time())
        if len(listed) <= fails:
            raise KubeError("overloaded")
        succeeded.set()

    monkeypatch.setattr(process._core, "list_all", list_all)
    process._core.hear_gap()
    listing = asyncio.create_task(process._core.list_again())
    try:
        async with asyncio.timeout(20):
            await succeeded.wait()
        await asyncio.sleep(0.3)
    finally:
        listing.cancel()
        await process._kube.close()
        await process._lease_kube.close()
    assert len(listed) == fails + 1
    waits = [later - earlier for earlier, later in itertools.pairwise(listed)]
    assert all(wait >= 0.02 * 2**number for number, wait in enumerate(waits, start=1))
