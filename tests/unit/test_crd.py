"""The committed CRD is what the types generate, structural, small, and without defaults."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spot_operator import model, wire
from spot_operator.api import crd
from spot_operator.api.rules import RULES

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / crd.CRD_FILE
CHART_TEMPLATE = ROOT / crd.CHART_FILE
ROOT_SCHEMA = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key])


def test_committed_crd_is_what_the_types_generate() -> None:
    assert COMMITTED.read_text() == crd.crd_yaml(), "run `make generate`"


def test_charts_crd_is_the_committed_one() -> None:
    assert CHART_TEMPLATE.read_text() == crd.chart_template(), "run `make generate`"


def test_fits_into_the_last_applied_annotation_even_as_a_file() -> None:
    assert COMMITTED.stat().st_size < 256 * 1024


def test_every_part_is_structural_and_without_defaults() -> None:
    for schema in nodes(ROOT_SCHEMA):
        assert "default" not in schema
        assert "$ref" not in schema
        assert "type" in schema or "x-kubernetes-int-or-string" in schema
        assert "x-kubernetes-preserve-unknown-fields" not in schema


def test_status_requires_nothing_but_list_keys_and_has_no_enum() -> None:
    for schema in nodes(ROOT_SCHEMA["properties"]["status"]):
        assert schema.get("required", ["type"]) == ["type"]
        assert "enum" not in schema


def test_every_rule_names_a_field_that_exists() -> None:
    with_rules = [s for s in nodes(ROOT_SCHEMA["properties"]["spec"]) if "x-kubernetes-validations" in s]
    assert sum(len(s["x-kubernetes-validations"]) for s in with_rules) == sum(map(len, RULES.values()))
    for schema in with_rules:
        for rule in schema["x-kubernetes-validations"]:
            field = schema
            for part in rule["fieldPath"].strip(".").split(".") if "fieldPath" in rule else ():
                field = field["properties"][part]


def test_every_field_of_spec_is_described() -> None:
    spec = ROOT_SCHEMA["properties"]["spec"]
    for name, schema in spec["properties"].items():
        assert schema["description"], name


def test_status_has_the_fields_that_the_operator_writes() -> None:
    want = {wire.camel(f.name) for f in dataclasses.fields(model.JobStatus)}
    assert set(ROOT_SCHEMA["properties"]["status"]["properties"]) == want
