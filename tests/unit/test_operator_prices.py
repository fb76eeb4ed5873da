"""Prices as people write them, on a node and in the chart's table."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from spot_operator import metrics
from spot_operator.model import Cost, InterruptionRate, JobStatus, ZoneInterruptions
from spot_operator.names import CapacityType
from spot_operator.node_cache import NodeCache
from spot_operator.prices import InvalidPrices, NodePrices, parse_price, read_price_table
from spot_operator.readings import Reading
from spot_operator.settings import InvalidSetting, read_settings
from spot_operator.tally import tally
from spot_operator.views import MAX_PRICE_CHARS, node_view

VARIABLE = "SPOT_OPERATOR_POLICY_PRICES"


@pytest.mark.parametrize("text", ["0", "0.97", "007.5", "999999999.999999999"])
def test_a_price_is_a_decimal_number_as_text(text: str) -> None:
    assert parse_price(text) == Decimal(text)


@pytest.mark.parametrize(
    "text", ["", " 1", "1\n", "-1", "1e3", "1,5", ".5", "1.", "NaN", "\u0663", "1" * 10, 1, None]
)
def test_what_is_written_in_any_other_way_is_none(text: object) -> None:
    assert parse_price(text) is None


def test_a_table_has_one_or_both_prices_of_a_type() -> None:
    table = read_price_table('{"g5.xlarge": {"spot": "0.42", "onDemand": "1.01"}, "a": {"onDemand": "2"}}')
    assert table == {
        "g5.xlarge": NodePrices(spot=Decimal("0.42"), on_demand=Decimal("1.01")),
        "a": NodePrices(on_demand=Decimal("2")),
    }
    assert [table["a"].on(each) for each in CapacityType] == [None, Decimal("2")]
    assert [table["g5.xlarge"].on(each) for each in CapacityType] == [Decimal("0.42"), Decimal("1.01")]


@pytest.mark.parametrize(
    ("table", "path", "expected"),
    [
        ("{", "prices", "JSON"),
        ("[]", "prices", "an object of instance types"),
        ('{"a": "1"}', "prices[a]", "spot, onDemand or both"),
        ('{"a": {}}', "prices[a]", "spot, onDemand or both"),
        ('{"a": {"spot": "1", "onDemand": 2.5}}', "prices[a].onDemand", "a decimal number as text"),
        ('{"a": {"spot": "cheap"}}', "prices[a].spot", "a decimal number as text"),
        ('{"a": {"spt": "1"}}', "prices[a].spt", "spot or onDemand"),
        ('{"a b": {"spot": "1"}}', "prices[a b]", "node.kubernetes.io/instance-type"),
        ('{"": {"spot": "1"}}', "prices[]", "node.kubernetes.io/instance-type"),
    ],
)
def test_a_table_that_cannot_be_used_ends_the_start_with_the_path_of_the_field(
    table: str, path: str, expected: str
) -> None:
    with pytest.raises(InvalidPrices) as found:
        read_price_table(table)
    assert found.value.path == path
    with pytest.raises(InvalidSetting) as caught:
        read_settings({VARIABLE: table})
    assert str(caught.value).startswith(f"{VARIABLE}: {path}=")
    assert expected in str(caught.value)


def test_the_table_is_a_setting_like_others() -> None:
    assert read_settings({}).policy.prices == {}
    assert read_settings({VARIABLE: ""}).policy.prices == {}
    table = {"a": {"spot": "1"}}
    assert read_settings({VARIABLE: json.dumps(table)}).policy.prices == {"a": NodePrices(spot=Decimal(1))}


def make_node(annotation: Any = None) -> dict[str, Any]:
    annotations = {} if annotation is None else {"spottraining.io/price-per-node-hour": annotation}
    return {"metadata": {"name": "spot-1", "uid": "uid-1", "annotations": annotations | {"other": "x"}}}


def test_a_node_tells_its_price_in_an_annotation() -> None:
    assert node_view(make_node("0.97")).price_annotation == "0.97"
    assert node_view(make_node()).price_annotation == ""
    assert node_view({"metadata": {"name": "n", "uid": "u"}}).price_annotation == ""
    assert len(node_view(make_node("9" * 1000)).price_annotation) == MAX_PRICE_CHARS


def test_a_new_price_wakes_the_jobs_on_the_node_and_another_annotation_does_not() -> None:
    cache = NodeCache(lambda: 7.0)
    cache.hear(make_node("0.97"))
    cache.place(("team", "digits"), ["spot-1"])
    other = make_node("0.97")
    other["metadata"]["annotations"]["heartbeat"] = "now"
    assert cache.hear(other) == frozenset()
    assert cache.hear(make_node("0.98")) == {("team", "digits")}


def test_rubbish_on_a_node_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    cache = NodeCache(lambda: 7.0)
    for annotation in (None, "0.97", "cheap", "cheap", "dear", "0.98"):
        cache.hear(make_node(annotation))
    cache.replace_all([make_node("0.98")], Reading(0))
    said = [vars(record)["fields"]["error"] for record in caplog.records]
    assert [text.partition("=")[2].partition(" ")[0] for text in said] == ["'cheap'", "'dear'"]


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"spot_operator_{name}", labels) or 0.0


def test_money_and_time_are_counted_by_what_a_write_adds() -> None:
    old = JobStatus(
        cost=Cost(
            spot_node_seconds=10.0,
            accrued=Decimal(1),
            on_demand_only=Decimal(3),
            on_demand_price=Decimal(300),
        ),
        interruption_rate=InterruptionRate(
            zones=(ZoneInterruptions(zone="a", interruptions=1, node_seconds=10.0),)
        ),
    )
    new = JobStatus(
        cost=Cost(
            spot_node_seconds=25.0,
            on_demand_node_seconds=5.0,
            unpriced_spot_node_seconds=2.0,
            unpriced_on_demand_node_seconds=1.0,
            accrued=Decimal("1.5"),
            on_demand_only=Decimal(5),
            on_demand_price=Decimal(360),
        ),
        interruption_rate=InterruptionRate(
            zones=(
                ZoneInterruptions(zone="", node_seconds=3.0),
                ZoneInterruptions(zone="a", interruptions=3, node_seconds=22.0),
            )
        ),
    )
    names: dict[str, tuple[tuple[str, dict[str, str]], float]] = {
        "spot": (("node_seconds_total", {"capacity_type": "spot"}), 15.0),
        "on-demand": (("node_seconds_total", {"capacity_type": "on-demand"}), 5.0),
        "unpriced": (("unpriced_node_seconds_total", {}), 3.0),
        "spent": (("cost_spent_total", {}), 0.5),
        "alone": (("cost_on_demand_only_total", {}), 2.0),
        "lost": (("spot_interruptions_total", {"zone": "a"}), 2.0),
        "time": (("spot_node_seconds_total", {"zone": "a"}), 12.0),
        "elsewhere": (("spot_node_seconds_total", {"zone": ""}), 3.0),
    }
    before = {key: value(name, **labels) for key, ((name, labels), _) in names.items()}
    tally(old, new)
    tally(new, new)
    tally(new, JobStatus())  # a job's number that falls takes nothing away
    after = {key: value(name, **labels) for key, ((name, labels), _) in names.items()}
    # What other tests counted before is in these sums: a difference of floats is not exact.
    assert {key: after[key] - before[key] for key in names} == pytest.approx(
        {key: grown for key, (_, grown) in names.items()}
    )


def test_what_an_earlier_version_had_spent_is_not_counted_again() -> None:
    before = value("cost_spent_total")
    tally(JobStatus(cost=Cost(spent=Decimal(7))), JobStatus(cost=Cost(accrued=Decimal(8), spent=Decimal(8))))
    assert value("cost_spent_total") - before == pytest.approx(1.0)


def test_projections_are_summed_and_no_job_has_a_series() -> None:
    collector = metrics.CostProjected()
    collector.set(("team", "a"), Decimal("1.5"))
    collector.set(("team", "b"), Decimal("2"))
    collector.set(("team", "c"), None)
    (family,) = collector.collect()
    assert [(sample.labels, sample.value) for sample in family.samples] == [({}, 3.5)]
    collector.set(("team", "a"), None)
    collector.forget(("team", "b"))
    (family,) = collector.collect()
    assert [sample.value for sample in family.samples] == [0.0]


def test_what_on_demand_would_have_cost_grows_by_the_time_alone() -> None:
    """The price of it moves with the market, and with each node that tells another one."""
    at_peak = JobStatus(cost=Cost(spot_node_seconds=360_000.0, on_demand_price=Decimal("3.06")))
    later = replace(at_peak, cost=replace(at_peak.cost, on_demand_price=Decimal("2.50")))
    name = "spot_operator_cost_on_demand_only_total"
    before = metrics.REGISTRY.get_sample_value(name) or 0.0
    tally(JobStatus(), at_peak)
    for _ in range(10):
        tally(at_peak, later)
        tally(later, at_peak)
    assert (metrics.REGISTRY.get_sample_value(name) or 0.0) - before == pytest.approx(306.0)
