"""The figures of `make bench-operator` are right in every run: percentiles, shares, times from the log."""

import json
from pathlib import Path
from typing import Any

import pytest

from operator_bench.audit import AuditLog, creations, parse, waits
from operator_bench.figures import percentile, share
from operator_bench.lab import is_noted


def line(**changes: Any) -> str:
    event = {
        "verb": "create",
        "user": {"username": "system:admin"},
        "objectRef": {"resource": "pods", "namespace": "ours"},
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.250000Z",
        "stageTimestamp": "2026-01-01T00:00:00.750000Z",
    }
    return json.dumps(event | changes)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 50) == 50.0
    assert percentile([3.0], 99) == 3.0


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 99)


def test_a_share_is_of_the_time_of_all() -> None:
    assert share({"operator": 1.0, "kube-apiserver": 2.0, "bench": 1.0}, "operator") == 25.0


def test_a_pod_that_was_created_is_known_by_its_owner() -> None:
    owners = [{"kind": "Job", "name": "job-1", "controller": True}]
    request = parse(line(requestObject={"metadata": {"generateName": "job-1-", "ownerReferences": owners}}))
    assert [pod.owner for pod in creations([request], "ours")] == ["job-1"]
    assert request.answered - request.received == 0.5


def test_what_was_refused_is_no_creation() -> None:
    assert creations([parse(line(responseStatus={"code": 409}))], "ours") == []


def test_a_wait_ends_with_the_first_end_after_its_start() -> None:
    assert waits({"a": 10.0, "b": 10.0}, {"a": [9.0, 12.0, 11.0], "b": [9.0]}) == {"a": 1.0}


def test_the_log_gives_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    whole, half = line() + "\n", line(verb="delete")
    path.write_text(whole + half[:20])
    log = AuditLog(path)
    assert [request.verb for request in log.read()] == ["create"]
    path.write_text(whole + half + "\n")
    assert [request.verb for request in log.read()] == ["delete"]
    assert log.read() == []


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({}, False),
        ({"phase": "Starting", "gang": {"pods": [{"workingTime": "2026-01-01T00:00:00Z"}]}}, False),
        ({"phase": "Running", "gang": {"pods": [{"workingTime": "2026-01-01T00:00:00Z"}]}}, True),
        ({"phase": "Running", "gang": {"pods": [{}]}}, False),
        # Its next pod reports too, but nobody pretends that here: there is nothing more to note.
        ({"phase": "Running", "claims": True, "gang": {"pods": [{}]}}, True),
    ],
)
def test_a_job_is_noted_when_no_write_about_its_launch_is_to_come(
    status: dict[str, Any], wanted: bool
) -> None:
    assert is_noted({"status": status}) is wanted
