"""A real S3 server on loopback for tests: SeaweedFS, one process, its own directory."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "test-key", "test-secret"
START_SECONDS = 60.0
PARTS = ("master", "volume", "filer", "s3")
SOCKET = "/tmp/seaweedfs-{}-{}.sock"
"""Made beside each port, at a place that can be chosen for some only; left behind after a kill."""


class Weed:
    """Starts, is killed (SIGTERM takes it longer than a test has) and starts again on the same data."""

    def __init__(self, binary: str, folder: Path, *, max_volumes: int = 20) -> None:
        """Holds up to `max_volumes` times 64 MB; what is deleted counts until it is compacted."""
        self._binary, self._folder, self._max_volumes = binary, folder, max_volumes
        self._ports = _free_ports(len(PARTS))
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[str] = []
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports[3]}"

    @property
    def environ(self) -> dict[str, str]:
        """What a client of this server needs."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def start(self) -> None:
        master, volume, filer, s3 = self._ports
        grpc = dict(zip(PARTS, _free_ports(len(PARTS)), strict=True))
        self._sockets = [SOCKET.format(f"{part}-grpc", port) for part, port in grpc.items()]
        self._sockets += [SOCKET.format(part, port) for part, port in zip(PARTS, self._ports, strict=True)]
        command = [
            self._binary, "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}",
            # Its Iceberg catalog has a fixed port, which two servers on one machine would fight for.
            "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0", f"-s3.config={self._folder / 's3.json'}",
            *(f"-{part}.port.grpc={port}" for part, port in grpc.items()),
            "-master.volumeSizeLimitMB=64", f"-volume.max={self._max_volumes}",
            "-s3.port.lance=0", "-master.telemetry=false",
        ]  # fmt: skip
        with open(self._folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            for path in self._sockets:
                Path(path).unlink(missing_ok=True)

    def wait_until_ready(self, bucket: str) -> None:
        """Until the bucket exists and takes an object."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client = self.client()
                client.create_bucket(Bucket=bucket)
            except (BotoCoreError, ClientError):
                pass
            try:
                client.put_object(Bucket=bucket, Key="ready", Body=b"")
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline:
                    log = (self._folder / "weed.log").read_text()[-2000:]
                    raise RuntimeError(f"the S3 server did not start: {error}\n{log}") from error
                time.sleep(0.2)
            else:
                return

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                parameter_validation=False, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
            ),
        )


def find_weed() -> str | None:
    """The server's binary: beside the interpreter that runs the tests, or on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
