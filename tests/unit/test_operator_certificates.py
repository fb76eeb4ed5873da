"""The CA stays, the serving certificate is renewed early, and what is damaged is replaced."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from spot_operator.certificates import (
    CA_VALID,
    RENEW_BEFORE,
    SERVING_VALID,
    Bundle,
    Certificates,
    KeyPair,
    make_ca,
    refresh,
)
from spot_operator.credentials import Credentials
from spot_operator.kube import Kube

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOST = "status.operators.svc"


def test_good_bundle_is_kept() -> None:
    bundle = refresh(None, HOST, NOW)
    assert refresh(bundle, HOST, NOW + SERVING_VALID - RENEW_BEFORE - timedelta(days=1)) is bundle


def test_serving_certificate_is_renewed_long_before_it_expires_under_the_same_ca() -> None:
    bundle = refresh(None, HOST, NOW)
    renewed = refresh(bundle, HOST, NOW + SERVING_VALID - RENEW_BEFORE)
    assert renewed.ca == bundle.ca
    assert renewed.serving != bundle.serving


def test_other_host_name_needs_another_serving_certificate_only() -> None:
    bundle = refresh(None, HOST, NOW)
    moved = refresh(bundle, "10.0.0.1", NOW)
    assert moved.ca == bundle.ca
    assert moved.serving != bundle.serving


@pytest.mark.parametrize("damaged", ["", "no certificate"])
def test_damaged_serving_certificate_is_replaced_and_the_ca_kept(damaged: str) -> None:
    bundle = refresh(None, HOST, NOW)
    repaired = refresh(replace(bundle, serving=KeyPair(damaged, damaged)), HOST, NOW)
    assert repaired.ca == bundle.ca
    assert repaired.serving.certificate_pem.startswith("-----BEGIN CERTIFICATE-----")


def test_serving_certificate_of_another_ca_is_replaced() -> None:
    bundle = refresh(None, HOST, NOW)
    mixed = Bundle(make_ca(NOW), bundle.serving)
    assert refresh(mixed, HOST, NOW).serving != bundle.serving


def test_ca_that_would_not_outlive_its_certificate_is_replaced() -> None:
    bundle = refresh(None, HOST, NOW)
    later = NOW + CA_VALID - SERVING_VALID + timedelta(days=1)
    assert refresh(bundle, HOST, later).ca != bundle.ca


@pytest.mark.parametrize("host", [HOST, "127.0.0.1"])
def test_clients_that_trust_the_ca_accept_the_server(host: str, tmp_path: Path) -> None:
    bundle = refresh(None, host, NOW - timedelta(days=1))
    path = tmp_path / "tls.pem"
    path.write_text(bundle.serving.key_pem + bundle.serving.certificate_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.create_default_context(cadata=bundle.ca.certificate_pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() is not None


class Vault(Kube):
    """An API server with one Secret, or none."""

    def __init__(self) -> None:
        session = cast(aiohttp.ClientSession, object())
        super().__init__(Credentials(server="http://x"), timeout_seconds=1, session=session)
        self.secret: dict[str, Any] | None = None

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if body is not None:
            self.secret = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return (404, "{}", {}) if self.secret is None else (200, json.dumps(self.secret), {})


@pytest.mark.parametrize("harm", ["deleted", "emptied", "overwritten"])
async def test_pods_that_run_go_on_trusting_the_server_when_its_secret_is_lost(harm: str) -> None:
    vault = Vault()
    certificates = Certificates(vault, "system", "tls", HOST, clock=lambda: NOW)
    await certificates.ensure()
    trusted, written = certificates.ca_pem(), vault.secret
    assert written is not None
    data = {} if harm == "emptied" else dict.fromkeys(written["data"], "bm9uc2Vuc2U=")
    vault.secret = None if harm == "deleted" else {**written, "data": data}
    await certificates.ensure()
    assert certificates.ca_pem() == trusted
    assert vault.secret is not None
    assert vault.secret["data"] == written["data"]
