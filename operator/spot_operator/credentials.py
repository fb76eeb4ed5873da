"""How the operator proves to the API server who it is: in a pod, or by a kubeconfig.

Kept apart from `kube`, because kopf's own watches need the same answer. Invariant: a token
is read from its file again and again, since the kubelet replaces it every hour.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kopf
import yaml

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoCredentials(RuntimeError):
    """Neither a pod nor a usable kubeconfig; the message says what was tried."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    server: str
    ca_pem: str | None = None
    token: str | None = None
    token_file: Path | None = None
    certificate_pem: str | None = None
    key_pem: str | None = None
    insecure: bool = False

    def bearer_token(self) -> str | None:
        """The token as it is now; reads its file."""
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca_pem)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_pem and self.key_pem:
            # The ssl module loads a client certificate only from files.
            with tempfile.TemporaryDirectory() as folder:
                certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
                certificate.write_text(self.certificate_pem)
                key.touch(mode=0o600)
                key.write_text(self.key_pem)
                context.load_cert_chain(certificate, key)
        return context

    def for_kopf(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=self.server,
            ca_data=self.ca_pem,
            insecure=self.insecure,
            token=self.bearer_token(),
            certificate_data=self.certificate_pem,
            private_key_data=self.key_pem,
        )


def find_credentials(environ: Mapping[str, str], kubeconfig: str | None) -> Credentials:
    """The kubeconfig if one is named, else those of the pod.

    Raises:
        NoCredentials: neither is usable.
    """
    if kubeconfig:
        return _from_kubeconfig(Path(kubeconfig))
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (_ACCOUNT / "token").exists():
        raise NoCredentials("not in a pod (no service account is mounted) and no --kubeconfig given")
    return Credentials(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca_pem=(_ACCOUNT / "ca.crt").read_text(),
        token_file=_ACCOUNT / "token",
    )


def _from_kubeconfig(path: Path) -> Credentials:
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        if "exec" in user or "auth-provider" in user:
            raise ValueError("exec plugins are not supported: use a token or a client certificate")
        return Credentials(
            server=str(cluster["server"]).rstrip("/"),
            ca_pem=_pem(cluster, "certificate-authority", path),
            token=user.get("token"),
            token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
            certificate_pem=_pem(user, "client-certificate", path),
            key_pem=_pem(user, "client-key", path),
            insecure=bool(cluster.get("insecure-skip-tls-verify", False)),
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise NoCredentials(f"{os.fspath(path)} is no usable kubeconfig: {error!r}") from error


def _named(config: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found = [entry for entry in config[kind] if entry["name"] == name]
    if not found:
        raise KeyError(f"{kind} has no entry {name!r}")
    result: Mapping[str, Any] = found[0]
    return result


def _pem(source: Mapping[str, Any], key: str, path: Path) -> str | None:
    if f"{key}-data" in source:
        return base64.b64decode(source[f"{key}-data"]).decode("ascii")
    return (path.parent / source[key]).read_text() if key in source else None
