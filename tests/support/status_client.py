"""Clients of the status server as they come: honest, wrong, broken, slow, and far too many."""

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from operator_scene import Operator, Scene

HONEST = "127.0.0.1"
ENEMY = "127.0.0.66"
"""Another address of loopback, as another pod would have."""


class StatusClient:
    """Reports for one job over verified TLS, each over a connection of its own, as urllib does."""

    def __init__(self, operator: Operator, scene: Scene, job: str = "digits") -> None:
        secret = scene.get("secret", "spot-training-operator-tls")
        self.ca = base64.b64decode(secret["data"]["ca.crt"]).decode()
        self._context = ssl.create_default_context(cadata=self.ca)
        self.port = operator.status_port
        self.path = f"/v1alpha1/namespaces/{scene.namespace}/spottrainingjobs/{job}/status"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}{self.path}"

    def post(
        self,
        token: str,
        body: Any = None,
        *,
        source: str = HONEST,
        path: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """The answer; 0 where the connection was refused or broken off."""
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=5, context=self._context, source_address=(source, 0)
        )
        try:
            connection.request(
                "POST",
                path or self.path,
                data,
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | (headers or {}),
            )
            with connection.getresponse() as answer:
                return answer.status, answer.read().decode()
        except (ConnectionError, ssl.SSLError, http.client.RemoteDisconnected):
            return 0, ""
        finally:
            connection.close()

    def open(self, source: str = ENEMY) -> ssl.SSLSocket:
        """A TLS connection on which nothing is said yet."""
        plain = socket.create_connection(("127.0.0.1", self.port), 5, source_address=(source, 0))
        return self._context.wrap_socket(plain, server_hostname="127.0.0.1")

    def head(self, token: str, *lines: str) -> bytes:
        words = (f"POST {self.path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *lines, "", "")
        return "\r\n".join(words).encode()


class Forger:
    """Signs service account tokens with the cluster's own key, or with another."""

    def __init__(self, pki: Path) -> None:
        key = serialization.load_pem_private_key((pki / "service-accounts.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._foreign_key = ec.generate_private_key(ec.SECP256R1())

    def again(self, token: str, *, expires_in: timedelta, genuine: bool = True) -> str:
        """The same token with another expiry, signed anew."""
        head, middle, _ = token.split(".")
        claims = json.loads(_unpack(middle))
        now = datetime.now(UTC)
        claims["exp"] = int((now + expires_in).timestamp())
        claims["iat"] = claims["nbf"] = int(
            (now + min(expires_in, timedelta()) - timedelta(hours=1)).timestamp()
        )
        signed = f"{head}.{_pack(json.dumps(claims).encode())}"
        key = self._key if genuine else self._foreign_key
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_pack(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Flood:
    """As many reports as some threads can send; counts the answers by status (0: no answer)."""

    def __init__(self, client: StatusClient, tokens: Iterator[str], *, num_threads: int = 4) -> None:
        self._client, self._tokens = client, tokens
        self._lock, self._stop = threading.Lock(), threading.Event()
        self.answers: Counter[int] = Counter()
        self.seconds = 0.0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(num_threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                token = next(self._tokens)
            status = 0
            with contextlib.suppress(OSError):
                status, _ = self._client.post(token, source=ENEMY)
            with self._lock:
                self.answers[status] += 1

    def __enter__(self) -> "Flood":
        self.seconds = -time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self.seconds += time.monotonic()


def time_reports(
    client: StatusClient, token: str, *, seconds: float, every: float
) -> list[tuple[int, float]]:
    """(status, seconds it took) of an honest client's reports."""
    found, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        status, _ = client.post(token, {"step": 1})
        found.append((status, time.monotonic() - began))
        time.sleep(max(0.0, every - (time.monotonic() - began)))
    return found
