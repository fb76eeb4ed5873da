"""The CRD holds every field of status that the operator can write: nothing is pruned on the way."""

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from manifests import BASE

from spot_operator.model import Cost, InterruptionRate, JobStatus, ZoneInterruptions
from spot_operator.wire import status_from_json, status_to_json

pytestmark = pytest.mark.api

SOME = {
    str: "text",
    int: 3,
    float: 2.5,
    bool: True,
    datetime: datetime(2026, 11, 1, 12, 0, 30, 500_000, tzinfo=UTC),
    Decimal: Decimal("1.25"),
}


def full(hint: Any) -> Any:
    """A value of this type with every field set."""
    arguments = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is UnionType:
        return full(arguments[0])
    if get_origin(hint) is tuple:
        return (full(arguments[0]),)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{f.name: full(hints[f.name]) for f in fields(hint)})
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    return SOME[hint]


def test_a_full_status_comes_back_as_it_was_written(api_server: Any, namespace: str) -> None:
    status: JobStatus = full(JobStatus)
    api_server.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(BASE))
    patch = json.dumps({"status": status_to_json(status)})
    api_server.kubectl(
        "patch", "stj", "digits", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )
    stored = json.loads(api_server.kubectl("get", "stj", "digits", "-n", namespace, "-o", "json"))
    assert stored["status"] == status_to_json(status)
    assert status_from_json(stored["status"]) == status


def test_the_printed_line(api_server: Any, namespace: str) -> None:
    api_server.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(BASE))
    status = {
        "phase": "Running",
        "capacity": {"type": "spot"},
        "progress": {"percentage": 42, "step": 420, "durableStep": 400},
        "restarts": {"interruptions": 2, "failures": 1},
        "incarnation": 4,
        "deadline": "2036-12-01T06:00:00Z",
        "message": "step 420 of 1000 on spot",
        "cost": {"spent": "4.1200", "projected": "9.8000"},
    }
    patch = json.dumps({"status": status})
    api_server.kubectl(
        "patch", "stj", "digits", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )
    header, line = api_server.kubectl("get", "stj", "-n", namespace).splitlines()
    assert header.split() == [
        "NAME", "PHASE", "CAPACITY", "PROGRESS", "STEP", "DURABLE", "INTERRUPTIONS", "DEADLINE", "AGE",
    ]  # fmt: skip
    assert line.split()[:-1] == [
        "digits", "Running", "spot", "42", "420", "400", "2", "2036-12-01T06:00:00Z",
    ]  # fmt: skip
    header, line = api_server.kubectl("get", "stj", "-n", namespace, "-o", "wide").splitlines()
    assert header.split()[-5:] == ["DEADLINE", "SPENT", "PROJECTED", "AGE", "MESSAGE"]
    assert "step 420 of 1000 on spot" in line
    assert line.split()[10:12] == ["4.1200", "9.8000"]


def test_money_and_rates_come_back_to_the_last_digit(api_server: Any, namespace: str) -> None:
    """What is added up again and again would drift if a digit were lost on the way."""
    cost = Cost(spot_node_seconds=0.001, accrued=Decimal("999999999.000000001"), spent=Decimal("0.0000"))
    zones = (ZoneInterruptions(zone=""), ZoneInterruptions(zone="a", interruptions=1, node_seconds=0.5))
    status = JobStatus(cost=cost, interruption_rate=InterruptionRate(zones=zones))
    api_server.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(BASE))
    patch = json.dumps({"status": status_to_json(status)})
    api_server.kubectl(
        "patch", "stj", "digits", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )
    stored = json.loads(api_server.kubectl("get", "stj", "digits", "-n", namespace, "-o", "json"))
    assert status_from_json(stored["status"]) == status


def test_a_condition_needs_its_type_only(api_server: Any, namespace: str) -> None:
    api_server.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(BASE))
    foreign = {"conditions": [{"type": "SomethingNew"}], "phase": "AlsoNew"}
    patch = json.dumps({"status": foreign})
    api_server.kubectl(
        "patch", "stj", "digits", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )
    stored = json.loads(api_server.kubectl("get", "stj", "digits", "-n", namespace, "-o", "json"))
    assert stored["status"] == foreign
