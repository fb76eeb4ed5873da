"""What a platform team can graph and alert on.

A registry of our own, so that nothing but these series is exported. Invariant: no label
carries the name of a job, a pod or a node, so the number of series does not grow with the
cluster; jobs are counted by phase and told apart by `kubectl get`.
"""

from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spot_operator.names import Phase

REGISTRY: Final = CollectorRegistry()
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"spot_operator_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str) -> Histogram:
    return Histogram(f"spot_operator_{name}_seconds", text, buckets=_LATENCY, registry=REGISTRY)


API_REQUESTS: Final = _counter("api_requests", "Requests to the API server.", "verb", "resource")
API_ERRORS: Final = _counter("api_errors", "Requests that failed.", "verb", "resource", "error")
WATCH_ERRORS: Final = _counter("watch_errors", "Watches that broke with an error and began anew.", "resource")
RECONCILES: Final = _counter("reconciles", "Looks at one job.", "result")
RECONCILE_SECONDS: Final = _histogram("reconcile_duration", "Duration of one look at one job.")
STATUS_WRITES: Final = _counter("status_writes", "Writes of a job's status.", "carries")
RESTARTS: Final = _counter("restarts", "Ended incarnations by cause.", "cause", "capacity_type")
INTERRUPTIONS: Final = _counter("interruptions", "Incarnations whose capacity was taken away.", "cause")
SPOT_INTERRUPTIONS: Final = _counter(
    "spot_interruptions", "Spot nodes taken away from a pod, by zone; a rate with spot_node_seconds.", "zone"
)
SPOT_NODE_SECONDS: Final = _counter("spot_node_seconds", "Seconds of pods on spot nodes, by zone.", "zone")
NODE_SECONDS: Final = _counter("node_seconds", "Seconds of pods on nodes.", "capacity_type")
UNPRICED_NODE_SECONDS: Final = _counter(
    "unpriced_node_seconds", "Of these, seconds for which nothing told a price."
)
COST_SPENT: Final = _counter("cost_spent", "What node time has cost, as far as it has a price.")
COST_ON_DEMAND_ONLY: Final = _counter(
    "cost_on_demand_only", "What the same node time would have cost on on-demand, as far as is known."
)
LAUNCHES: Final = _counter("launches", "Incarnations started.", "capacity_type")
STOP_SECONDS: Final = _histogram(
    "stop_signal_to_delete", "From a node's stop signal to the graceful stop of a pod on it."
)
REPLACE_SECONDS: Final = _histogram(
    "pod_gone_to_replacement", "From the end of a pod to the creation of its replacement."
)
REPORTS: Final = _counter("status_reports", "Progress reports by the HTTP status they got.", "code")
CONNECTIONS: Final = _counter(
    "status_connections", "Connections to the status server: served, refused, failed or expired.", "result"
)
TOKEN_REVIEWS: Final = _counter("token_reviews", "TokenReviews by result.", "result")
EVENT_ERRORS: Final = _counter("event_errors", "Kubernetes Events that could not be written.")
LEADER: Final = Gauge("spot_operator_leader", "1 while this replica leads.", registry=REGISTRY)
QUEUE_DEPTH: Final = Gauge("spot_operator_queue_depth", "Jobs that are due for a look.", registry=REGISTRY)


class JobsByPhase(Collector):
    """Counted at scrape time from what each job's last look found; forgotten jobs drop out."""

    def __init__(self) -> None:
        self._phases: dict[tuple[str, str], Phase] = {}

    def set(self, key: tuple[str, str], phase: Phase) -> None:
        self._phases[key] = phase

    def forget(self, key: tuple[str, str]) -> None:
        self._phases.pop(key, None)

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily("spot_operator_jobs", "Jobs by phase.", labels=["phase"])
        for phase in Phase:
            family.add_metric([phase], sum(1 for seen in self._phases.values() if seen is phase))
        return [family]


class CostProjected(Collector):
    """The sum over the jobs that go on, at scrape time, from what each job's last look found."""

    def __init__(self) -> None:
        self._projected: dict[tuple[str, str], Decimal] = {}

    def set(self, key: tuple[str, str], projected: Decimal | None) -> None:
        """None: it is not known, or the job has ended."""
        if projected is None:
            self.forget(key)
        else:
            self._projected[key] = projected

    def forget(self, key: tuple[str, str]) -> None:
        self._projected.pop(key, None)

    def collect(self) -> list[Metric]:
        text = "What the jobs that have not ended will have cost at their end, together, as far as is known."
        family = GaugeMetricFamily("spot_operator_cost_projected", text)
        family.add_metric([], float(sum(self._projected.values())))
        return [family]


JOBS: Final = JobsByPhase()
REGISTRY.register(JOBS)
PROJECTED: Final = CostProjected()
REGISTRY.register(PROJECTED)


def render() -> bytes:
    return generate_latest(REGISTRY)
