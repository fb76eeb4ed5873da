"""The metric of how long it takes from a pod's end to its replacement."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from scripted_api import KEY, Json, Quiet, begin, settled, with_version

from spot_operator import metrics
from spot_operator.core import Core
from spot_operator.kube import KubeError


def num_measured() -> float:
    samples = next(iter(metrics.REPLACE_SECONDS.collect())).samples
    return next(sample.value for sample in samples if sample.name.endswith("_count"))


def the_pod(cluster: Quiet) -> Json:
    return cast(Json, cast(Any, cluster._answer("/pods", None))["items"][0])


async def the_pod_fails(cluster: Quiet, core: Core) -> None:
    core.hear_pod(with_version({**the_pod(cluster), "status": {"phase": "Failed"}}, "99"))
    await core.reconciler.reconcile(KEY)


async def its_node_is_going(cluster: Quiet, core: Core) -> None:
    cluster.taints = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    core.hear_node(cluster._answer("/nodes/spot-a", None))
    await core.reconciler.reconcile(KEY)


@pytest.mark.parametrize(("happens", "expected"), [(the_pod_fails, 1), (its_node_is_going, 0)])
async def test_a_successor_that_is_prepared_beside_its_predecessor_has_replaced_nothing(
    happens: Callable[[Quiet, Core], Awaitable[None]], expected: int
) -> None:
    cluster = await settled()
    core = await begin(cluster)
    core.reconciler._replaces_since[KEY] = 0.0  # a job was suspended before its next pod could be created
    before = num_measured()
    await happens(cluster, core)
    assert "POST pods" in cluster.calls
    assert num_measured() - before == expected


async def test_a_replacement_that_fails_first_is_measured_when_it_is_there() -> None:
    cluster = await settled()
    core = await begin(cluster)
    answer, send, fails = cluster._answer, cluster._send, True
    failed = with_version({**the_pod(cluster), "status": {"phase": "Failed"}}, "99")

    def pods_ended(path: str, body: Json | None) -> Json:
        return {"items": [failed]} if path.endswith("/pods") and body is None else answer(path, body)

    async def failing(method: str, path: str, *rest: Any) -> Any:
        if fails and method == "POST" and path.endswith("/pods"):
            return 500, "{}", {}
        return await send(method, path, *rest)

    cluster._answer, cluster._send = pods_ended, failing  # type: ignore[method-assign]
    before = num_measured()
    with pytest.raises(KubeError):
        await the_pod_fails(cluster, core)
    assert num_measured() == before
    fails = False
    await core.reconciler.reconcile(KEY)
    assert num_measured() - before == 1
