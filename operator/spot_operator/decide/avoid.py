"""Nodes and zones that have just taken a pod away, or never gave it a chance: rather not again.

Kept in status, so that another process avoids the same, and applied as a preference: where there
is nothing else, a pod goes there after all. Invariant: the zone of a volume is never avoided,
since the volume cannot follow.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from spot_operator.decide.draft import Draft
from spot_operator.decide.volumes import uses_claims
from spot_operator.model import Avoidance, AvoidKind, JobStatus, PodRecord, Restart
from spot_operator.names import LABEL_HOSTNAME, LABEL_ZONE, Cause

NODE_TIME: Final = timedelta(minutes=15)
ZONE_TIME: Final = timedelta(minutes=10)
MAX_AVOIDANCES: Final = 20
WEIGHTS: Final = {AvoidKind.NODE: 100, AvoidKind.ZONE: 50}
KEYS: Final = {AvoidKind.NODE: LABEL_HOSTNAME, AvoidKind.ZONE: LABEL_ZONE}

NODE_CAUSES: Final = frozenset(
    {Cause.INTERRUPTION, Cause.NODE_LOST, Cause.NODE_PRESSURE, Cause.INFRASTRUCTURE}
)
"""Endings after which the node is no good place for the next pod."""
ZONE_CAUSES: Final = frozenset({Cause.INTERRUPTION})
"""Spot capacity is taken away by the zone, and others of it are likely to follow."""


def after(draft: Draft, cause: Cause, record: PodRecord | Restart) -> Draft:
    """Avoid where that pod was, if the cause lies there."""
    if cause not in NODE_CAUSES:
        return draft
    return add(draft, record, zone_too=cause in ZONE_CAUSES)


def add(draft: Draft, record: PodRecord | Restart, *, zone_too: bool) -> Draft:
    """Avoid the pod's node, and its zone unless a volume ties the job to it."""
    new = []
    if record.node_name is not None:
        until = (draft.now + NODE_TIME).replace(microsecond=0)
        new.append(Avoidance(kind=AvoidKind.NODE, value=record.node_name, until=until))
    if zone_too and record.zone is not None and not uses_claims(draft.spec):
        until = (draft.now + ZONE_TIME).replace(microsecond=0)
        new.append(Avoidance(kind=AvoidKind.ZONE, value=record.zone, until=until))
    named = {(each.kind, each.value) for each in new}
    kept = (each for each in draft.status.avoid if (each.kind, each.value) not in named)
    return forget_old(draft.with_status(avoid=(*kept, *new)[-MAX_AVOIDANCES:]))


def forget_old(draft: Draft) -> Draft:
    """Only where it changes anything: time alone is no reason to write a status."""
    return replace(
        draft,
        status=replace(
            draft.status, avoid=tuple(each for each in draft.status.avoid if each.until > draft.now)
        ),
    )


def preferences(status: JobStatus) -> list[dict[str, Any]]:
    """Preferred scheduling terms, in the shape of the pod API."""
    terms = []
    for kind in AvoidKind:
        values = sorted(each.value for each in status.avoid if each.kind is kind)
        if values:
            expression = {"key": KEYS[kind], "operator": "NotIn", "values": values}
            terms.append({"weight": WEIGHTS[kind], "preference": {"matchExpressions": [expression]}})
    return terms
