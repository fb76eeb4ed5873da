"""Certificates and kubeconfigs: one authority per cluster, one identity per component.

Made by the openssl program, which is there on every Debian, rather than by a
Python package, so that the tool runs before anything is installed.
"""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import run
from localcluster.fabric import API_SERVICE, GATEWAY

_DAYS = "3650"
_API_NAMES = (
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
    f"IP:127.0.0.1,IP:{GATEWAY},IP:{API_SERVICE}"
)


@dataclass(frozen=True)
class Identity:
    """Who a certificate speaks for; `alternative_names` makes it usable by a server."""

    file: str
    subject: str
    alternative_names: str = ""


CONTROL_PLANE_IDENTITIES = (
    Identity("apiserver", "/CN=kube-apiserver", _API_NAMES),
    Identity("kubelet-client", "/CN=kube-apiserver-kubelet-client"),
    Identity("admin", "/O=system:masters/CN=admin"),
    Identity("controller-manager", "/CN=system:kube-controller-manager"),
    Identity("scheduler", "/CN=system:kube-scheduler"),
    Identity("proxy", "/CN=system:kube-proxy"),
    Identity("coredns", "/CN=system:coredns"),
)


def node_identity(node: str) -> Identity:
    return Identity(f"node-{node}", f"/O=system:nodes/CN=system:node:{node}")


def certificate_command(directory: Path, identity: Identity) -> list[str]:
    """The openssl call that makes a key and a certificate signed by the authority."""
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    if identity.alternative_names:
        extensions.append(f"subjectAltName={identity.alternative_names}")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", _DAYS, "-subj", identity.subject]
    command += ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
    command += ["-keyout", str(directory / f"{identity.file}.key")]
    command += ["-out", str(directory / f"{identity.file}.crt")]
    for extension in extensions:
        command += ["-addext", extension]
    return command


def make_authority(directory: Path) -> None:
    """The cluster's authority, the key pair of service account tokens, all component identities."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = directory / "ca.key", directory / "ca.crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", _DAYS, "-subj", "/CN=local-cluster", "-keyout", key, "-out", certificate,
        "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")  # fmt: skip
    service_accounts = directory / "service-accounts.key"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", service_accounts)
    run("openssl", "ec", "-in", service_accounts, "-pubout",
        "-out", directory / "service-accounts.pub")  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: issue(directory, each), CONTROL_PLANE_IDENTITIES))


def issue(directory: Path, identity: Identity) -> None:
    """Make the identity's key, certificate, and a kubeconfig for use inside the cluster."""
    run(*certificate_command(directory, identity))
    write_kubeconfig(
        directory / f"{identity.file}.kubeconfig", directory, identity.file, f"https://{GATEWAY}:443"
    )


def write_kubeconfig(path: Path, directory: Path, identity: str, server: str) -> None:
    """A kubeconfig with everything embedded, readable by its owner only (JSON is YAML)."""

    def embedded(name: str) -> str:
        return base64.b64encode((directory / name).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embedded("ca.crt")}
    user = {
        "client-certificate-data": embedded(f"{identity}.crt"),
        "client-key-data": embedded(f"{identity}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": identity, "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": identity}}],
        "current-context": "local",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
