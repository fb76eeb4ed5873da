"""A status as JSON: what is written is read back, and what cannot be read is named by its path."""

import dataclasses
import typing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_operator.model import Condition, Cost, JobStatus, Overheads, PodRecord, Progress
from spot_operator.names import ConditionType
from spot_operator.policy import Launches
from spot_operator.testing import make_gang, make_status
from spot_operator.wire import StatusUnreadable, status_from_json, status_to_json
from spot_trainer.contract import MAX_INTEGER

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text("abc-", min_size=1, max_size=5),
    int: st.integers(0, 10**9),
    float: st.integers(0, 10**9).map(lambda number: number / 8),  # no more than three digits of a fraction
    bool: st.booleans(),
    Decimal: st.decimals(0, 10**6, places=4),
    datetime: st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of status."""
    arguments = [each for each in typing.get_args(hint) if each is not type(None)]
    if typing.get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), min_size=int(arguments[0] is PodRecord), max_size=2).map(tuple)
    if arguments:
        return st.none() | values(arguments[0])
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{each.name: values(hints[each.name]) for each in dataclasses.fields(hint)})
    return st.sampled_from(hint) if issubclass(hint, Enum) else SCALARS[hint]


@given(values(JobStatus))
def test_what_was_written_is_read_back(status: JobStatus) -> None:
    assert status_from_json(status_to_json(status)) == status


@pytest.mark.parametrize("value", [True, False, None])
def test_a_condition_is_written_in_kubernetes_words_and_read_back(value: bool | None) -> None:
    since = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
    condition = Condition(
        type=ConditionType.DEADLINE_AT_RISK,
        status=value,
        reason="Late",
        message="by far",
        last_transition_time=since,
        observed_generation=1,
    )
    status = JobStatus(conditions=(condition,))
    assert status_from_json(status_to_json(status)).conditions == (condition,)
    (written,) = status_to_json(status)["conditions"]
    assert written["status"] == {True: "True", False: "False", None: "Unknown"}[value]
    assert written["lastTransitionTime"] == "2026-11-27T12:00:00Z"


def _with(path: str, value: Any) -> dict[str, Any]:
    """A good status, but for the value at `path`."""
    status = status_to_json(make_status(gang=make_gang()))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = status
    for step in way:
        place = place[step]
    place[last] = value
    return status


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("incarnation", "two", "status.incarnation: expected int, found str"),
        ("incarnation", True, "status.incarnation: expected int, found bool"),
        ("gang", [], "status.gang: expected an object, found list"),
        ("gang.pods", {}, "status.gang.pods: expected a list, found dict"),
        ("gang.pods.0", "x", "status.gang.pods[0]: expected an object, found str"),
        ("gang.pods.0.name", 3, "status.gang.pods[0].name: expected str, found int"),
        ("gang.createdTime", "2026-11-27T12:00:00", "status.gang.createdTime: time without an offset"),
        ("gang.createdTime", 3, "status.gang.createdTime: fromisoformat: argument must be str"),
        ("gang.createdTime", "0001-01-01T00:00:00+14:00", "status.gang.createdTime: date value out of range"),
        ("gang.pods", [], "status.gang: an incarnation has at least one pod"),
        (
            "interruptionRate",
            {"zones": [{"zone": "a", "interruptions": -1}]},
            "status.interruptionRate.zones[0]: counts and times are not negative",
        ),
        ("cost", {"spotNodeSeconds": 1e300}, "status.cost.spotNodeSeconds: out of range: 1e+300"),
        ("cost", {"spent": "much"}, "status.cost.spent: "),
        ("gang.capacityType", "Borrowed", "status.gang.capacityType: 'Borrowed' is not a valid CapacityType"),
        (
            "cost",
            {"spotNodeSeconds": "many"},
            "status.cost.spotNodeSeconds: could not convert string to float",
        ),
    ],
)
def test_what_cannot_be_read_is_named_by_its_path(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(StatusUnreadable) as raised:
        status_from_json(_with(path, value))
    assert str(raised.value).startswith(complaint)


def test_whatever_a_report_can_bring_about_can_be_read() -> None:
    """The greatest numbers that a report may have, and the least rate that is written."""
    launches = Launches(total_seconds=MAX_INTEGER / 0.001)
    progress = Progress(steps_per_second=float(MAX_INTEGER))
    status = JobStatus(progress=progress, overheads=Overheads(spot=launches))
    assert status_from_json(status_to_json(status)) == status


def test_of_a_list_the_item_is_named() -> None:
    status = status_to_json(make_status(gang=make_gang()))
    status["gang"]["pods"].append({"name": 3})
    with pytest.raises(StatusUnreadable, match=r"^status\.gang\.pods\[1\]\.name: expected str"):
        status_from_json(status)


def test_numbers_are_written_for_people() -> None:
    cost = Cost(spot_node_seconds=1.23456, spent=Decimal("1E+5"))
    written = status_to_json(JobStatus(cost=cost))["cost"]
    assert (written["spotNodeSeconds"], written["spent"]) == (1.235, "100000")


def test_a_required_field_that_is_missing_is_named() -> None:
    status = _with("gang.pods.0.name", "x")
    del status["gang"]["createdTime"]
    with pytest.raises(StatusUnreadable, match=r"^status\.gang\.createdTime: missing$"):
        status_from_json(status)


def test_what_others_keep_in_status_in_any_shape_is_not_ours_to_refuse() -> None:
    status = make_status(gang=make_gang())
    odd = status_to_json(status) | {"phase": ["Running"], "later": {"version": 2}}
    odd["conditions"] = [*odd.get("conditions", ()), {"type": ["Ready"]}, {"type": "example.com/Gate"}]
    assert status_from_json(odd) == replace(status, phase=JobStatus().phase)


def test_an_unset_value_takes_no_room() -> None:
    written = status_to_json(make_status(gang=make_gang()))
    assert not [key for key, value in written.items() if value in (None, "", [], {})]
    (record,) = written["gang"]["pods"]
    assert make_gang().pods[0].hint is None
    assert "hint" not in record
