"""What an old CRD or a lenient client lets through is refused by the operator, field and remedy."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from manifests import BAD, BASE, merge

from spot_operator.api.effective import parse_spec
from spot_operator.model import InvalidSpec, JobSpec

CREATED = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


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


@pytest.mark.parametrize(
    "path", ["//checkpoints", "/./checkpoints", "checkpoints", "./checkpoints/x", "/a/../checkpoints"]
)
def test_however_it_is_spelt_the_checkpoint_volume_is_not_covered(path: str) -> None:
    """The API server checks the plain spelling only; its budget for rules allows no more."""
    mounts = [{"name": "v", "mountPath": path}]
    container = {"name": "trainer", "image": "i", "volumeMounts": mounts}
    spec = parse(merge(BASE, {"spec": {"template": {"spec": {"containers": [container]}}}}))
    assert isinstance(spec, InvalidSpec)
    assert spec.why == "the operator mounts the checkpoint volume at /checkpoints; mount yours elsewhere"


@pytest.mark.parametrize("path", ["/data/checkpoints", "/checkpoints-old", "/.checkpoints", "/my..data"])
def test_other_mounts_are_the_users(path: str) -> None:
    container = {"name": "trainer", "image": "i", "volumeMounts": [{"name": "v", "mountPath": path}]}
    spec = parse(merge(BASE, {"spec": {"template": {"spec": {"containers": [container]}}}}))
    assert isinstance(spec, JobSpec)
