"""What is heard of a job while somebody looks at it, and of its own writes."""

import contextlib
import json
from collections.abc import Callable, Mapping

import pytest
from scripted_api import (
    JOB,
    KEY,
    NEW,
    Cluster,
    Json,
    Launched,
    Stubborn,
    begin,
    make_core,
    settled,
    with_version,
)

from spot_operator.core import Core
from spot_operator.kube import KubeError
from spot_operator.reconcile import CREATED_SECONDS


@pytest.mark.parametrize("when", ["during the look", "after it"])
async def test_an_edit_is_never_overlooked_for_what_was_written_before(when: str) -> None:
    cluster = Launched()
    core = make_core(cluster)
    core.hear_job(NEW)
    answer = cluster._answer

    def edit() -> None:
        metadata = cluster.job["metadata"] | {"resourceVersion": "20", "generation": 2}
        core.hear_job({**cluster.job, "metadata": metadata})

    def with_edit(path: str, body: Json | None) -> Json:
        if path.endswith("/pods") and body is not None:
            edit()
        return answer(path, body)

    if when == "during the look":
        cluster._answer = with_edit  # type: ignore[method-assign]
    await core.reconciler.reconcile(KEY)
    if when == "after it":
        edit()
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:2] == ["GET digits", "GET pods"]


async def test_a_watch_that_is_faster_than_the_answer_to_a_write_causes_no_look() -> None:
    cluster = Launched()
    core = make_core(cluster)
    core.hear_job(NEW)
    core.queue._due.clear()
    answer = cluster._answer

    def told_first(path: str, body: Json | None) -> Json:
        found = answer(path, body)
        if path.endswith("/status"):
            core.hear_job(found)
        return found

    cluster._answer = told_first  # type: ignore[method-assign]
    assert await core.reconciler.reconcile(KEY) == CREATED_SECONDS
    assert not core.queue._due
    cluster.calls.clear()
    core.hear_pod(cluster.bound())
    await core.reconciler.reconcile(KEY)
    assert "GET digits" not in cluster.calls


@pytest.mark.parametrize("fails", [False, True])
async def test_what_others_write_while_a_look_is_under_way_leads_to_another_at_once(fails: bool) -> None:
    cluster = Stubborn("PUT status", 500) if fails else Cluster()
    core = make_core(cluster)
    answer = cluster._answer

    def told_of_an_edit(path: str, body: Json | None) -> Json:
        if path.endswith("/pods"):
            core.hear_job(with_version(JOB, "30"))
        return answer(path, body)

    cluster._answer = told_of_an_edit  # type: ignore[method-assign]
    assert await core.reconciler.reconcile(KEY) == 0
    cluster._answer = answer  # type: ignore[method-assign]
    with contextlib.suppress(KubeError):
        assert await core.reconciler.reconcile(KEY) != 0


class Told(Cluster):
    """Whenever the job is read, something is heard before the answer is there."""

    def __init__(self, hear: Callable[[Core], None]) -> None:
        super().__init__()
        self.core = make_core(self)
        self.job: Json | None = None
        self._hear = hear

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if method == "GET" and path.endswith("/digits"):
            self._hear(self.core)
            if self.job is None:
                return 404, json.dumps({"reason": "NotFound"}), {}
            return 200, json.dumps(self.job), {}
        return await super()._send(method, path, query, body)


async def test_a_job_that_is_heard_to_be_gone_while_a_look_finds_it_gone_is_forgotten() -> None:
    cluster = Told(lambda core: core.hear_job(JOB, deleted=True))
    cluster.core.known.note_read(KEY, JOB)
    await cluster.core.reconciler.reconcile(KEY)
    assert cluster.core.known.keys() == frozenset()


async def test_a_job_that_is_made_again_while_a_look_finds_it_gone_is_looked_at_at_once() -> None:
    again = {**NEW, "metadata": NEW["metadata"] | {"uid": "another", "resourceVersion": "40"}}
    cluster = Told(lambda core: core.hear_job(again))
    assert await cluster.core.reconciler.reconcile(KEY) == 0


async def test_a_job_that_is_handed_over_while_a_look_reads_it_is_left_alone() -> None:
    other = with_version({**JOB, "spec": JOB["spec"] | {"managedBy": "example.com/other"}}, "30")
    cluster = Told(lambda core: core.hear_job(other))
    cluster.job = other
    await cluster.core.reconciler.reconcile(KEY)
    assert not any(call.startswith(("PUT", "POST")) for call in cluster.calls)


async def test_an_edit_during_a_look_does_not_wait_however_many_came_before() -> None:
    cluster = await settled()
    core = await begin(cluster)
    answer, version = cluster._answer, 100

    def edited(path: str, body: Json | None) -> Json:
        nonlocal version
        if path.endswith("/pods") and body is None:
            version += 1
            cluster.job = with_version(cluster.job, str(version))
            core.hear_job(cluster.job)
        return answer(path, body)

    core.hear_job(with_version(JOB, "99"))
    cluster._answer = edited  # type: ignore[method-assign]
    assert [await core.reconciler.reconcile(KEY) for _ in range(12)] == [0] * 12
