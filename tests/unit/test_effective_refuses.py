"""What an old CRD or a lenient client lets through is refused by the operator, field and remedy."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from spot_operator.api.effective import parse_spec
from spot_operator.model import InvalidSpec, JobSpec

MANIFESTS = Path(__file__).parents[1] / "api" / "manifests"
BASE = yaml.safe_load((MANIFESTS / "base.yaml").read_text())
BAD = yaml.safe_load((MANIFESTS / "bad.yaml").read_text())
CREATED = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def parse(manifest: Mapping[str, Any]) -> JobSpec | InvalidSpec:
    return parse_spec(
        manifest["spec"], namespace="team-a", name=manifest["metadata"]["name"], created=CREATED
    )


@pytest.mark.parametrize("entry", [e for e in BAD if "operator" in e], ids=lambda e: e["case"])
def test_refused_with_field_and_remedy(entry: dict[str, Any]) -> None:
    want = InvalidSpec(field=entry["operator"]["field"], why=entry["operator"]["why"])
    assert parse(merge(BASE, entry["change"])) == want


@pytest.mark.parametrize("entry", [e for e in BAD if "operator" not in e], ids=lambda e: e["case"])
def test_unknown_fields_are_ignored_as_if_pruned(entry: dict[str, Any]) -> None:
    assert isinstance(parse(merge(BASE, entry["change"])), JobSpec)


def test_nothing_at_all_is_refused_and_not_an_error() -> None:
    spec = parse_spec({}, namespace="team-a", name="digits", created=CREATED)
    assert spec == InvalidSpec(field="spec.template", why="required, but not set")


@pytest.mark.parametrize("field", ["template", "checkpoint", "capacity", "fallback", "deadline"])
@pytest.mark.parametrize("value", ["text", 1, [], [{}], True])
def test_a_value_of_another_kind_is_refused(field: str, value: Any) -> None:
    spec = parse(BASE | {"spec": BASE["spec"] | {field: value}})
    assert isinstance(spec, InvalidSpec)
    assert spec.field == f"spec.{field}"
