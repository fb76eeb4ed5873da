"""The pretended pods' word to the operator: a progress report, as the trainer library sends it.

From it the operator knows that the program claims its checkpoint store, so that its successor
need not wait until the machine of the last one is surely off.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from operator_bench.api import ApiError
from operator_bench.lab import PODS, Lab

TRIES = 20
PAUSE_SECONDS = 0.5
_AUDIENCE = "spottraining.io/status"
_TOKENS = "/api/v1/namespaces/{}/serviceaccounts/default/token"


async def report_from(lab: Lab, namespace: str, pods: set[str], collection: str) -> None:
    """One report of each pod; returns when the operator has it in every job's status."""
    jobs = set()
    for pod in await lab.api.items(PODS.format(namespace)):
        if pod["metadata"]["name"] in pods:
            jobs.add(pod["metadata"]["ownerReferences"][0]["name"])
            await _report(lab, pod)

    async def is_so() -> bool:
        known = await lab.api.items(collection)
        return jobs <= {job["metadata"]["name"] for job in known if job.get("status", {}).get("claims")}

    await lab.wait(f"{len(jobs)} reports to be known", is_so, seconds=120, period=1)


async def _report(lab: Lab, pod: dict[str, Any]) -> None:
    metadata = pod["metadata"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    body = {"spec": {"audiences": [_AUDIENCE], "boundObjectRef": bound}}
    answer = await lab.api.create(_TOKENS.format(metadata["namespace"]), body)
    incarnation = int(metadata["labels"]["spottraining.io/incarnation"])
    for _ in range(TRIES):
        try:
            await lab.operator.report(
                metadata["namespace"],
                metadata["ownerReferences"][0]["name"],
                answer["status"]["token"],
                {"incarnation": incarnation, "step": 100},
            )
        except (aiohttp.ClientError, ApiError):
            # All pods have one address here, and the server takes so many connections of one at a time.
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    raise ApiError(0, f"no report of {metadata['name']} was taken in {TRIES} tries")
