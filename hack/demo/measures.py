"""Numbers about the operator that only the machine and its own metrics can tell."""

import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from demo.jobs import DemoError
from demo.lab import OPERATOR_NAMESPACE, RELEASE, Lab

METRICS_PORT = 8080
READ_VERBS = frozenset({"get", "list", "watch"})
NOT_COUNTED = frozenset({"leases", "tokenreviews", "subjectaccessreviews"})
"""Lease renewals keep the place; reviews are questions that happen to be asked with POST."""

_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    name: str
    labels: dict[str, str]
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """Prometheus' text format, as far as it is needed here."""
    found = (_SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [
        Sample(match["name"], dict(_LABEL.findall(match["labels"] or "")), float(match["value"]))
        for match in found
        if match is not None
    ]


def num_writes(samples: list[Sample]) -> float:
    """Requests of the operator, by its own count, that change something."""
    return sum(
        sample.value
        for sample in samples
        if sample.name == "spot_operator_api_requests_total"
        and sample.labels.get("verb", "").lower() not in READ_VERBS
        and sample.labels.get("resource", "") not in NOT_COUNTED
    )


def num_job_writes(samples: list[Sample]) -> float:
    """Requests that change jobs, from anybody, by the API server's count."""
    return sum(
        sample.value
        for sample in samples
        if sample.name == "apiserver_request_total"
        and sample.labels.get("group") == "spottraining.io"
        and sample.labels.get("verb") not in ("GET", "LIST", "WATCH")
    )


def operator_metrics(lab: Lab) -> list[Sample]:
    port = lab.cluster.forward_service(OPERATOR_NAMESPACE, f"{RELEASE}-metrics", METRICS_PORT)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parse_metrics(answer.read().decode())


def api_server_metrics(lab: Lab) -> list[Sample]:
    return parse_metrics(str(lab.cluster.api.get("/metrics")))


def operator_memory_bytes(lab: Lab) -> int:
    """Resident memory of the operator's process, as the kernel of its node counts it."""
    pid = lab.container_pids(lab.operator_pod())[0]
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no VmRSS")


@dataclass(frozen=True)
class Idle:
    """The operator while nothing changes."""

    seconds: float
    memory_bytes: int
    writes: float
    """By its own count."""
    job_writes: float
    """To jobs, by the API server's count."""


def measure_idle(lab: Lab, seconds: float) -> Idle:
    """Look at the operator at the beginning and the end of a time in which nothing happens."""
    own, server = num_writes(operator_metrics(lab)), num_job_writes(api_server_metrics(lab))
    if not own or not server:
        # After all that the operator has done; otherwise zero would be what the renamed counter says.
        raise DemoError("the request counters of the operator or of the API server count nothing")
    time.sleep(seconds)  # the one place where time itself is what is waited for
    return Idle(
        seconds=seconds,
        memory_bytes=operator_memory_bytes(lab),
        writes=num_writes(operator_metrics(lab)) - own,
        job_writes=num_job_writes(api_server_metrics(lab)) - server,
    )
