"""The operator as a process of its own, through its own entry point and with its own defaults."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from operator_bench.api import Api
from operator_bench.processes import rss_bytes

ROOT = Path(__file__).parents[2]
NAMESPACE = "spot-system"
ACCOUNT = "spot-training-operator"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
_START_SECONDS = 60.0


def contained(inside: int, command: list[str]) -> list[str]:
    """In the cluster's network, and gone when the bench is gone, however that ends."""
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("nsenter", "-t", str(inside), "--net", "--"),
        *command,
    ]


class Replica:
    """One operator process at a time; `number` keeps the ports of two of them apart."""

    def __init__(self, api: Api, inside: int, kubeconfig: Path, log: Path, number: int) -> None:
        self._api, self._inside, self._kubeconfig, self._log = api, inside, kubeconfig, log
        self._metrics_port, self._status_port = 8080 + number, 8443 + number
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer'}",
            "SPOT_OPERATOR_NAMESPACE": NAMESPACE,
            "SPOT_OPERATOR_STATUS_HOST": "127.0.0.1",
            "SPOT_OPERATOR_STATUS_PORT": str(self._status_port),
            "SPOT_OPERATOR_METRICS_PORT": str(self._metrics_port),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Returns when that was, in seconds since the epoch."""
        began = time.time()
        command = [sys.executable, "-m", "spot_operator", "--kubeconfig", str(self._kubeconfig)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                contained(self._inside, command), env=self._environ, stdout=log, stderr=log
            )
        return began

    async def wait_until(self, state: str) -> None:
        """Until /readyz says it, for example `leading True, watching True`."""
        deadline = time.monotonic() + _START_SECONDS
        while state not in await self._api.text(f"http://127.0.0.1:{self._metrics_port}/readyz"):
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the operator ended; log: {self._log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the operator did not say {state!r}; log: {self._log}")
            await asyncio.sleep(0.05)

    async def lead(self) -> None:
        self.start()
        await self.wait_until("leading True, watching True")

    def end(self, number: int = signal.SIGTERM) -> float:
        """Returns when the signal was sent, in seconds since the epoch."""
        sent = time.time()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return sent

    async def metrics(self) -> Mapping[str, float]:
        """Sums over the labels, by name."""
        sums: dict[str, float] = {}
        text = await self._api.text(f"http://127.0.0.1:{self._metrics_port}/metrics")
        for line in text.splitlines():
            if line and not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    async def report(self, namespace: str, job: str, token: str, body: Mapping[str, object]) -> None:
        """A progress report, as a pod sends it."""
        path = f"/v1alpha1/namespaces/{namespace}/spottrainingjobs/{job}/status"
        await self._api.post(f"https://127.0.0.1:{self._status_port}{path}", token, body)

    def rss_bytes(self) -> int:
        return rss_bytes(self.pid)
