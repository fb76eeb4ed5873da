"""Many jobs in which nothing happens: what the operator holds in memory, and what it still writes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from checkpoint.measure import Goal, Measure, say
from operator_bench import manifests, sides
from operator_bench.audit import Request
from operator_bench.figures import rounded
from operator_bench.lab import Lab
from operator_bench.processes import CpuMeter
from operator_bench.replica import USER
from spot_operator.settings import Settings

_MARGIN_SECONDS = 10
_GIB = 2**30


async def measure(lab: Lab, num_suspended: int) -> list[Measure]:
    """Beside the running jobs that are there already."""
    namespace, collection = sides.ours().namespace, sides.ours().collection
    # Pods that were replaced a moment ago are no unchanging jobs.
    await lab.wait_until_noted(collection)
    say(f"{num_suspended} suspended jobs beside {lab.num_jobs} running ones")
    await lab.api.create_all(
        (collection, manifests.spot_job(f"idle-{n:05}", namespace, suspend=True))
        for n in range(num_suspended)
    )
    await lab.wait_until_settled(seconds=400)
    # Long enough for one complete listing.
    seconds = Settings().resync_seconds + _MARGIN_SECONDS
    say(f"nothing happens for {seconds:g} s")
    lab.forget()
    began, meter = time.time(), CpuMeter({"operator": lab.operator.pid})
    largest = 0
    while time.time() < began + seconds:
        await asyncio.sleep(1)
        largest = max(largest, lab.operator.rss_bytes())
    wrote = _writes(lab.since(began))
    leases = wrote.pop("update leases", 0)
    name = f"{num_suspended} suspended and {lab.num_jobs} running, unchanging jobs"
    return [
        Measure(
            name=f"{name}: memory of the operator",
            unit="GiB",
            value=largest / _GIB,
            goal=Goal("<=", 1),
            details={"cpuPercentOfOneCore": rounded(100 * meter.read()["operator"] / seconds)},
        ),
        Measure(
            name=f"{name}: writes in {seconds:g} s but for the Lease",
            unit="writes",
            value=sum(wrote.values()),
            goal=Goal("<=", 0),
            details={"leaseUpdates": leases, "others": dict(wrote)},
        ),
    ]


def _writes(requests: list[Request]) -> Counter[str]:
    return Counter(f"{each.verb} {each.resource}" for each in requests if each.user == USER)
