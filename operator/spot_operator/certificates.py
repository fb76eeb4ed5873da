"""The certificate of the status server, owned by the operator itself.

One Secret in the operator's namespace holds a CA and a serving certificate, so that no
chart has to generate either and no hook has to run. Invariants: the CA stays the same for
as long as it is valid (pods carry it in an annotation and read it once), also where the Secret is
deleted or damaged while a process remembers it; replicas share the Secret, and whoever loses the
race to write it uses what the winner wrote. Another valid CA in it is therefore taken for a winner's.
"""

import base64
import ipaddress
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spot_operator.kube import SECRETS, AlreadyExists, Conflict, Kube, NotFound
from spot_operator.logs import Log

CA_VALID: Final = timedelta(days=3650)
SERVING_VALID: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=120)
"""A third of the validity: months in which a renewal that fails can be noticed and repaired."""
_SKEW: Final = timedelta(hours=1)

_log = Log(__name__)


@dataclass(frozen=True)
class KeyPair:
    certificate_pem: str
    key_pem: str


@dataclass(frozen=True)
class Bundle:
    ca: KeyPair
    serving: KeyPair


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    # Strict verifiers (OpenSSL 3 in Python 3.13) refuse a CA that does not say what its key is for.
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=ca, crl_sign=ca,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def make_ca(now: datetime) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = "spot-training-operator CA"
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, issuer, key, now, CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key))


def make_serving(ca: KeyPair, host: str, now: datetime) -> KeyPair:
    """A serving certificate for `host` (a name or an address) that `ca` signs."""
    ca_certificate = x509.load_pem_x509_certificate(ca.certificate_pem.encode())
    ca_key = serialization.load_pem_private_key(ca.key_pem.encode(), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA key is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(host, ca_certificate.subject, key, now, SERVING_VALID)
        .add_extension(x509.SubjectAlternativeName([_san(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key))


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def refresh(bundle: Bundle | None, host: str, now: datetime) -> Bundle:
    """The bundle to be used at `now`: the same one where nothing needs to change."""
    ca = bundle.ca if bundle is not None and _is_good(bundle.ca, None, now, SERVING_VALID) else make_ca(now)
    if bundle is not None and ca is bundle.ca and _is_good(bundle.serving, host, now, RENEW_BEFORE, ca):
        return bundle
    return Bundle(ca, make_serving(ca, host, now))


def _is_good(
    pair: KeyPair, host: str | None, now: datetime, margin: timedelta, issuer: KeyPair | None = None
) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate_pem.encode())
        key = serialization.load_pem_private_key(pair.key_pem.encode(), None)
        if key.public_key() != certificate.public_key():
            return False
        if host is not None:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if _san(host) not in list(names):
                return False
        if issuer is not None:
            certificate.verify_directly_issued_by(
                x509.load_pem_x509_certificate(issuer.certificate_pem.encode())
            )
    # Whatever is wrong with what stands in the Secret, the remedy is a new certificate.
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        _log.warning("certificate is not usable and is replaced", error=str(error) or type(error).__name__)
        return False
    return certificate.not_valid_after_utc - now > margin


_FIELDS: Final = ("ca.crt", "ca.key", "tls.crt", "tls.key")


def _to_secret(bundle: Bundle) -> dict[str, str]:
    pairs = (bundle.ca, bundle.serving)
    texts = [text for pair in pairs for text in (pair.certificate_pem, pair.key_pem)]
    return {
        field: base64.b64encode(text.encode()).decode() for field, text in zip(_FIELDS, texts, strict=True)
    }


def _from_secret(data: dict[str, str]) -> Bundle | None:
    try:
        texts = [base64.b64decode(data[field]).decode() for field in _FIELDS]
    except (KeyError, ValueError):
        return None
    return Bundle(KeyPair(texts[0], texts[1]), KeyPair(texts[2], texts[3]))


class Certificates:
    """Keeps the Secret and the server's TLS context good; one per process."""

    def __init__(
        self, kube: Kube, namespace: str, secret_name: str, host: str, *, clock: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._secret_name = secret_name
        self._host = host
        self._clock = clock
        self._bundle: Bundle | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def ca_pem(self) -> str:
        return self._bundle.ca.certificate_pem if self._bundle is not None else ""

    async def ensure(self) -> None:
        """Make the stored and the served certificate good; call at start and now and then."""
        bundle = await self._agree()
        if bundle != self._bundle:
            self._load(bundle.serving)
            self._bundle = bundle

    async def _agree(self) -> Bundle:
        while True:
            try:
                secret = await self._kube.get(SECRETS, self._secret_name, self._namespace)
            except NotFound:
                secret = None
            stored = _from_secret((secret or {}).get("data") or {})
            # What was deleted, or overwritten with what is no CA, is put back: pods that run trust the one
            # that they began with.
            is_usable = stored is not None and _is_good(stored.ca, None, self._clock(), SERVING_VALID)
            wanted = refresh(stored if is_usable else self._bundle, self._host, self._clock())
            if wanted == stored:
                return wanted
            try:
                await self._write(secret, wanted)
            except (AlreadyExists, Conflict, NotFound):
                continue  # another replica was faster; use what it wrote
            _log.info("certificates written", secret=self._secret_name, host=self._host)
            return wanted

    async def _write(self, secret: dict[str, Any] | None, bundle: Bundle) -> None:
        data = _to_secret(bundle)
        if secret is not None:
            await self._kube.replace(SECRETS, {**secret, "data": data})
            return
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": self._secret_name, "namespace": self._namespace},
            "data": data,
        }
        await self._kube.create(SECRETS, body, self._namespace)

    def _load(self, serving: KeyPair) -> None:
        # The ssl module reads certificates from files only; the chart mounts memory at /tmp.
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "tls.pem")
            path.touch(mode=0o600)
            path.write_text(serving.key_pem + serving.certificate_pem)
            self.context.load_cert_chain(path)
