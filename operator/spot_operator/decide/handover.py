"""Hand-over: the next incarnation is prepared while the last one still saves.

Scheduling, a new node and the image then cost no time after the end. The successor's trainer
claims the store only when its predecessor has closed its claim or is dead, and since a claim
fences, it may do so at any time. Invariant: never more than two incarnations, and never for a
container that does not claim.
"""

from spot_operator.decide import avoid
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate
from spot_operator.decide.pods import pod_name
from spot_operator.decide.volumes import uses_claims
from spot_operator.model import Gang, JobSpec, PodRecord
from spot_operator.names import LABEL_KUEUE_QUEUE, CapacityType, StopReason

REASONS = frozenset({StopReason.NODE_SIGNAL, StopReason.CAPACITY_CHANGE})


def is_possible(draft: Draft, gang: Gang) -> bool:
    """Whether a successor may be created before the stopped gang has ended."""
    return (
        draft.settings.hand_over
        and draft.status.claims
        and draft.status.predecessor is None
        and gang.stop is not None
        and gang.stop.reason in REASONS
        and not draft.spec.suspend
        and all(
            fate.fate is Fate.ALIVE and fate.record.uid is not None and fate.pod is not None
            for fate in draft.fates(gang)
        )
        and _may_have_two_pods(draft.spec)
    )


def may_have_a_second(draft: Draft) -> bool:
    """Whether another incarnation may be prepared while the present one goes on."""
    return (
        draft.settings.hand_over
        and draft.status.claims
        and draft.status.predecessor is None
        and not draft.spec.suspend
        and _may_have_two_pods(draft.spec)
    )


def _may_have_two_pods(spec: JobSpec) -> bool:
    """Two pods at a time: not with a volume that may be bound to one node, nor with a pod count that
    Kueue has admitted."""
    labels = (spec.template.get("metadata") or {}).get("labels") or {}
    return not uses_claims(spec) and LABEL_KUEUE_QUEUE not in labels


def begin(draft: Draft, gang: Gang) -> Draft:
    """Make room for the successor: the stopped gang ends beside it."""
    for record in gang.pods:
        if record.notice is not None:
            draft = avoid.add(draft, record, zone_too=not record.notice.chosen_disruption)
    return draft.with_status(predecessor=gang, gang=None)


def next_gang(
    draft: Draft, capacity_type: CapacityType, predecessor: Gang | None, *, is_beside: bool = False
) -> Gang:
    """The next incarnation, which knows whom it has to wait for."""
    incarnation = draft.status.incarnation + 1
    name = pod_name(draft.observation.name, draft.observation.uid, incarnation, 0)
    return Gang(
        incarnation=incarnation,
        capacity_type=capacity_type,
        created_time=draft.now,
        pods=(PodRecord(name=name, rank=0),),
        hands_over_from=predecessor.incarnation if predecessor is not None else None,
        is_beside=is_beside,
    )
