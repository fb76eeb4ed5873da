"""The metric of how long it takes from a pod's end to its replacement."""

from typing import Any, cast

import pytest
from scripted_api import KEY, POD, Json, Quiet, begin, settled, with_version

from spot_operator import metrics
from spot_operator.core import Core
from spot_operator.testing import POD_UID


def num_measured() -> float:
    samples = next(iter(metrics.REPLACE_SECONDS.collect())).samples
    return next(sample.value for sample in samples if sample.name.endswith("_count"))


def the_pod(cluster: Quiet) -> Json:
    return cast(Json, cast(Any, cluster._answer("/pods", None))["items"][0])


def earlier(pod: Json, phase: str) -> Json:
    """One of the job's that ended long ago."""
    metadata = pod["metadata"] | {"name": POD.replace("-1-0", "-0-0"), "uid": "earlier"}
    return {**pod, "metadata": metadata, "status": {"phase": phase}}


async def the_pod_fails(cluster: Quiet, core: Core) -> None:
    core.hear_pod(with_version({**the_pod(cluster), "status": {"phase": "Failed"}}, "99"))
    await core.reconciler.reconcile(KEY)


async def its_node_is_going(cluster: Quiet, core: Core) -> None:
    cluster.taints = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    core.hear_node(cluster._answer("/nodes/spot-a", None))
    await core.reconciler.reconcile(KEY)


@pytest.mark.parametrize(("happens", "expected"), [(the_pod_fails, 1), (its_node_is_going, 0)])
async def test_a_successor_that_is_prepared_beside_its_predecessor_has_replaced_nothing(
    happens: Any, expected: int
) -> None:
    cluster = await settled()
    core = await begin(cluster)
    for phase in ("Running", "Failed"):
        core.pods.hear(earlier(the_pod(cluster), phase))
    before = num_measured()
    await happens(cluster, core)
    assert "POST pods" in cluster.calls
    assert num_measured() - before == expected
    assert core.pods.end_heard(KEY) is None
    assert core.pods.get(POD_UID) is None or not expected
