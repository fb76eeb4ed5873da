"""How often spot nodes are taken away, in node-hours: seen, kept, and expected.

Counted is a pod that was on a spot node and lost it, and the time for which pods were on such nodes, by
zone. Invariant: an interruption is counted once, with the verdict on it, also when that comes late.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from spot_operator.decide.capacity import LOSSES
from spot_operator.model import InterruptionRate, JobStatus, PolicySettings, Restart, ZoneInterruptions
from spot_operator.names import CapacityType
from spot_operator.policy import Interruptions

MAX_ZONES: Final = 12
"""A status holds no more of them; what is seen in others counts as of an unknown one."""


def seen(rate: InterruptionRate) -> dict[str, Interruptions]:
    """What the job itself has seen, by zone."""
    return {each.zone: Interruptions(each.interruptions, each.node_seconds) for each in rate.zones}


def and_seen(rate: InterruptionRate, zone: str | None, more: Interruptions) -> InterruptionRate:
    """The rate with something more seen in a zone."""
    zones = {each.zone: each for each in rate.zones}
    name = zone or ""
    if name not in zones and len(zones) >= MAX_ZONES:
        name = ""
    old = zones.get(name, ZoneInterruptions(zone=name))
    zones[name] = replace(
        old,
        interruptions=max(0, old.interruptions + more.count),
        node_seconds=round(old.node_seconds + more.node_seconds, 3),
    )
    return replace(rate, zones=tuple(zones[key] for key in sorted(zones)))


def count_loss(status: JobStatus, restart: Restart, before: Restart | None = None) -> JobStatus:
    """Status with the loss of a spot node counted; `before` is the verdict that this one replaces."""
    change = _is_loss(restart) - (before is not None and _is_loss(before))
    if not change:
        return status
    rate = and_seen(status.interruption_rate, restart.zone, Interruptions(count=change))
    return replace(status, interruption_rate=rate)


def _is_loss(restart: Restart) -> bool:
    return (
        restart.cause in LOSSES
        and restart.capacity_type is CapacityType.SPOT
        and restart.node_name is not None
    )


def with_estimates(
    rate: InterruptionRate, known: Mapping[str, Interruptions], settings: PolicySettings
) -> InterruptionRate:
    """The rate with what is expected of the pool and of each zone that the job was in."""
    prior = Interruptions(settings.interruption_prior_count, 3600.0 * settings.interruption_prior_node_hours)
    own = seen(rate)
    everywhere = sum([*own.values(), *known.values()], Interruptions())
    if everywhere == Interruptions():
        return rate  # the prior alone is no news
    return InterruptionRate(
        node_hours_per_interruption=round(everywhere.node_hours_each(prior), 3),
        zones=tuple(
            replace(
                each,
                node_hours_per_interruption=round(
                    (own[each.zone] + known.get(each.zone, Interruptions())).node_hours_each(prior), 3
                ),
            )
            for each in rate.zones
        ),
    )
