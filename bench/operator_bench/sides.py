"""The two controllers that are compared, and what is done to the jobs of each: the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operator_bench import manifests
from operator_bench.audit import Request, creations, waits
from operator_bench.lab import PODS, Lab

OURS, PEER = "ours", "job controller"
_JOBS = "/apis/spottraining.io/v1alpha1/namespaces/{}/spottrainingjobs"
_BATCH_JOBS = "/apis/batch/v1/namespaces/{}/jobs"
_EVICTION_PERIOD_SECONDS = 0.2


@dataclass(frozen=True)
class Side:
    name: str
    namespace: str
    collection: str
    make: Callable[[str], Mapping[str, Any]]


def ours() -> Side:
    namespace = "ours"
    return Side(OURS, namespace, _JOBS.format(namespace), lambda name: manifests.spot_job(name, namespace))


async def peer(lab: Lab) -> Side:
    """The Job controller, with the pods of a job of ours that lives for a moment."""
    mine, namespace = ours(), "peer"
    await lab.api.create(mine.collection, mine.make("pattern"))
    await lab.wait_until_running(mine.namespace)
    (pod,) = await _wait_for_pods(lab, mine.namespace)
    await lab.remove_all(mine.namespace, mine.collection)
    spec = pod["spec"]
    return Side(
        PEER,
        namespace,
        _BATCH_JOBS.format(namespace),
        lambda name: manifests.batch_job(name, namespace, spec),
    )


async def _wait_for_pods(lab: Lab, namespace: str) -> list[dict[str, Any]]:
    path = PODS.format(namespace)

    async def is_so() -> bool:
        return not await lab.api.is_empty(path)

    await lab.wait("a first pod", is_so, seconds=30, period=0.1)
    await lab.wait_until_running(namespace)
    return await lab.api.items(path)


@dataclass(frozen=True)
class Applied:
    pods_per_second: float
    running_seconds: float
    cpu_seconds: Mapping[str, float]


async def apply(lab: Lab, side: Side, names: list[str]) -> Applied:
    """Create the jobs at once; returns when all run and nobody has work left."""
    lab.forget()
    meter, began = lab.cpu_meter(), time.time()
    await lab.api.create_all((side.collection, side.make(name)) for name in names)
    await _wait_for_creations(lab, side, began, set(names), "created")
    last = max(each.answered for each in creations(lab.since(began), side.namespace))
    await lab.wait_until_running(side.namespace)
    running = time.time()
    await lab.wait_until_settled()
    return Applied(len(names) / (last - began), running - began, meter.read())


async def interrupt_all(lab: Lab, side: Side) -> dict[str, float]:
    """Evict every pod at once: for each job the seconds from the first eviction to its replacement."""
    pods = await lab.api.names(PODS.format(side.namespace))
    lab.forget()
    began = time.time()
    await lab.api.create_all(
        (f"{PODS.format(side.namespace)}/{pod}/eviction", manifests.eviction(pod, side.namespace))
        for pod in pods
    )
    names = set(await lab.api.names(side.collection))
    await _wait_for_creations(lab, side, began, names, "replaced")
    first = min(each.received for each in _evictions(lab.since(began), side.namespace))
    found = waits(dict.fromkeys(names, first), created_times(lab.since(began), side.namespace))
    await lab.wait_until_running(side.namespace)
    await lab.wait_until_settled()
    return found


async def evict_one_by_one(lab: Lab, side: Side, names: list[str]) -> dict[str, float]:
    """Evict the pods of fresh jobs in turn: for each job the seconds to its replacement."""
    lab.forget()
    began = time.time()
    await lab.api.create_all((side.collection, side.make(name)) for name in names)
    await _wait_for_creations(lab, side, began, set(names), "created")
    await lab.wait_until_running(side.namespace)
    await lab.wait_until_settled()
    jobs = {
        pod: job
        for pods in (await lab.pods_by_node(side.namespace)).values()
        for pod, job in pods.items()
        if job in set(names)
    }
    lab.forget()
    began = time.time()
    for pod in jobs:
        path = f"{PODS.format(side.namespace)}/{pod}/eviction"
        await lab.api.create(path, manifests.eviction(pod, side.namespace))
        await asyncio.sleep(_EVICTION_PERIOD_SECONDS)
    await _wait_for_creations(lab, side, began, set(jobs.values()), "replaced")
    requests = lab.since(began)
    starts = {jobs[each.name]: each.received for each in _evictions(requests, side.namespace)}
    return waits(starts, created_times(requests, side.namespace))


async def _wait_for_creations(lab: Lab, side: Side, began: float, owners: set[str], what: str) -> None:
    async def is_so() -> bool:
        return owners <= {each.owner for each in creations(lab.since(began), side.namespace)}

    await lab.wait(f"{len(owners)} pods of {side.name} to be {what}", is_so, seconds=240)


def _evictions(requests: list[Request], namespace: str) -> list[Request]:
    return [
        each
        for each in requests
        if each.is_done and (each.resource, each.namespace) == ("pods/eviction", namespace)
    ]


def created_times(requests: list[Request], namespace: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in creations(requests, namespace):
        found.setdefault(each.owner, []).append(each.answered)
    return found
