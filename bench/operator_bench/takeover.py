"""The operator itself is lost: its stand-by takes over, or it comes back."""

from __future__ import annotations

import asyncio
import signal
import time

from checkpoint.measure import Goal, Measure, say
from operator_bench import sides
from operator_bench.figures import rounded
from operator_bench.lab import Lab
from operator_bench.replica import Replica
from operator_bench.signals import stopped_pods
from spot_operator.settings import LeaseSettings

_NUM_KILLS = 3
_NUM_RESTARTS = 3
_NODES_WITH_SIGNAL = 2
_LEASE_SECONDS = LeaseSettings().duration_seconds
_ALLOWED_SECONDS = 1.0


async def measure(lab: Lab) -> list[Measure]:
    return [await _restarts(lab), await _kills(lab)]


async def _kills(lab: Lab) -> Measure:
    """The leader is killed, a node shows a stop signal, and nobody but the stand-by is there."""
    replicas = [lab.operator, lab.replica()]
    first, last = [], []
    for number in range(1, _NUM_KILLS + 1):
        leader, stand_by = replicas
        stand_by.start()
        await stand_by.wait_until("started True, leading False")
        # Long enough to have seen the lease, and not always at the same distance from a renewal.
        await asyncio.sleep(4 + 0.7 * number)
        killed = leader.end(signal.SIGKILL)
        stopped = await _stopped_after_signal(lab, killed)
        first.append(min(stopped) - killed)
        last.append(max(stopped) - killed)
        say(f"leader killed, {number} of {_NUM_KILLS}: stand-by acts after {first[-1]:.2f} s")
        lab.replicas.remove(stand_by)
        lab.replicas.insert(0, stand_by)
        await _recover(lab)
        replicas = [stand_by, leader]
    return Measure(
        name=f"leader killed to the other replica acting, most of {_NUM_KILLS} (lease {_LEASE_SECONDS:g} s)",
        unit="s",
        value=max(first),
        goal=Goal("<=", _LEASE_SECONDS + _ALLOWED_SECONDS),
        details={
            "firstPodStopped": [rounded(each) for each in first],
            "lastPodStopped": [rounded(each) for each in last],
        },
    )


async def _restarts(lab: Lab) -> Measure:
    """A new process finds a node that showed a stop signal while there was none, and all other jobs."""
    taken = []
    for number in range(1, _NUM_RESTARTS + 1):
        operator = lab.operator
        operator.end()
        down = time.time()
        nodes = await _signal(lab)
        began = operator.start()
        stopped = await _wait_stopped(lab, down, nodes)
        looked = await _wait_looked_at_all(lab, operator)
        taken.append(max(looked, max(stopped)) - began)
        say(f"restart {number} of {_NUM_RESTARTS}: caught up after {taken[-1]:.2f} s")
        await _recover(lab, *nodes)
    return Measure(
        name=f"operator restarted, caught up with {lab.num_jobs} jobs, most of {_NUM_RESTARTS}",
        unit="s",
        value=max(taken),
        goal=Goal("<=", 10),
        details={"restarts": [rounded(each) for each in taken]},
    )


async def _wait_looked_at_all(lab: Lab, operator: Replica) -> float:
    """When every job had had a look by this process, in seconds since the epoch."""

    async def is_so() -> bool:
        # Jobs by phase, each counted once it was looked at.
        return (await operator.metrics()).get("spot_operator_jobs", 0.0) >= lab.num_jobs

    await lab.wait("the operator to have looked at all jobs", is_so, seconds=120, period=0.1)
    return time.time()


async def _signal(lab: Lab) -> dict[str, dict[str, str]]:
    """Some nodes show a stop signal; they and their pods."""
    chosen = dict(list((await lab.pods_by_node(sides.ours().namespace)).items())[:_NODES_WITH_SIGNAL])
    for node in chosen:
        await lab.set_signal(node)
    return chosen


async def _stopped_after_signal(lab: Lab, killed: float) -> list[float]:
    nodes = await _signal(lab)
    stopped = await _wait_stopped(lab, killed, nodes)
    for node in nodes:
        await lab.set_signal(node, is_on=False)
    return stopped


async def _wait_stopped(lab: Lab, since: float, nodes: dict[str, dict[str, str]]) -> list[float]:
    """When each of the pods on the nodes was asked to stop."""
    namespace, expected = sides.ours().namespace, {pod for pods in nodes.values() for pod in pods}

    async def is_so() -> bool:
        return expected <= stopped_pods(lab.since(since), namespace).keys()

    await lab.wait("the pods to be stopped", is_so, seconds=90, period=0.1)
    stopped = stopped_pods(lab.since(since), namespace)
    return [min(stopped[pod]) for pod in expected]


async def _recover(lab: Lab, *nodes: str) -> None:
    for node in nodes:
        await lab.set_signal(node, is_on=False)
    await lab.wait_until_running(sides.ours().namespace)
    await lab.wait_until_settled()
    lab.forget()
