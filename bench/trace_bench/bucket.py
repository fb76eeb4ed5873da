"""Objects in S3 with the standard library alone, in a pod: create, list, read.

Invariant: `create` lets exactly one of many callers win, and what it has returned for is durable.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from localcluster.s3_signing import signed_request

TIMEOUT_SECONDS = 10.0
_KEY = re.compile(rb"<Key>([^<]+)</Key>")


@dataclass(frozen=True)
class Access:
    endpoint: str
    access_key: str
    secret_key: str
    region: str


class Bucket:
    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        """`uri`: s3://bucket/prefix."""
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/"
        self._access = Access(
            environ["AWS_ENDPOINT_URL_S3"],
            environ["AWS_ACCESS_KEY_ID"],
            environ["AWS_SECRET_ACCESS_KEY"],
            environ["AWS_REGION"],
        )

    def create(self, key: str, body: bytes) -> bool:
        """False: it was there already."""
        request = signed_request("PUT", self._path(key), self._access, body)
        request.add_header("If-None-Match", "*")
        try:
            _send(request)
        except urllib.error.HTTPError as error:
            if error.code == 412:
                return False
            raise
        return True

    def read(self, key: str) -> bytes:
        return _send(signed_request("GET", self._path(key), self._access))

    def list(self, folder: str) -> list[str]:
        """Keys below, without the prefix; the few that a run here makes fit into one page."""
        query = f"list-type=2&prefix={quote(self._prefix + folder, safe='')}"
        found = _send(signed_request("GET", f"/{self._bucket}", self._access, query=query))
        return [key.decode().removeprefix(self._prefix) for key in _KEY.findall(found)]

    def _path(self, key: str) -> str:
        return f"/{self._bucket}/{self._prefix}{key}"


def _send(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        body: bytes = answer.read()
    return body
