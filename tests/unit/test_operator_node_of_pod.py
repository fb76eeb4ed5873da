"""Whose word counts about the node of a pod: never that of a watch that knows only the machine before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from scripted_api import JOB, KEY, POD, Quiet, begin, settled

from spot_operator.decide import decide
from spot_operator.model import PodRecord, PolicySettings
from spot_operator.names import Cause
from spot_operator.testing import NOW, POD_UID, make_gang, make_node, make_observation, make_status
from spot_operator.wire import status_to_json

BEFORE = {"metadata": {"name": "spot-a", "uid": "node-uid-before", "resourceVersion": "1"}, "spec": {}}


def with_status(cluster: Quiet, **changes: Any) -> None:
    cluster.job = {**JOB, "status": status_to_json(make_status(**changes))}


async def test_a_node_that_is_known_by_its_recorded_uid_is_not_read_again() -> None:
    cluster = await settled()
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    assert "GET spot-a" not in cluster.calls


async def test_the_node_whose_uid_is_about_to_be_recorded_is_read() -> None:
    """A machine that came back under its name would be taken for the one before."""
    cluster = await settled()
    record = PodRecord(name=POD, rank=0, uid=POD_UID)
    with_status(cluster, gang=replace(make_gang(), pods=(record,)))
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    assert "GET spot-a" in cluster.calls


@pytest.mark.parametrize("claims", [True, False])
async def test_a_pod_is_not_given_up_because_a_watch_still_knows_the_machine_before(claims: bool) -> None:
    cluster = await settled(claims=claims)
    core = await begin(cluster)
    core.hear_node(BEFORE)
    await core.reconciler.reconcile(KEY)
    assert "GET spot-a" in cluster.calls
    assert not [call for call in cluster.calls if call.startswith(("DELETE", "POST"))]
    (record,) = cluster.job["status"]["gang"]["pods"]
    assert "nodeGoneTime" not in record


async def test_the_node_of_a_verdict_is_read_where_a_watch_knows_it_by_another_uid() -> None:
    cluster = await settled()
    restart = {
        "incarnation": 1,
        "time": "2026-11-23T11:59:00Z",
        "cause": Cause.FAILURE,
        "row": "20",
        "charged": True,
        "evidence": "exit code 1",
        "podUID": "pod-uid-0",
        "nodeName": "spot-b",
        "nodeUID": "node-uid-b",
        "capacityType": "spot",
    }
    cluster.job = {**cluster.job, "status": cluster.job["status"] | {"recentRestarts": [restart]}}
    core = await begin(cluster)
    core.hear_node({**BEFORE, "metadata": BEFORE["metadata"] | {"name": "spot-b"}})
    await core.reconciler.reconcile(KEY)
    assert "GET spot-b" in cluster.calls


def test_a_node_that_came_back_as_the_machine_that_it_was_is_gone_no_more() -> None:
    """Or the next time that it goes, a plain container's successor would not be held back."""
    settings, status = PolicySettings(), make_status(claims=False)
    for seconds_, node in ((0, None), (30, make_node(uid="node-uid-again"))):
        seen = make_observation(status=status, nodes={"spot-a": node})
        status = decide(seen, NOW + timedelta(seconds=seconds_), settings).status
    assert status.gang is not None
    assert status.gang.pods[0].node_gone_time is None
    lost = make_observation(status=status, nodes={"spot-a": None})
    gone = NOW + timedelta(hours=1)
    decision = decide(lost, gone, settings)
    assert decision.status.incarnation == 1
    later = gone + timedelta(seconds=settings.plain_take_over_seconds)
    lost = replace(lost, status=decision.status)
    assert decide(lost, later - timedelta(seconds=1), settings).status.incarnation == 1
    assert decide(lost, later, settings).status.incarnation == 2
