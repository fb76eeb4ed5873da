"""The bench's own client of the API server: many requests at once, from the cluster's own network.

Through the cluster's forwarded port every byte would go through Python once more.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from localcluster.fabric import GATEWAY
from localcluster.forward import socket_inside

Json = Mapping[str, Any]
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
AT_ONCE = 64
_SECONDS = 120.0


class ApiError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Api:
    """As administrator."""

    def __init__(self, pki: Path, inside: int) -> None:
        """`inside`: a process in the cluster's network."""
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._server = f"https://{GATEWAY}:443"
        connector = aiohttp.TCPConnector(
            limit=AT_ONCE, ssl=context, socket_factory=lambda _: socket_inside(inside)
        )
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=_SECONDS)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, *, type: str = "application/json", accept: str = "*/*"
    ) -> Any:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Content-Type": type, "Accept": accept}
        async with self._session.request(method, self._server + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise ApiError(answer.status, text)
            return json.loads(text)

    async def get(self, path: str, *, accept: str = "*/*") -> Any:
        return await self.request("GET", path, accept=accept)

    async def create(self, path: str, body: Any) -> Any:
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Json) -> Any:
        return await self.request("PATCH", path, body, type=MERGE_PATCH)

    async def delete(self, path: str) -> Any:
        return await self.request("DELETE", path, {"propagationPolicy": "Background"})

    async def delete_all(self, collection: str) -> None:
        """Ask for it again as long as the server needs more time than it gives itself."""
        while True:
            try:
                await self.delete(collection)
                return
            except ApiError as error:
                if error.status != 504:
                    raise

    async def create_all(self, requests: Iterable[tuple[str, Json]]) -> None:
        """As many at once as there are connections; encoded before the first is sent."""
        await self._all([("POST", path, json.dumps(body).encode()) for path, body in requests])

    async def _all(self, requests: list[tuple[str, str, bytes]]) -> None:
        waiting = iter(requests)

        async def work() -> None:
            for method, path, body in waiting:
                await self.request(method, path, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    async def items(self, path: str, *, accept: str = "*/*") -> list[dict[str, Any]]:
        """A complete list, page by page."""
        found: list[dict[str, Any]] = []
        token, joint = "", "&" if "?" in path else "?"
        while True:
            page = await self.get(f"{path}{joint}limit=1000&continue={token}", accept=accept)
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    async def names(self, path: str) -> list[str]:
        return [item["metadata"]["name"] for item in await self.items(path, accept=NAMES_ONLY)]

    async def is_empty(self, path: str) -> bool:
        joint = "&" if "?" in path else "?"
        return not (await self.get(f"{path}{joint}limit=1", accept=NAMES_ONLY))["items"]

    async def post(self, url: str, token: str, body: Json) -> None:
        """To a server in the cluster's network whose certificate is not looked at."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.post(url, json=body, headers=headers, ssl=False) as answer:
            if answer.status >= 300:
                raise ApiError(answer.status, await answer.text())

    async def text(self, url: str) -> str:
        """A page of plain HTTP in the cluster's network; empty: nobody answers."""
        try:
            async with self._session.get(url, ssl=False) as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return ""
