"""What a spec must satisfy beyond its shape: one table for the API server and the operator.

Invariant: a rule states its condition twice, as CEL for the API server and as a predicate for
the operator, under one message that says what to do; the API tests feed every bad manifest to
both and compare. Rules about a change (`oldSelf`) exist for the API server only, since the
operator cannot see what a spec was.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from spot_operator.api import spec as api
from spot_operator.api.rule import Rule
from spot_operator.api.template_rules import TEMPLATE_RULES
from spot_operator.prices import PRICE

MAX_NAME_LENGTH: Final = 40
MIN_KEEP_LAST: Final = 2

# Patterns are rules and not part of the schema, whose message would show the pattern alone.
DOMAIN_PATH: Final = "[a-z0-9][a-z0-9.-]*/[A-Za-z0-9._/-]+"
RUN_ID: Final = "[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
BUCKET: Final = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"

NAME_TOO_LONG: Final = (
    f"metadata.name must have at most {MAX_NAME_LENGTH} characters, since host names are made from it"
)
NAME_HAS_DOTS: Final = (
    "metadata.name must not contain dots, since host names are made from it; use hyphens instead"
)
NAME_RULES: Final = (
    {"rule": f"self.metadata.name.size() <= {MAX_NAME_LENGTH}", "message": NAME_TOO_LONG},
    {"rule": "!self.metadata.name.contains('.')", "message": NAME_HAS_DOTS},
)


_WAS_SUSPENDED: Final = "(has(oldSelf.suspend) && oldSelf.suspend)"


def _matches(pattern: str) -> str:
    return f"self.matches('^{pattern}$')"


def _is_like(pattern: str, value: str | None) -> bool:
    return value is None or re.fullmatch(pattern, value) is not None


def _unchanged(parent: str, field: str) -> str:
    """CEL for "this optional field is as it was"; `?.` would cost a hundred times the budget."""
    now, old = f"self{parent}.{field}", f"oldSelf{parent}.{field}"
    return f"(has({now}) == has({old}) && (!has({now}) || {now} == {old}))"


_LATER: Final[tuple[Rule[api.Spec], ...]] = (
    Rule(
        field="numNodes",
        cel="self <= 1",
        on_value=True,
        message="more than one node is not supported yet; remove numNodes or set it to 1",
        holds=lambda s: s.num_nodes in (None, 1),
        reason="FieldValueForbidden",
    ),
    Rule(
        field="numProcPerNode",
        cel="self == 1",
        on_value=True,
        message="only one process per node is supported yet; remove numProcPerNode or set it to 1",
        holds=lambda s: s.num_proc_per_node in (None, 1),
        reason="FieldValueForbidden",
    ),
    Rule(
        field="ttlSecondsAfterFinished",
        cel="false",
        on_value=True,
        message="deleting finished jobs is not supported yet; remove ttlSecondsAfterFinished",
        holds=lambda s: s.ttl_seconds_after_finished is None,
        reason="FieldValueForbidden",
    ),
)

_POLICY: Final[tuple[Rule[api.Spec], ...]] = (
    Rule(
        field="fallback.beforeDeadlineSeconds",
        cel="!has(self.fallback) || !has(self.fallback.beforeDeadlineSeconds) || has(self.deadline)",
        message="there is no deadline to keep; set deadline.finishBy or deadline.secondsAfterCreation",
        holds=lambda s: (
            s.fallback is None or s.fallback.before_deadline_seconds is None or s.deadline is not None
        ),
    ),
)

_MANAGED_BY: Final = Rule[api.Spec](
    field="managedBy",
    cel=_matches(DOMAIN_PATH),
    on_value=True,
    message="managedBy must be a domain and a path; write it like example.com/controller",
    holds=lambda s: _is_like(DOMAIN_PATH, s.managed_by),
)

_CHANGES: Final[tuple[Rule[api.Spec], ...]] = (
    Rule(
        field="managedBy",
        cel=_unchanged("", "managedBy"),
        message="managedBy cannot be changed; delete the job and create it again",
        holds=None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="template",
        cel=f"self.template == oldSelf.template || {_WAS_SUSPENDED}",
        message="template can be changed only while the job is suspended; set suspend to true first",
        holds=None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="trainerContainer",
        cel=f"{_unchanged('', 'trainerContainer')} || {_WAS_SUSPENDED}",
        message="trainerContainer can be changed only while the job is suspended; set suspend to true first",
        holds=None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="numNodes",
        cel=(
            "(has(self.numNodes) ? self.numNodes : 1) == "
            f"(has(oldSelf.numNodes) ? oldSelf.numNodes : 1) || {_WAS_SUSPENDED}"
        ),
        message="numNodes can be changed only while the job is suspended; set suspend to true first",
        holds=None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="checkpoint",
        cel=(
            f"({_unchanged('.checkpoint', 's3')} && "
            f"{_unchanged('.checkpoint', 'persistentVolumeClaim')}) || {_WAS_SUSPENDED}"
        ),
        message="the store can be changed only while the job is suspended; set suspend to true first",
        holds=None,
        reason="FieldValueForbidden",
    ),
)

_CHECKPOINT: Final[tuple[Rule[api.Checkpoint], ...]] = (
    Rule(
        field="s3",
        cel="has(self.s3) || has(self.persistentVolumeClaim)",
        message="name a place for checkpoints: set either s3 or persistentVolumeClaim",
        holds=lambda c: c.s3 is not None or c.persistent_volume_claim is not None,
        reason="FieldValueRequired",
    ),
    Rule(
        field="persistentVolumeClaim",
        cel="!has(self.s3) || !has(self.persistentVolumeClaim)",
        message="checkpoints go to one place: remove either s3 or persistentVolumeClaim",
        holds=lambda c: c.s3 is None or c.persistent_volume_claim is None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="keepLast",
        cel=f"self >= {MIN_KEEP_LAST}",
        on_value=True,
        message=(
            f"keepLast must be at least {MIN_KEEP_LAST}: with 1, a damaged newest checkpoint "
            "would leave nothing to resume from"
        ),
        holds=lambda c: c.keep_last is None or c.keep_last >= MIN_KEEP_LAST,
    ),
    Rule(
        field="runID",
        cel=_matches(RUN_ID),
        on_value=True,
        message="runID may have letters, digits and '.', '_', '-', '/' inside; write it like team-a/digits",
        holds=lambda c: _is_like(RUN_ID, c.run_id),
    ),
    Rule(
        field="runID",
        cel=_unchanged("", "runID"),
        message="runID cannot be changed; delete the job and create it again under the new runID",
        holds=None,
        reason="FieldValueForbidden",
    ),
)

_S3: Final[tuple[Rule[api.S3], ...]] = (
    Rule(
        field="bucket",
        cel=_matches(BUCKET),
        on_value=True,
        message="a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens, and no path",
        holds=lambda s: _is_like(BUCKET, s.bucket),
    ),
    Rule(
        field="prefix",
        cel="!self.startsWith('/') && !self.endsWith('/')",
        on_value=True,
        message="prefix must not begin or end with a slash; write it like team-a/digits",
        holds=lambda s: s.prefix is None or s.prefix == s.prefix.strip("/"),
    ),
    Rule(
        field="endpoint",
        cel="self == '' || self.startsWith('https://') || self.startsWith('http://')",
        on_value=True,
        message="endpoint must be a URL; write it like https://s3.example.com",
        holds=lambda s: not s.endpoint or s.endpoint.startswith(("https://", "http://")),
    ),
)

_CLAIM: Final[tuple[Rule[api.PersistentVolumeClaim], ...]] = (
    Rule(
        field="subPath",
        cel="!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
        on_value=True,
        message="subPath must be a relative path without '..'; write it like team-a/digits",
        holds=lambda c: (
            c.sub_path is None or not (c.sub_path.startswith("/") or ".." in c.sub_path.split("/"))
        ),
    ),
)

_IS_AUTO: Final = "(has(self.policy) && self.policy == 'Auto')"

_INTERVAL: Final[tuple[Rule[api.Interval], ...]] = (
    Rule(
        field="seconds",
        cel=f"!has(self.seconds) || !{_IS_AUTO}",
        message="policy Auto chooses the interval itself; remove seconds, or set policy to Fixed",
        holds=lambda i: i.seconds is None or i.policy != "Auto",
        reason="FieldValueForbidden",
    ),
    Rule(
        field="maxSeconds",
        cel=f"!has(self.maxSeconds) || {_IS_AUTO}",
        message="maxSeconds bounds policy Auto; set policy to Auto, or remove maxSeconds",
        holds=lambda i: i.max_seconds is None or i.policy == "Auto",
        reason="FieldValueForbidden",
    ),
)


def _price_of(pool: str) -> Rule[Any]:
    return Rule(
        field="pricePerNodeHour",
        cel=_matches(PRICE),
        on_value=True,
        message=f'pricePerNodeHour must be a decimal number as text; write it like "{pool}"',
        holds=lambda p: _is_like(PRICE, p.price_per_node_hour),
    )


_SELECTS: Final = (
    "(has(self.{0}) && ((has(self.{0}.nodeSelector) && self.{0}.nodeSelector.size() > 0) || "
    "(has(self.{0}.nodeAffinityTerms) && self.{0}.nodeAffinityTerms.size() > 0)))"
)


def _selects(pool: api.SpotPool | api.OnDemandPool | None) -> bool:
    return pool is not None and bool(pool.node_selector or pool.node_affinity_terms)


_CAPACITY: Final[tuple[Rule[api.Capacity], ...]] = (
    Rule(
        field="spot",
        cel=f"self.preset != 'Labels' || {_SELECTS.format('spot')}",
        message="preset Labels must be told which nodes are spot; set capacity.spot.nodeSelector",
        holds=lambda c: c.preset != "Labels" or _selects(c.spot),
        reason="FieldValueRequired",
    ),
    Rule(
        field="onDemand",
        cel=f"self.preset != 'Labels' || {_SELECTS.format('onDemand')}",
        message="preset Labels must be told which nodes are on-demand; set capacity.onDemand.nodeSelector",
        holds=lambda c: c.preset != "Labels" or _selects(c.on_demand),
        reason="FieldValueRequired",
    ),
)

_FALLBACK: Final[tuple[Rule[api.Fallback], ...]] = (
    Rule(
        field="returnToSpot",
        cel="!has(self.returnToSpot) || self.returnToSpot != 'Auto' || (has(self.policy) "
        "&& self.policy == 'Auto')",
        message="only policy Auto comes back to spot; set policy to Auto, or returnToSpot to Never",
        holds=lambda f: f.return_to_spot != "Auto" or f.policy == "Auto",
        reason="FieldValueForbidden",
    ),
    Rule(
        field="policy",
        cel=(
            "!has(self.policy) || self.policy == 'Rules' || "
            "!(has(self.afterInterruptions) || has(self.beforeDeadlineSeconds) "
            "|| has(self.afterPendingSeconds))"
        ),
        message=(
            "afterInterruptions, beforeDeadlineSeconds and afterPendingSeconds act only with policy Rules; "
            "remove them or set policy to Rules"
        ),
        holds=lambda f: (
            f.policy in (None, "Rules")
            or (f.after_interruptions, f.before_deadline_seconds, f.after_pending_seconds)
            == (None, None, None)
        ),
    ),
)

_FIRST_YEAR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)

_DEADLINE: Final[tuple[Rule[api.Deadline], ...]] = (
    Rule(
        field="finishBy",
        cel="self.getFullYear() >= 2000 && self.getFullYear() < 9999",
        on_value=True,
        message="the year must lie between 2000 and 9998 (UTC); to have no deadline, remove deadline",
        holds=lambda d: d.finish_by is None or _FIRST_YEAR <= d.finish_by < _NEVER,
    ),
    Rule(
        field="finishBy",
        cel="has(self.finishBy) || has(self.secondsAfterCreation)",
        message="say when the run must be done: set either finishBy or secondsAfterCreation",
        holds=lambda d: d.finish_by is not None or d.seconds_after_creation is not None,
        reason="FieldValueRequired",
    ),
    Rule(
        field="secondsAfterCreation",
        cel="!has(self.finishBy) || !has(self.secondsAfterCreation)",
        message="there is one deadline: remove either finishBy or secondsAfterCreation",
        holds=lambda d: d.finish_by is None or d.seconds_after_creation is None,
        reason="FieldValueForbidden",
    ),
)

_FAILURE_RULE: Final[tuple[Rule[api.FailureRule], ...]] = (
    Rule(
        field="onExitCodes",
        cel="has(self.onExitCodes) || (has(self.onPodConditions) && self.onPodConditions.size() > 0)",
        message="say which ends of a pod are meant: set either onExitCodes or onPodConditions",
        holds=lambda r: r.on_exit_codes is not None or bool(r.on_pod_conditions),
        reason="FieldValueRequired",
    ),
    Rule(
        field="onPodConditions",
        cel="!has(self.onExitCodes) || !has(self.onPodConditions)",
        message="a rule matches one kind of thing: remove either onExitCodes or onPodConditions",
        holds=lambda r: r.on_exit_codes is None or r.on_pod_conditions is None,
        reason="FieldValueForbidden",
    ),
)

_EXIT_CODES: Final[tuple[Rule[api.OnExitCodes], ...]] = (
    Rule(
        field="values",
        cel="self.size() > 0",
        on_value=True,
        message="list at least one exit code from 1 to 255",
        holds=lambda c: bool(c.values),
        reason="FieldValueRequired",
    ),
)

RULES: Final[Mapping[type[api.Shape], tuple[Rule[Any], ...]]] = {
    api.Spec: (*_LATER, *TEMPLATE_RULES, *_POLICY, _MANAGED_BY, *_CHANGES),
    api.Checkpoint: _CHECKPOINT,
    api.S3: _S3,
    api.PersistentVolumeClaim: _CLAIM,
    api.Interval: _INTERVAL,
    api.Capacity: _CAPACITY,
    api.SpotPool: (_price_of("0.97"),),
    api.OnDemandPool: (_price_of("3.06"),),
    api.Fallback: _FALLBACK,
    api.Deadline: _DEADLINE,
    api.FailureRule: _FAILURE_RULE,
    api.OnExitCodes: _EXIT_CODES,
}


def broken_rules(shape: api.Shape, *, path: str) -> Iterator[tuple[str, str]]:
    """Path and message of every rule that `shape` or a part of it breaks, outermost first."""
    for rule in RULES.get(type(shape), ()):
        if rule.holds is not None and not rule.holds(shape):
            yield f"{path}.{rule.field}", rule.message
    for name, info in type(shape).model_fields.items():
        value = getattr(shape, name)
        inner = f"{path}.{info.alias or name}"
        if isinstance(value, api.Shape):
            yield from broken_rules(value, path=inner)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, api.Shape):
                    yield from broken_rules(item, path=f"{inner}[{index}]")
