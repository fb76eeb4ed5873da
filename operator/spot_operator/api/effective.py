"""What a spec means: defaults applied, presets resolved, or the first reason not to act on it.

The API server has checked the spec already, unless the CRD is older than the operator or its
rules were off; so everything is checked again here, and what does not hold is an `InvalidSpec`
with the field and the remedy. Pure: no clock, no I/O. Invariant: the result depends on the spec,
the job's name and its creation time alone, so that the same job always means the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from spot_operator.api import spec as api
from spot_operator.api.presets import PRESETS
from spot_operator.api.rules import (
    MAX_NAME_LENGTH,
    NAME_HAS_DOTS,
    NAME_TOO_LONG,
    broken_rules,
)
from spot_operator.api.template_rules import trainer_of
from spot_operator.model import (
    MAX_GRACE_SECONDS,
    CheckpointSpec,
    ConditionPattern,
    DeadlineAction,
    DeadlineSpec,
    FailurePolicy,
    FailureRule,
    FallbackPolicy,
    FallbackSpec,
    InvalidSpec,
    JobSpec,
    Json,
    PodRetention,
    Pool,
    ReturnToSpot,
    RuleAction,
    S3Location,
    VolumeLocation,
)
from spot_trainer.contract import IntervalPolicy

GRACE_SECONDS: Final = 120
"""terminationGracePeriodSeconds where the template names none: time for a last checkpoint."""
INTERVAL_SECONDS: Final = 300
MAX_INTERVAL_SECONDS: Final = 600
KEEP_LAST: Final = 3


def parse_spec(
    spec: Mapping[str, Any], *, namespace: str, name: str, created: datetime
) -> JobSpec | InvalidSpec:
    """The effective spec, or the first field that keeps the job from being run."""
    if problem := _first_problem_of_name(name):
        return problem
    try:
        shape = api.Spec.model_validate(spec)
    except ValidationError as error:
        return _first_problem_of_shape(error)
    for path, message in broken_rules(shape, path="spec"):
        return InvalidSpec(field=path, why=message)
    return _effective(shape, spec, default_run_id=f"{namespace}/{name}", created=created)


def template_fingerprint(template: Json, *, num_nodes: int) -> str:
    """What makes two jobs the same training run, as 16 hex digits."""
    canonical = json.dumps(
        {"numNodes": num_nodes, "template": template}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _first_problem_of_name(name: str) -> InvalidSpec | None:
    if len(name) > MAX_NAME_LENGTH:
        return InvalidSpec(field="metadata.name", why=NAME_TOO_LONG)
    if "." in name:
        return InvalidSpec(field="metadata.name", why=NAME_HAS_DOTS)
    return None


def _first_problem_of_shape(error: ValidationError) -> InvalidSpec:
    problem = error.errors(include_url=False)[0]
    why = "required, but not set" if problem["type"] == "missing" else problem["msg"]
    return InvalidSpec(field=_path(problem["loc"]), why=why)


def _path(location: Sequence[str | int]) -> str:
    path = "spec"
    for part in location:
        # A union adds the name of the branch that was tried, which is no part of the manifest.
        if part not in ("int", "str"):
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path


def _effective(shape: api.Spec, raw: Json, *, default_run_id: str, created: datetime) -> JobSpec:
    preset = PRESETS[shape.capacity.preset]
    spot, on_demand = shape.capacity.spot, shape.capacity.on_demand
    trainer = trainer_of(shape)
    assert trainer is not None, "a rule checked that the trainer container exists"
    return JobSpec(
        suspend=shape.suspend or False,
        trainer_container=trainer.name,
        template=raw["template"],
        template_fingerprint=template_fingerprint(raw["template"], num_nodes=shape.num_nodes or 1),
        grace_seconds=min(
            shape.template.spec.termination_grace_period_seconds or GRACE_SECONDS, MAX_GRACE_SECONDS
        ),
        spot_notice_seconds=(spot and spot.notice_seconds) or preset.notice_seconds,
        spot=_pool(preset.spot, spot),
        on_demand=_pool(preset.on_demand, on_demand),
        checkpoint=_checkpoint(shape.checkpoint, default_run_id=default_run_id),
        fallback=_fallback(shape.fallback or api.Fallback(), has_deadline=shape.deadline is not None),
        deadline=_deadline(shape.deadline, created=created),
        failure_policy=_failure_policy(shape.failure_policy or api.FailurePolicy()),
        pod_retention=PodRetention(shape.pod_retention or PodRetention.LAST_FAILED),
    )


def _pool(base: Pool, given: api.SpotPool | api.OnDemandPool | None) -> Pool:
    """The preset's pool with what the user gave: labels and tolerations add, terms replace."""
    if given is None:
        return base
    price = given.price_per_node_hour
    return Pool(
        node_selector={**base.node_selector, **(given.node_selector or {})},
        node_affinity_terms=given.node_affinity_terms or base.node_affinity_terms,
        tolerations=(*base.tolerations, *(given.tolerations or ())),
        price_per_node_hour=None if price is None else Decimal(price),
    )


def _checkpoint(given: api.Checkpoint, *, default_run_id: str) -> CheckpointSpec:
    run_id = given.run_id or default_run_id
    interval = given.interval or api.Interval()
    policy = IntervalPolicy(interval.policy or IntervalPolicy.FIXED)
    return CheckpointSpec(
        location=_location(given, run_id=run_id),
        run_id=run_id,
        if_exists=given.if_exists or "Resume",
        interval_policy=policy,
        interval_seconds=interval.max_seconds or MAX_INTERVAL_SECONDS
        if policy is IntervalPolicy.AUTO
        else interval.seconds or INTERVAL_SECONDS,
        keep_last=given.keep_last or KEEP_LAST,
    )


def _location(given: api.Checkpoint, *, run_id: str) -> S3Location | VolumeLocation:
    if (s3 := given.s3) is not None:
        secret = s3.credentials_secret_ref
        return S3Location(
            bucket=s3.bucket,
            prefix=run_id if s3.prefix is None else s3.prefix,
            endpoint=s3.endpoint or "",
            region=s3.region or "",
            credentials_secret=secret.name if secret else "",
        )
    claim = given.persistent_volume_claim
    assert claim is not None, "a rule checked that there is exactly one place for checkpoints"
    return VolumeLocation(claim_name=claim.claim_name, sub_path=claim.sub_path or "")


def _fallback(given: api.Fallback, *, has_deadline: bool) -> FallbackSpec:
    after = given.after_interruptions
    defaults = FallbackSpec()
    rules = (after, given.before_deadline_seconds, given.after_pending_seconds)
    unset = FallbackPolicy.AUTO if has_deadline and rules == (None, None, None) else FallbackPolicy.RULES
    policy = FallbackPolicy(given.policy or unset)
    may_return = policy is FallbackPolicy.AUTO and given.return_to_spot != "Never"
    return FallbackSpec(
        policy=policy,
        interruptions_count=None if after is None else after.count,
        interruptions_window_seconds=(after and after.window_seconds)
        or defaults.interruptions_window_seconds,
        before_deadline_seconds=given.before_deadline_seconds,
        after_pending_seconds=given.after_pending_seconds,
        return_to_spot=ReturnToSpot.AUTO if may_return else ReturnToSpot.NEVER,
    )


def _deadline(given: api.Deadline | None, *, created: datetime) -> DeadlineSpec | None:
    if given is None:
        return None
    # A duration so long that it leaves the calendar was excluded by the bound of the field.
    after = timedelta(seconds=given.seconds_after_creation or 0)
    return DeadlineSpec(
        finish_by=given.finish_by.astimezone(UTC) if given.finish_by else created + after,
        expected_duration_seconds=given.expected_duration_seconds,
        action=DeadlineAction(given.action or DeadlineAction.CONTINUE),
    )


def _failure_policy(given: api.FailurePolicy) -> FailurePolicy:
    defaults = FailurePolicy()

    def chosen(value: int | None, default: int) -> int:
        return default if value is None else value  # 0 is a limit, not "unset"

    return FailurePolicy(
        backoff_limit=chosen(given.backoff_limit, defaults.backoff_limit),
        window_seconds=chosen(given.window_seconds, defaults.window_seconds),
        out_of_memory_limit=chosen(given.out_of_memory_limit, defaults.out_of_memory_limit),
        rules=tuple(_failure_rule(rule) for rule in given.rules or ()),
    )


def _failure_rule(given: api.FailureRule) -> FailureRule:
    codes = given.on_exit_codes
    conditions = given.on_pod_conditions or ()
    return FailureRule(
        action=RuleAction(given.action),
        container="" if codes is None else codes.container_name or "",
        exit_codes=frozenset() if codes is None else frozenset(codes.values),
        matches_others=codes is not None and codes.operator == "NotIn",
        conditions=tuple(ConditionPattern(type=c.type, status=c.status or "True") for c in conditions),
    )
