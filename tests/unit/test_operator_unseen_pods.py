"""Pods that a watch, or a list, by label loses sight of, and what is gone without a word."""

import json
from typing import Any, cast

import pytest
from scripted_api import (
    JOB,
    KEY,
    POD,
    Json,
    Quiet,
    make_core,
    with_version,
)

from spot_operator.names import LABEL_JOB_UID, Reason
from spot_operator.testing import JOB_UID, make_status
from spot_operator.wire import status_to_json


class Watched(Quiet):
    """A plain container that runs on a node that is well; `pod` is how the server has it."""

    def __init__(self) -> None:
        super().__init__()
        self.job = {**JOB, "status": status_to_json(make_status(claims=False))}
        self.pod: dict[str, Any] = cast(Any, super()._answer("/pods", None))["items"][0]
        self.core = make_core(self)

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/status") and body is not None:
            self.job = with_version(body, str(int(self.job["metadata"]["resourceVersion"]) + 1))
            return self.job
        if path.endswith("/pods") and body is None:
            has_label = self.pod["metadata"]["labels"].get(LABEL_JOB_UID) == JOB_UID
            return {"items": [self.pod] if has_label else []}
        if path.endswith(POD) and body is None:
            return self.pod
        found = super()._answer(path, body)
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T11:00:00Z"}
        nodes = found["items"] if path.endswith("/nodes") else [found] if "/nodes/" in path else []
        for node in nodes:
            node["status"] = {"conditions": [ready]}
        return found

    def change(self, version: str, *, status: Json | None = None, **metadata: Any) -> dict[str, Any]:
        self.pod = with_version({**self.pod, "metadata": self.pod["metadata"] | metadata}, version)
        if status is not None:
            self.pod["status"] = status
        return self.pod

    async def look(self) -> list[str]:
        self.calls.clear()
        await self.core.reconciler.reconcile(KEY)
        return self.calls

    def reason(self) -> str:
        conditions = self.job["status"]["conditions"]
        return next(str(each["reason"]) for each in conditions if each["type"] == "PodsReady")


async def watched() -> Watched:
    cluster = Watched()
    await cluster.core.list_all(is_first=True)
    for _ in range(3):
        await cluster.look()
    return cluster


TOLD_TO_STOP = {"deletionTimestamp": "2026-11-23T12:02:00Z", "deletionGracePeriodSeconds": 120}
NO_LABEL = {"labels": {}}
LABEL = {"labels": {LABEL_JOB_UID: JOB_UID}}


@pytest.mark.parametrize("is_listed", [False, True])
async def test_a_pod_whose_label_came_back_is_there_while_it_ends(is_listed: bool) -> None:
    cluster = await watched()
    cluster.core.hear_pod(cluster.change("50", **NO_LABEL), deleted=True)
    await cluster.look()
    cluster.core.hear_pod(cluster.change("51", **LABEL))
    assert f"GET {POD}" not in await cluster.look()
    if is_listed:
        await cluster.core.list_all(spread_seconds=120)
        await cluster.look()
    cluster.core.hear_pod(cluster.change("52", **TOLD_TO_STOP))
    assert "POST pods" not in await cluster.look()
    assert cluster.job["status"]["incarnation"] == 1


async def test_a_pod_that_loses_its_label_while_it_ends_is_there_all_the_same() -> None:
    cluster = await watched()
    cluster.core.hear_pod(cluster.change("52", **TOLD_TO_STOP))
    await cluster.look()
    cluster.core.hear_pod(cluster.change("53", **NO_LABEL), deleted=True)
    assert "POST pods" not in await cluster.look()


@pytest.mark.parametrize(
    "stripped", [{"ownerReferences": []}, {"labels": {LABEL_JOB_UID: "another"}}], ids=["owner", "label"]
)
async def test_a_pod_that_a_list_would_not_show_is_asked_for_by_its_name(stripped: dict[str, Any]) -> None:
    cluster = await watched()
    cluster.core.hear_pod(cluster.change("60", **stripped))
    await cluster.look()
    for _ in range(2):
        assert cluster.reason() == Reason.POD_UNMARKED
        await cluster.core.list_all(spread_seconds=120)
        await cluster.look()
    ended = {"exitCode": 1, "finishedAt": "2026-11-23T11:59:30Z"}
    status = {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
    }
    cluster.core.hear_pod(cluster.change("61", status=status))
    await cluster.look()
    assert cluster.job["status"]["recentRestarts"]


async def test_a_pod_of_another_namespace_that_names_the_job_as_its_owner_is_none_of_it() -> None:
    cluster = await watched()
    metadata = {"namespace": "other", "name": POD.replace("-1-0", "-7-0"), "uid": "other"}
    waiting = {"spec": {"containers": [{"name": "trainer"}]}, "status": {"phase": "Pending"}}
    cluster.core.hear_pod({"metadata": cluster.pod["metadata"] | metadata, **waiting})
    assert "GET pods" not in await cluster.look()  # nor is there anything to make sure of
    assert cluster.job["status"]["incarnation"] == 1


@pytest.mark.parametrize(("code", "is_present"), [(404, False), (409, True)])
async def test_a_pod_that_a_deletion_does_not_find_is_gone(code: int, is_present: bool) -> None:
    """What answers 409 may be a webhook that keeps it."""
    cluster = await watched()
    cluster.job = {**cluster.job, "spec": cluster.job["spec"] | {"suspend": True}}
    cluster.job["metadata"] = cluster.job["metadata"] | {"generation": 2}
    cluster.core.hear_job(with_version(cluster.job, "90"))
    send = cluster._send

    async def refuse(method: str, path: str, *rest: Any) -> Any:
        if method == "DELETE":
            return code, json.dumps({"message": "no"}), {}
        return await send(method, path, *rest)

    cluster._send = refuse  # type: ignore[method-assign]
    await cluster.look()
    assert bool(cluster.core.pods.present(JOB_UID)) == is_present


@pytest.mark.parametrize("is_looked_at", [True, False], ids=["looked at", "only listed"])
async def test_a_job_that_a_listing_does_not_show_any_more_is_read_and_forgotten(is_looked_at: bool) -> None:
    cluster = Watched()
    await cluster.core.list_all(is_first=True)
    if is_looked_at:
        await cluster.look()
    answer, send = cluster._answer, cluster._send

    async def not_found(method: str, path: str, *rest: Any) -> Any:
        if path.endswith("/digits"):
            await send(method, path, *rest)
            return 404, "{}", {}
        return await send(method, path, *rest)

    cluster._send = not_found  # type: ignore[method-assign]
    cluster._answer = lambda path, body: (  # type: ignore[method-assign]
        {"items": []} if path.endswith("/spottrainingjobs") else answer(path, body)
    )
    cluster.core.queue._due.clear()
    await cluster.core.list_all()
    assert KEY in cluster.core.queue._due
    assert "GET digits" in await cluster.look()
    assert cluster.core.known.keys() == frozenset()


async def test_an_end_that_one_look_has_read_is_gone_by_in_the_next() -> None:
    cluster = await watched()
    cluster.change("70", status={"phase": "Failed"})
    cluster.core.hear_job(with_version(cluster.job, "90"))
    await cluster.look()
    assert [pod["status"]["phase"] for pod in cluster.core.pods.present(JOB_UID)] == ["Failed"]


async def test_what_is_heard_while_a_look_reads_is_not_taken_back_by_what_it_has_read() -> None:
    cluster = await watched()
    answer = cluster._answer

    def told_meanwhile(path: str, body: Json | None) -> Json:
        found = answer(path, body)
        if path.endswith("/pods") and body is None:
            ended = with_version({**cluster.pod, "status": {"phase": "Failed"}}, "71")
            cluster.core.hear_pod(ended)
        return found

    cluster._answer = told_meanwhile  # type: ignore[method-assign]
    cluster.core.hear_job(with_version(cluster.job, "90"))
    await cluster.look()
    assert [pod["status"]["phase"] for pod in cluster.core.pods.present(JOB_UID)] == ["Failed"]
