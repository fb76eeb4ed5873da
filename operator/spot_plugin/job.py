"""One job's JSON, read with patience: an older or newer operator may know fewer or more fields.

Invariant: nothing in here fails on a missing field; absent is `None`, empty or zero.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from spot_operator.decide.capacity import LOSSES
from spot_operator.model import FallbackPolicy
from spot_operator.names import CapacityType, ConditionType
from spot_plugin.words import parse_time


class Job:
    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body

    def get(self, path: str, default: Any = None) -> Any:
        """`status.progress.step`; the default where any part is absent."""
        found: Any = self.body
        for key in path.split("."):
            if not isinstance(found, Mapping) or found.get(key) is None:
                return default
            found = found[key]
        return found

    def time(self, path: str) -> datetime | None:
        return parse_time(self.get(path))

    @property
    def name(self) -> str:
        return str(self.get("metadata.name", "?"))

    @property
    def namespace(self) -> str:
        return str(self.get("metadata.namespace", ""))

    @property
    def phase(self) -> str:
        return str(self.get("status.phase", "Unknown" if self.get("status") else "New"))

    def condition(self, type_: str) -> Mapping[str, Any]:
        return next((c for c in self.get("status.conditions", []) if c.get("type") == type_), {})

    def is_true(self, type_: str) -> bool:
        return self.condition(type_).get("status") == "True"

    def is_false(self, type_: str) -> bool:
        return self.condition(type_).get("status") == "False"

    @property
    def policy(self) -> str:
        return str(self.get("spec.fallback.policy", FallbackPolicy.RULES))

    @property
    def waits_for_a_node(self) -> bool:
        return self.is_false(ConditionType.CAPACITY_AVAILABLE) and not self.nodes

    @property
    def is_finished(self) -> bool:
        return self.is_true(ConditionType.COMPLETE) or self.is_true(ConditionType.FAILED)

    @property
    def restarts(self) -> list[Mapping[str, Any]]:
        return list(self.get("status.recentRestarts", []))

    @property
    def spot_interruptions(self) -> int:
        """How many spot nodes it has lost, in whatever zone."""
        return sum(each.get("interruptions", 0) for each in self.get("status.interruptionRate.zones", []))

    @property
    def unpriced_seconds(self) -> float:
        """Node time for which nothing told a price."""
        cost = self.get("status.cost", {})
        return float(cost.get("unpricedSpotNodeSeconds", 0) + cost.get("unpricedOnDemandNodeSeconds", 0))

    @property
    def nodes(self) -> list[str]:
        return [pod["nodeName"] for pod in self.get("status.gang.pods", []) if pod.get("nodeName")]

    @property
    def deadline(self) -> datetime | None:
        return self.time("status.deadline") or self.time("spec.deadline.finishBy")

    def remaining_seconds(self, now: datetime) -> float | None:
        """Until the work is done if nothing happens, as far as reports tell."""
        if self.is_finished:
            return 0.0
        rate, total = self.get("status.progress.stepsPerSecond"), self.get("status.progress.totalSteps")
        if rate and total is not None:
            step = self.get("status.progress.step", 0)
            if not self.nodes:
                step = self.get("status.progress.durableStep", 0)
            since = self.time("status.progress.reportedTime") if self.nodes else None
            passed = 0.0 if since is None else max(0.0, (now - since).total_seconds())
            return max(0.0, float((total - step) / rate) - passed)
        if (eta := self.time("status.progress.estimatedCompletionTime")) is not None and self.nodes:
            return max(0.0, (eta - now).total_seconds())
        expected = self.get("spec.deadline.expectedDurationSeconds")
        return None if expected is None or total is not None else float(expected)

    def slack_seconds(self, now: datetime) -> float | None:
        """Time to the deadline less the work that is left."""
        remaining = self.remaining_seconds(now)
        if self.deadline is None or remaining is None or self.is_finished:
            return None
        return (self.deadline - now).total_seconds() - remaining

    def losses_within(self, seconds: float, now: datetime) -> list[datetime]:
        """When spot capacity was taken away lately, oldest first."""
        found = []
        for restart in self.restarts:
            at = parse_time(restart.get("time"))
            if (
                at is not None
                and restart.get("cause") in LOSSES
                and restart.get("capacityType") == CapacityType.SPOT
                and (now - at).total_seconds() < seconds
            ):
                found.append(at)
        return found
