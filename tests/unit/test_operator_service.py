"""The operator process as it is put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from spot_operator.credentials import Credentials
from spot_operator.kube import PODS
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
                while not hanging or seen != len(hanging):  # until no connection is left
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
