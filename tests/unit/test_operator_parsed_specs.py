"""A spec is parsed once for every generation of its job, and never mistaken for another's."""

import copy
from datetime import UTC, datetime
from typing import Any

import manifests
import pytest

from spot_operator import parsed_specs
from spot_operator.model import InvalidSpec, JobSpec
from spot_operator.parsed_specs import ParsedSpecs

CREATED = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def make_job(uid: str = "a", generation: int = 1, **spec: Any) -> dict[str, Any]:
    job = copy.deepcopy(manifests.BASE)
    job["metadata"] |= {"namespace": "team-a", "name": "digits", "uid": uid, "generation": generation}
    job["spec"] |= spec
    return job


def test_a_change_of_the_spec_is_seen_and_anything_else_is_not_parsed_again() -> None:
    specs = ParsedSpecs()
    first = specs.get(make_job(), CREATED)
    assert isinstance(first, JobSpec)
    assert specs.get(make_job() | {"status": {"phase": "Running"}}, CREATED) is first
    second = specs.get(make_job(generation=2, suspend=True), CREATED)
    assert isinstance(second, JobSpec)
    assert second.suspend


def test_a_job_made_anew_under_a_name_is_another_one() -> None:
    specs = ParsedSpecs()
    specs.get(make_job(), CREATED)
    made_again = specs.get(make_job("b", suspend=True), CREATED)
    assert isinstance(made_again, JobSpec)
    assert made_again.suspend


def test_a_bad_spec_stays_bad_until_it_is_changed() -> None:
    specs = ParsedSpecs()
    bad = make_job(checkpoint=None)
    assert isinstance(specs.get(bad, CREATED), InvalidSpec)
    assert isinstance(specs.get(bad, CREATED), InvalidSpec)
    assert isinstance(specs.get(make_job(generation=2), CREATED), JobSpec)


def test_the_one_that_was_not_asked_for_for_longest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsed_specs, "MAX_PARSED", 2)
    specs = ParsedSpecs()
    first, second = (specs.get(make_job(uid), CREATED) for uid in "ab")
    assert specs.get(make_job("a"), CREATED) is first
    specs.get(make_job("c"), CREATED)
    assert specs.get(make_job("a"), CREATED) is first
    assert specs.get(make_job("b"), CREATED) is not second
