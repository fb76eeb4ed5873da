"""The trainer's metrics for Prometheus. Nothing listens unless a port is set.

A collector that reads the run when it is scraped: training itself counts nothing twice and
waits for nobody. Needs `prometheus-client`, which is part of the extra `trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from spot_trainer.tally import Reading

ALL_ADDRESSES = "::"
"""Both families on one socket, where there is IPv6."""
ALL_IPV4_ADDRESSES = "0.0.0.0"


class RunCollector(Collector):
    """Metrics of one run, made from a reading at each scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        tally = now.tally
        yield InfoMetricFamily(
            "spot_trainer_run",
            "Which run this is.",
            {"job": now.job, "incarnation": str(now.incarnation), "capacity_type": now.capacity_type},
        )
        yield GaugeMetricFamily("spot_trainer_step", "Steps of the run that are done.", now.step)
        if now.total_steps is not None:
            yield GaugeMetricFamily("spot_trainer_total_steps", "Steps of the whole run.", now.total_steps)
        yield CounterMetricFamily(
            "spot_trainer_steps", "Steps that this process has done.", now.step - now.first_step
        )
        yield GaugeMetricFamily(
            "spot_trainer_unsaved_steps",
            "Steps that a loss without notice would cost now.",
            now.step - (now.durable_step or 0),
        )
        if now.durable_step is not None:
            yield GaugeMetricFamily(
                "spot_trainer_checkpoint_step", "Step of the newest durable checkpoint.", now.durable_step
            )
        if now.durable_age_seconds is not None:
            yield GaugeMetricFamily(
                "spot_trainer_checkpoint_age_seconds",
                "Since the newest durable checkpoint of this process was taken.",
                now.durable_age_seconds,
            )
        yield CounterMetricFamily(
            "spot_trainer_checkpoint_failures", "Saves that failed.", tally.num_failures
        )
        yield CounterMetricFamily(
            "spot_trainer_checkpoint_bytes", "Bytes of checkpoints that became durable.", tally.num_bytes
        )
        yield CounterMetricFamily(
            "spot_trainer_checkpoint_stall_seconds",
            "Time that training stood still for snapshots.",
            tally.stall_seconds,
        )
        yield SummaryMetricFamily(
            "spot_trainer_checkpoint_seconds",
            "From the beginning of a snapshot until it was durable.",
            count_value=tally.num_saves,
            sum_value=tally.save_seconds,
        )
        if tally.restore_seconds is not None:
            yield GaugeMetricFamily(
                "spot_trainer_restore_seconds",
                "To find, read and verify the checkpoint that this process resumed.",
                tally.restore_seconds,
            )
            yield GaugeMetricFamily(
                "spot_trainer_restore_bytes", "Size of the checkpoint that was resumed.", tally.restore_bytes
            )


def serve(port: int, read: Callable[[], Reading]) -> Callable[[], None]:
    """Answer scrapes on this port of all addresses, from a daemon thread; returns what ends it.

    Raises OSError if the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(read))
    try:
        server, thread = start_http_server(port, ALL_ADDRESSES, registry)
    except OSError:
        server, thread = start_http_server(port, ALL_IPV4_ADDRESSES, registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close
