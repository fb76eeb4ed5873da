"""An S3 server for checkpoints: SeaweedFS beside the control plane, with credentials of its own.

It was chosen because its conditional writes hold under races and acknowledged
writes survive a kill -9. `stop` is that kill, `start` finds the same data and
addresses again. The server has no TLS, as inside a private network.
"""

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from localcluster.api import ApiClient, ApiError
from localcluster.commands import LocalClusterError, log_tail
from localcluster.control_plane import external_service
from localcluster.fabric import GATEWAY
from localcluster.paths import ClusterPaths
from localcluster.s3_signing import signed_request
from localcluster.supervision import Supervision

PORT = 8333
REGION = "us-east-1"
_PROCESS = "s3"
_PROBE_BUCKET = "local-cluster-probe"
_READY_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class S3Access:
    """All that a client needs."""

    endpoint: str
    """From the host."""
    cluster_endpoint: str
    """From pods and nodes."""
    access_key: str
    secret_key: str
    region: str = REGION

    def environment(self, *, inside: bool = False) -> dict[str, str]:
        """The variables that every AWS SDK reads."""
        return {
            "AWS_ENDPOINT_URL_S3": self.cluster_endpoint if inside else self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }


class S3Server:
    """The cluster's S3 server: faults, access, and the objects that pods use to reach it."""

    def __init__(self, paths: ClusterPaths, supervision: Supervision, access: S3Access, weed: Path) -> None:
        self._paths = paths
        self._supervision = supervision
        self._weed = weed
        self.access = access

    def start(self) -> None:
        """Start it and wait until it answers; nothing happens if it runs."""
        if _PROCESS in self._supervision.children():
            return
        config = write_config(self._paths, self.access)
        data = self._paths.data / "s3"
        data.mkdir(parents=True, exist_ok=True)
        log = self._paths.logs / "s3.log"
        self._supervision.process(_PROCESS, server_command(self._weed, data, config), log)
        deadline = time.monotonic() + _READY_TIMEOUT_SECONDS
        while not self._serves_data():
            if time.monotonic() > deadline or _PROCESS not in self._supervision.children():
                raise LocalClusterError(f"the S3 server did not start\n  log: {log}\n{log_tail(log)}")
            time.sleep(0.1)

    def stop(self) -> None:
        """kill -9, as a power failure would; the data stays."""
        self._supervision.kill(_PROCESS)

    def is_running(self) -> bool:
        return _PROCESS in self._supervision.children()

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket; one that is there already is fine."""
        try:
            with urllib.request.urlopen(signed_request("PUT", f"/{name}", self.access), timeout=30):
                pass
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise LocalClusterError(f"bucket {name}: {error.code} {error.read()[:200]!r}") from None

    def publish(self, api: ApiClient, namespace: str, *, name: str = "s3") -> None:
        """Give a namespace a Service and a Secret (the SDK's variables), both named `name`."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": self.access.environment(inside=True),
        }
        service, endpoints = external_service(namespace, name, [("s3", PORT, "TCP")])
        core, discovery = f"/api/v1/namespaces/{namespace}", "/apis/discovery.k8s.io/v1/namespaces"
        for path, body in (
            (f"{core}/secrets", secret),
            (f"{core}/services", service),
            (f"{discovery}/{namespace}/endpointslices", endpoints),
        ):
            try:
                api.create(path, body)
            except ApiError as error:
                if error.status != 409:
                    raise

    def _serves_data(self) -> bool:
        """The S3 port answers before the store behind it can: ask for a real write and read."""
        try:
            self.create_bucket(_PROBE_BUCKET)
            path = f"/{_PROBE_BUCKET}/probe"
            for request in (
                signed_request("PUT", path, self.access, b"probe"),
                signed_request("GET", path, self.access),
            ):
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()
        except (OSError, http.client.HTTPException, LocalClusterError):
            return False
        return True


def make_access(access_key: str, secret_key: str, port: int) -> S3Access:
    return S3Access(
        endpoint=f"http://127.0.0.1:{port}",
        cluster_endpoint=f"http://{GATEWAY}:{PORT}",
        access_key=access_key,
        secret_key=secret_key,
    )


def new_credentials() -> tuple[str, str]:
    return f"LOCAL{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)


def write_config(paths: ClusterPaths, access: S3Access) -> Path:
    """SeaweedFS's list of identities: one, that may do everything."""
    path = paths.run / "s3.json"
    identity = {
        "name": "local",
        "credentials": [{"accessKey": access.access_key, "secretKey": access.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": [identity]}))
    return path


def server_command(weed: Path, data: Path, config: Path) -> list[str]:
    """All parts in one process; only the S3 port is reachable from the cluster."""
    return [
        str(weed), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.port=19333", "-volume.port=19340", "-filer", "-filer.port=18888",
        "-s3", f"-s3.port={PORT}", "-s3.ip.bind=0.0.0.0", f"-s3.config={config}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        # Each bucket takes seven volumes, which grow only as they are filled.
        "-master.volumeSizeLimitMB=64", "-volume.max=400",
        # The only voter needs no patience: after a kill it would wait for its own election.
        "-master.electionTimeout=1s",
    ]  # fmt: skip
