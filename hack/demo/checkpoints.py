"""Looks at checkpoints with the trainer library, in a pod of the very image that wrote them."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from demo.jobs import DemoError
from demo.lab import Lab
from demo.manifests import make_tool_pod
from localcluster.api import ApiError

TOOL_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    code: int
    text: str


def ask(
    lab: Lab,
    namespace: str,
    *arguments: str,
    volume: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run `python -m spot_trainer ARGUMENTS` in a pod; returns its exit code and output."""
    name = f"tool-{arguments[0]}-{time.monotonic_ns() % 10**9}"
    path = f"/api/v1/namespaces/{namespace}/pods"
    lab.cluster.api.create(path, make_tool_pod(name, arguments, volume=volume, environment=environment))
    try:
        deadline = time.monotonic() + TOOL_SECONDS
        while True:
            status = lab.cluster.api.get(f"{path}/{name}")["status"]
            if status.get("phase") in ("Succeeded", "Failed"):
                break
            if time.monotonic() > deadline:
                raise DemoError(
                    f"`spot_trainer {' '.join(arguments)}` did not end within {TOOL_SECONDS:.0f} s"
                )
            time.sleep(0.2)
        text = str(lab.cluster.kubectl("logs", name, "--namespace", namespace))
        code = status["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    finally:
        with contextlib.suppress(ApiError):
            lab.cluster.api.delete(f"{path}/{name}")
    return Answer(code, text.strip())


def verdict_line(text: str) -> str:
    """The line of `compare` that says EQUAL or DIFFERENT."""
    return next((line for line in text.splitlines() if line.startswith(("EQUAL", "DIFFERENT"))), text[-300:])
