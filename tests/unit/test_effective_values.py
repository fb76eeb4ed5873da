"""What a good spec effectively means: unset fields, absolute deadline, grace, fingerprint."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import manifests
import pytest

from spot_operator.api.effective import parse_spec, template_fingerprint
from spot_operator.api.presets import PRESETS
from spot_operator.model import (
    CheckpointSpec,
    DeadlineAction,
    DeadlineSpec,
    FailurePolicy,
    FallbackPolicy,
    FallbackSpec,
    JobSpec,
    PodRetention,
    ReturnToSpot,
    S3Location,
    VolumeLocation,
)
from spot_trainer.contract import IntervalPolicy

BASE: dict[str, Any] = manifests.BASE["spec"]
CREATED = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
KARPENTER = PRESETS["Karpenter"]


def parse(spec: Mapping[str, Any]) -> JobSpec:
    parsed = parse_spec(spec, namespace="team-a", name="digits", created=CREATED)
    assert isinstance(parsed, JobSpec), parsed
    return parsed


def with_pod(**fields: Any) -> dict[str, Any]:
    spec = copy.deepcopy(BASE)
    spec["template"]["spec"] |= fields
    return spec


DEFAULTS = JobSpec(
    suspend=False,
    trainer_container="trainer",
    template=BASE["template"],
    template_fingerprint=template_fingerprint(BASE["template"], num_nodes=1),
    grace_seconds=120,
    spot_notice_seconds=100,
    spot=KARPENTER.spot,
    on_demand=KARPENTER.on_demand,
    checkpoint=CheckpointSpec(
        location=S3Location(bucket="checkpoints", prefix="team-a/digits"),
        run_id="team-a/digits",
        if_exists="Resume",
        interval_seconds=300,
        keep_last=3,
    ),
    fallback=FallbackSpec(policy=FallbackPolicy.RULES),
    deadline=None,
    failure_policy=FailurePolicy(backoff_limit=6, window_seconds=3600, out_of_memory_limit=2),
    pod_retention=PodRetention.LAST_FAILED,
)


def test_the_smallest_spec_means_the_documented_defaults() -> None:
    assert parse(BASE) == DEFAULTS


FULL_CHECKPOINT = {
    "runID": "exp/7",
    "ifExists": "Fail",
    "s3": {
        "bucket": "b-1",
        "prefix": "p",
        "endpoint": "http://s3:8333",
        "region": "eu-1",
        "credentialsSecretRef": {"name": "s3"},
    },
    "interval": {"policy": "Fixed", "seconds": 20},
    "keepLast": 2,
}


@pytest.mark.parametrize(
    ("given", "want"),
    [
        pytest.param(
            FULL_CHECKPOINT,
            CheckpointSpec(
                location=S3Location(
                    bucket="b-1",
                    prefix="p",
                    endpoint="http://s3:8333",
                    region="eu-1",
                    credentials_secret="s3",
                ),
                run_id="exp/7",
                if_exists="Fail",
                interval_seconds=20,
                keep_last=2,
            ),
            id="everything given",
        ),
        pytest.param(
            {"runID": "exp/7", "s3": {"bucket": "b-1"}},
            CheckpointSpec(location=S3Location(bucket="b-1", prefix="exp/7"), run_id="exp/7"),
            id="the prefix follows the run identity",
        ),
        pytest.param(
            {"s3": {"bucket": "b-1", "prefix": ""}},
            CheckpointSpec(location=S3Location(bucket="b-1", prefix=""), run_id="team-a/digits"),
            id="an empty prefix is the root",
        ),
        pytest.param(
            {"persistentVolumeClaim": {"claimName": "ckpt", "subPath": "a/b"}},
            CheckpointSpec(
                location=VolumeLocation(claim_name="ckpt", sub_path="a/b"), run_id="team-a/digits"
            ),
            id="a volume",
        ),
        pytest.param(
            {"s3": {"bucket": "b-1"}, "interval": {"policy": "Auto"}},
            CheckpointSpec(
                location=S3Location(bucket="b-1", prefix="team-a/digits"),
                run_id="team-a/digits",
                interval_policy=IntervalPolicy.AUTO,
                interval_seconds=600,
            ),
            id="an automatic interval",
        ),
        pytest.param(
            {"s3": {"bucket": "b-1"}, "interval": {"policy": "Auto", "maxSeconds": 90}},
            CheckpointSpec(
                location=S3Location(bucket="b-1", prefix="team-a/digits"),
                run_id="team-a/digits",
                interval_policy=IntervalPolicy.AUTO,
                interval_seconds=90,
            ),
            id="an automatic interval with a bound",
        ),
    ],
)
def test_checkpoint(given: dict[str, Any], want: CheckpointSpec) -> None:
    assert parse(BASE | {"checkpoint": given}) == replace(DEFAULTS, checkpoint=want)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (
            {"finishBy": "2026-12-01T06:00:00+02:00", "action": "Fail"},
            DeadlineSpec(finish_by=datetime(2026, 12, 1, 4, tzinfo=UTC), action=DeadlineAction.FAIL),
        ),
        (
            {"secondsAfterCreation": 7200, "expectedDurationSeconds": 600},
            DeadlineSpec(
                finish_by=datetime(2026, 11, 1, 14, tzinfo=UTC),
                expected_duration_seconds=600,
                action=DeadlineAction.CONTINUE,
            ),
        ),
    ],
    ids=["absolute", "counted from creation"],
)
def test_deadline_is_absolute(given: dict[str, Any], want: DeadlineSpec) -> None:
    assert parse(BASE | {"deadline": given}) == replace(
        DEFAULTS,
        deadline=want,
        fallback=FallbackSpec(policy=FallbackPolicy.AUTO, return_to_spot=ReturnToSpot.AUTO),
    )


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({}, FallbackPolicy.RULES),
        ({"deadline": {"secondsAfterCreation": 60}}, FallbackPolicy.AUTO),
        (
            {"deadline": {"secondsAfterCreation": 60}, "fallback": {"afterPendingSeconds": 9}},
            FallbackPolicy.RULES,
        ),
        ({"fallback": {"policy": "Auto"}}, FallbackPolicy.AUTO),
    ],
    ids=["nothing", "a deadline", "a deadline and a rule", "named"],
)
def test_policy_that_is_not_named_follows_from_what_is(
    changes: dict[str, Any], policy: FallbackPolicy
) -> None:
    assert parse(BASE | changes).fallback.policy is policy


def test_fallback_rules() -> None:
    fallback = {
        "afterInterruptions": {"count": 2},
        "beforeDeadlineSeconds": 600,
        "afterPendingSeconds": 90,
        "returnToSpot": "Never",
    }
    spec = parse(BASE | {"fallback": fallback, "deadline": {"secondsAfterCreation": 7200}})
    assert spec.fallback == FallbackSpec(
        policy=FallbackPolicy.RULES,
        interruptions_count=2,
        interruptions_window_seconds=3600,
        before_deadline_seconds=600,
        after_pending_seconds=90,
    )


def test_zero_is_a_limit_and_not_unset() -> None:
    spec = parse(BASE | {"failurePolicy": {"backoffLimit": 0, "outOfMemoryLimit": 0}})
    assert spec.failure_policy == FailurePolicy(backoff_limit=0, window_seconds=3600, out_of_memory_limit=0)


@pytest.mark.parametrize(("given", "want"), [(None, 120), (30, 30)])
def test_grace_is_the_templates_else_120(given: int | None, want: int) -> None:
    spec = with_pod(**({} if given is None else {"terminationGracePeriodSeconds": given}))
    assert parse(spec).grace_seconds == want


def test_the_trainer_is_the_named_container_else_the_first() -> None:
    spec = with_pod(containers=[{"name": "sidecar"}, {"name": "main"}])
    assert parse(spec).trainer_container == "sidecar"
    assert parse(spec | {"trainerContainer": "main"}).trainer_container == "main"


def test_reserved_variables_matter_in_the_trainer_container_only() -> None:
    env = [{"name": "SPOT_PRICE", "value": "1"}]
    spec = with_pod(containers=[{"name": "trainer"}, {"name": "sidecar", "env": env}])
    assert parse(spec).trainer_container == "trainer"


def test_prices_are_exact() -> None:
    capacity = {"preset": "EKS", "spot": {"pricePerNodeHour": "0.10"}, "onDemand": {"pricePerNodeHour": "3"}}
    spec = parse(BASE | {"capacity": capacity})
    assert (spec.spot.price_per_node_hour, spec.on_demand.price_per_node_hour) == (Decimal("0.10"), 3)


def test_fingerprint_ignores_order_and_everything_but_template_and_nodes() -> None:
    reordered = dict(reversed(BASE["template"]["spec"].items()))
    other = BASE | {"template": {"spec": reordered}, "suspend": True, "numNodes": 1}
    assert parse(other).template_fingerprint == DEFAULTS.template_fingerprint
    assert len(DEFAULTS.template_fingerprint) == 16


def test_fingerprint_changes_with_template_and_nodes() -> None:
    changed = with_pod(priorityClassName="high")
    fingerprints = {
        DEFAULTS.template_fingerprint,
        parse(changed).template_fingerprint,
        template_fingerprint(BASE["template"], num_nodes=2),
    }
    assert len(fingerprints) == 3


def test_a_grace_period_without_end_stays_within_the_calendar() -> None:
    parsed = parse(with_pod(terminationGracePeriodSeconds=2**63 - 1))
    assert CREATED + timedelta(seconds=parsed.grace_seconds) < datetime(2031, 1, 1, tzinfo=UTC)
