"""What the API client makes of answers that no API server gives."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from spot_operator.credentials import Credentials
from spot_operator.kube import NODES, Kube, Unreachable


@contextlib.asynccontextmanager
async def client_of(body: bytes, status: int, content_type: str) -> AsyncIterator[Kube]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    kube = Kube(Credentials(server=f"http://127.0.0.1:{port}"), timeout_seconds=5)
    try:
        yield kube
    finally:
        await kube.close()
        await runner.cleanup()


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\x80 is no UTF-8", "application/json"),
        (b"<html>bad gateway</html>", "text/html; charset=no-such-charset"),
    ],
)
async def test_an_answer_in_another_encoding_is_no_answer(
    body: bytes, content_type: str, status: int
) -> None:
    """A proxy's own page, for example."""
    async with client_of(body, status, content_type) as kube:
        with pytest.raises(Unreachable):
            await kube.get(NODES, "spot-a")
