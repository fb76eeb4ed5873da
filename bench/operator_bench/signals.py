"""A machine announces its end, or is gone: how soon the operator has acted on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from checkpoint.measure import Goal, Measure, say
from operator_bench import sides, trainers
from operator_bench.audit import Request, waits
from operator_bench.figures import percentile, spread
from operator_bench.lab import NODES, Lab
from operator_bench.replica import USER
from operator_bench.sides import Side

_NUM_NODES = 40
_PERIOD_SECONDS = 2.0
"""Between two machines: each of them interrupts several jobs at once."""


async def measure(lab: Lab) -> list[Measure]:
    side = sides.ours()
    return [await _stop_signals(lab, side), await _gone_nodes(lab, side)]


def stopped_pods(requests: list[Request], namespace: str) -> dict[str, list[float]]:
    """When a graceful stop of each pod was asked for by the operator."""
    found: dict[str, list[float]] = {}
    for each in requests:
        if (each.verb, each.resource, each.namespace, each.user) == ("delete", "pods", namespace, USER):
            found.setdefault(each.name, []).append(each.received)
    return found


def _node_requests(requests: list[Request], verb: str) -> dict[str, float]:
    return {
        each.name: each.received
        for each in requests
        if each.is_done and (each.verb, each.resource) == (verb, "nodes")
    }


async def _stop_signals(lab: Lab, side: Side) -> Measure:
    nodes = _some(await lab.pods_by_node(side.namespace))
    say(f"{len(nodes)} nodes show a stop signal, one every {_PERIOD_SECONDS:g} s")
    lab.forget()
    began, pods_of = time.time(), {}
    for node in nodes:
        due = time.monotonic() + _PERIOD_SECONDS
        # Read anew: a replacement may have come to this node in the meantime.
        pods_of[node] = await _pods_on(lab, side, node)
        await lab.set_signal(node)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    expected = {pod: node for node, pods in pods_of.items() for pod in pods}

    async def is_so() -> bool:
        return expected.keys() <= stopped_pods(lab.since(began), side.namespace).keys()

    await lab.wait("the pods to be stopped", is_so, seconds=60)
    requests = lab.since(began)
    signals = _node_requests(requests, "patch")
    starts = {pod: signals[node] for pod, node in expected.items()}
    seconds = list(waits(starts, stopped_pods(requests, side.namespace)).values())
    for node in nodes:
        await lab.set_signal(node, is_on=False)
    await lab.wait_until_running(side.namespace)
    await lab.wait_until_settled()
    return _latency(f"stop signal to graceful stop, p99, {lab.num_jobs} jobs", seconds)


async def _gone_nodes(lab: Lab, side: Side) -> Measure:
    by_node = await lab.pods_by_node(side.namespace)
    nodes = _some(by_node)
    say(f"the trainers on {len(nodes)} nodes report")
    reporting = {pod for node in nodes for pod in by_node[node]}
    await trainers.report_from(lab, side.namespace, reporting, side.collection)
    await lab.wait_until_settled()
    say(f"{len(nodes)} nodes are removed, one every {_PERIOD_SECONDS:g} s")
    lab.forget()
    began, jobs_on = time.time(), {}
    for node in nodes:
        due = time.monotonic() + _PERIOD_SECONDS
        jobs_on[node] = await _pods_on(lab, side, node)
        await lab.api.delete(f"{NODES}/{node}")
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    # A replacement that came to one of these nodes in the meantime has not reported.
    expected = {job: node for node, pods in jobs_on.items() for pod, job in pods.items() if pod in reporting}

    async def is_so() -> bool:
        return expected.keys() <= sides.created_times(lab.since(began), side.namespace).keys()

    await lab.wait("the replacements", is_so, seconds=120)
    requests = lab.since(began)
    gone = _node_requests(requests, "delete")
    starts = {job: gone[node] for job, node in expected.items()}
    seconds = list(waits(starts, sides.created_times(requests, side.namespace)).values())
    return _latency(f"node object gone to replacement created, p99, {lab.num_jobs} jobs", seconds)


def _some(by_node: Mapping[str, object]) -> list[str]:
    """Not more than half of the nodes, so that there is room for the replacements."""
    return sorted(by_node)[: min(_NUM_NODES, len(by_node) // 2)]


async def _pods_on(lab: Lab, side: Side, node: str) -> dict[str, str]:
    """Pod -> job, of the live pods on a node."""
    path = f"/api/v1/namespaces/{side.namespace}/pods?fieldSelector=spec.nodeName={node}"
    return {
        pod["metadata"]["name"]: pod["metadata"]["ownerReferences"][0]["name"]
        for pod in await lab.api.items(path)
        if "deletionTimestamp" not in pod["metadata"]
    }


def _latency(name: str, seconds: list[float]) -> Measure:
    return Measure(
        name=name, unit="s", value=percentile(seconds, 99), goal=Goal("<=", 1), details=spread(seconds)
    )
