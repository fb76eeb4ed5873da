"""What a look does that goes by what is known: by a listing, a watch, or its own last write."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

import pytest
from scripted_api import (
    JOB,
    KEY,
    NEW,
    POD,
    Cluster,
    Json,
    Launched,
    Quiet,
    Stubborn,
    begin,
    launched,
    make_core,
    settled,
    with_version,
)

from spot_operator.core import Core
from spot_operator.known_jobs import MAX_HELD, MAX_VERSIONS, KnownJobs
from spot_operator.kube import KubeError
from spot_operator.model import PodRecord
from spot_operator.names import LABEL_JOB_UID, Reason
from spot_operator.reconcile import CREATED_SECONDS
from spot_operator.rush import RUSH_ENDING_SECONDS, RUSH_LAUNCHES, RUSH_SETTLING_SECONDS
from spot_operator.testing import JOB_UID, NOW, POD_UID, make_gang, make_status
from spot_operator.wire import format_time, status_to_json
from spot_operator.workqueue import ORDINARY, URGENT


async def test_the_first_look_of_a_process_reads_nothing_of_a_job_with_which_all_is_well() -> None:
    cluster = await settled()
    core = await begin(cluster)
    again = await core.reconciler.reconcile(KEY)
    assert cluster.calls == []
    assert core.known.has_seen(KEY, cluster.job["metadata"]["resourceVersion"])
    assert core.reconciler.answer(KEY, 1) is not None
    assert core.nodes.jobs_on("spot-a") == {KEY}
    # The look at what is read says the same.
    core.known.take(KEY)
    assert again == await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["GET digits", "GET pods"]


async def test_what_only_changes_the_status_is_written_by_the_first_look_without_reading() -> None:
    cluster = await settled()
    cluster.is_cordoned = True
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[0] == "PUT status"
    assert set(cluster.calls) == {"PUT status", "POST events"}
    assert cluster.job["status"] != (await settled()).job["status"]


async def test_a_first_look_that_loses_to_another_writer_is_a_look_at_what_is_read() -> None:
    cluster = await settled()
    cluster.is_cordoned = True
    core = await begin(cluster)
    cluster.refuses_writes = 1
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:4] == ["PUT status", "GET digits", "GET pods", "PUT status"]


async def test_a_pod_that_was_heard_to_have_ended_is_replaced_without_reading_the_job_or_its_pods() -> None:
    cluster = await settled()
    core = await begin(cluster)
    pod = cast(Any, cluster._answer("/pods", None))["items"][0]
    ended = {"phase": "Failed", "reason": "Evicted"}
    core.hear_pod(pod | {"metadata": pod["metadata"] | {"resourceVersion": "99"}, "status": ended})
    await core.reconciler.reconcile(KEY)
    # The node is read: it may say why, and a watch that lags must not speak for it.
    assert cluster.calls == ["GET spot-a", "PUT status", "POST pods"]


async def test_a_pod_that_is_to_be_stopped_is_read_before() -> None:
    cluster = await settled()
    core = await begin(cluster)
    cluster.taints = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    core.hear_node(cluster._answer("/nodes/spot-a", None))
    await core.reconciler.reconcile(KEY)
    reads = ("GET digits", "GET pods", "DELETE digits-0c5e1-1-0")
    assert tuple(call for call in cluster.calls if call in reads) == reads


async def test_a_pod_that_an_earlier_process_may_have_created_is_looked_for() -> None:
    """It can be younger than the listing of the pods; the next incarnation would run beside it."""
    cluster = Quiet()
    gang = make_gang(pods=(PodRecord(name=POD, rank=0),))
    cluster.job = {**JOB, "status": status_to_json(make_status(gang=gang))}
    core = make_core(cluster)
    pods = cluster._answer("/pods", None)
    answer = cluster._answer
    cluster._answer = lambda path, body: {"items": []} if path.endswith("/pods") else answer(path, body)  # type: ignore[method-assign]
    await core.list_all()
    cluster._answer = lambda path, body: pods if path.endswith("/pods") else answer(path, body)  # type: ignore[method-assign]
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert "GET pods" in cluster.calls
    assert "POST pods" not in cluster.calls


async def test_a_replacement_is_created_only_after_a_write_has_confirmed_what_was_known() -> None:
    cluster = await settled()
    core = await begin(cluster)
    pod = cast(Any, cluster._answer("/pods", None))["items"][0]
    core.hear_pod(
        pod | {"metadata": pod["metadata"] | {"resourceVersion": "99"}, "status": {"phase": "Failed"}}
    )
    cluster.refuses_writes = 1
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[1:4] == ["PUT status", "GET digits", "GET pods"]


def hears_that_the_pod_is_gone(core: Core, pod: dict[str, Any]) -> None:
    core.hear_pod(pod, deleted=True)


def hears_of_an_edit(core: Core, pod: dict[str, Any]) -> None:
    core.hear_job({**JOB, "metadata": JOB["metadata"] | {"resourceVersion": "99"}})


def hears_that_the_job_is_gone(core: Core, pod: dict[str, Any]) -> None:
    core.hear_job(JOB, deleted=True)


@pytest.mark.parametrize(
    "hear",
    [
        hears_that_the_pod_is_gone,
        hears_of_an_edit,
        hears_that_the_job_is_gone,
    ],
)
async def test_what_was_heard_since_the_listing_makes_the_first_look_read_the_job(
    hear: Callable[[Core, dict[str, Any]], None],
) -> None:
    cluster = await settled()
    core = await begin(cluster)
    hear(core, cast(Any, cluster._answer("/pods", None))["items"][0])
    await core.reconciler.reconcile(KEY)
    reads = [call for call in cluster.calls if call in ("GET digits", "GET pods", "PUT status")]
    assert reads[:2] == ["GET digits", "GET pods"]


async def test_a_watch_that_begins_with_what_was_listed_does_not_make_the_first_look_read_it() -> None:
    cluster = await settled()
    core = await begin(cluster)
    core.hear_pod(cast(Any, cluster._answer("/pods", None))["items"][0])
    core.hear_job(cluster.job)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == []


@pytest.mark.parametrize(("version", "reads"), [("7", []), ("30", ["GET digits", "GET pods"])])
async def test_a_later_listing_makes_a_look_read_the_job_only_if_no_watch_has_told_of_it(
    version: str, reads: list[str]
) -> None:
    cluster = await settled()
    core = await begin(cluster)
    await core.reconciler.reconcile(KEY)
    cluster.job = {**cluster.job, "metadata": cluster.job["metadata"] | {"resourceVersion": version}}
    await core.list_all(spread_seconds=120)
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:2] == reads


async def test_a_stop_does_not_wait_for_the_listing_of_the_jobs() -> None:
    cluster = await settled()
    pods = cast(Any, cluster._answer("/pods", None))["items"]
    owner: dict[str, Any] = pods[0]["metadata"]["ownerReferences"][0]
    ended = {
        "metadata": pods[0]["metadata"] | {"uid": "ended", "ownerReferences": [owner | {"name": "other"}]},
        "spec": pods[0]["spec"],
        "status": {"phase": "Failed"},
    }
    taint = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
    node = {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {"taints": [taint]}}
    due: list[dict[Any, Any]] = []
    core = make_core(cluster)
    answer = cluster._answer

    def listing(path: str, body: Json | None) -> Json:
        if path.endswith("/nodes"):
            return {"items": [node]}
        if path.endswith("/pods"):
            return {"items": [*pods, ended]}
        if path.endswith("/spottrainingjobs"):
            due.append({key: rank for key, (rank, _) in core.queue._due.items()})
        return answer(path, body)

    cluster._answer = listing  # type: ignore[method-assign]
    await core.list_all()
    # Of the pod that has ended nobody knows yet whether its job is over.
    assert due == [{KEY: URGENT}]


async def test_where_a_new_pod_is_gets_noted_without_reading_the_job_or_its_pods() -> None:
    cluster, core = await launched()
    core.hear_job(cluster.job)
    core.hear_pod(cluster.bound())
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["GET spot-a", "PUT status", "POST events"]
    record = cluster.written[-1]["status"]["gang"]["pods"][0]
    assert (record["uid"], record["nodeName"], record["nodeUID"]) == (POD_UID, "spot-a", "node-uid-a")
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["GET spot-a"]


async def test_what_is_to_be_said_of_a_launch_is_said_by_the_next_look_with_the_time_of_the_launch() -> None:
    cluster = Launched()
    now = NOW
    core = make_core(cluster, clock=lambda: now)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert core.reconciler.num_untold() == 1
    now += timedelta(seconds=20)
    await core.reconciler.reconcile(KEY)
    assert [event["firstTimestamp"] for event in cluster.events] == [format_time(NOW)]
    await core.reconciler.reconcile(KEY)
    assert len(cluster.events) == 1


async def test_what_is_to_be_said_of_a_launch_is_said_before_the_process_ends_or_the_job_is_forgotten() -> (
    None
):
    cluster, core = await launched()
    await core.reconciler.tell_all()
    assert cluster.calls == ["POST events"]
    assert core.reconciler.num_untold() == 0
    await core.reconciler.tell_all()
    assert cluster.calls == ["POST events"]

    cluster, core = await launched()
    cluster.job = {**cluster.job, "spec": cluster.job["spec"] | {"managedBy": "example.com/other"}}
    core.hear_job({**cluster.job, "metadata": cluster.job["metadata"] | {"resourceVersion": "30"}})
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["GET digits", "POST events"]


async def test_a_new_pod_of_which_no_watch_has_told_makes_the_look_read_all() -> None:
    cluster, core = await launched()
    cluster.bound()
    await core.reconciler.reconcile(KEY)
    assert [call for call in cluster.calls if call in ("GET digits", "GET pods", "PUT status")] == [
        "GET digits",
        "GET pods",
        "PUT status",
    ]
    assert len(cluster.written) == 2


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


async def test_what_is_known_creates_nothing_where_there_is_nothing_to_write() -> None:
    """A pod that a quota refuses is asked for again and again, and the job may be gone meanwhile."""
    cluster, now = Launched(), NOW
    core = make_core(cluster, clock=lambda: now)
    cluster.refuses_pods = True
    core.hear_job(NEW)
    for _ in range(3):
        await core.reconciler.reconcile(KEY)
    assert "GET digits" not in cluster.calls
    cluster.calls.clear()
    now += timedelta(seconds=11)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["GET digits", "GET pods", "POST pods"]


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


async def test_where_many_pods_are_launched_what_there_is_to_note_of_them_waits() -> None:
    cluster, core = await launched()
    for _ in range(RUSH_LAUNCHES - 1):  # the launch itself is one
        core._rush.note_launch()
    core.queue._due.clear()
    core.hear_pod(cluster.bound())
    rank, due = core.queue._due[KEY]
    assert rank == ORDINARY
    assert due - asyncio.get_running_loop().time() > RUSH_SETTLING_SECONDS - 1
    told = {"deletionTimestamp": "2026-11-23T12:02:00Z"}
    core.hear_pod(
        {**cluster.pods[0], "metadata": cluster.pods[0]["metadata"] | told | {"resourceVersion": "10"}}
    )
    assert 1 < core.queue._due[KEY][1] - asyncio.get_running_loop().time() <= RUSH_ENDING_SECONDS
    ended = with_version(cluster.pods[0] | {"status": {"phase": "Failed"}}, "11")
    core.hear_pod(ended)
    assert core.queue._due[KEY][0] == URGENT


# --- what is heard during a look -------------------------------------------------------------


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
    await cluster.core.reconciler.reconcile(KEY)
    assert cluster.core.reconciler.keys() == frozenset()


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


# --- pods that a watch by label loses sight of ------------------------------------------------


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
    await cluster.core.list_all()
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
    await cluster.look()
    assert cluster.job["status"]["incarnation"] == 1


@pytest.mark.parametrize(("code", "is_present"), [(404, False), (409, True)])
async def test_a_pod_that_a_deletion_does_not_find_is_gone(code: int, is_present: bool) -> None:
    """What answers 409 may be a webhook that keeps it."""
    cluster = await watched()
    cluster.job = {**cluster.job, "spec": cluster.job["spec"] | {"suspend": True}}
    cluster.core.hear_job(with_version(cluster.job, "90"))
    send = cluster._send

    async def refuse(method: str, path: str, *rest: Any) -> Any:
        if method == "DELETE":
            return code, json.dumps({"message": "no"}), {}
        return await send(method, path, *rest)

    cluster._send = refuse  # type: ignore[method-assign]
    await cluster.look()
    assert bool(cluster.core.pods.present(JOB_UID)) == is_present


async def test_a_job_that_a_listing_does_not_show_any_more_is_read_and_forgotten() -> None:
    cluster = await watched()
    answer = cluster._answer
    cluster._answer = lambda path, body: (  # type: ignore[method-assign]
        {"items": []} if path.endswith("/spottrainingjobs") else answer(path, body)
    )
    cluster.core.queue._due.clear()
    await cluster.core.list_all(spread_seconds=120)
    assert KEY in cluster.core.queue._due
    assert "GET digits" in await cluster.look()


# --- what is held ----------------------------------------------------------------------------


def named(name: str, version: str = "1") -> tuple[tuple[str, str], Json]:
    return ("team", name), {"metadata": {"name": name, "namespace": "team", "resourceVersion": version}}


def test_of_many_jobs_those_are_held_to_which_something_happened_last() -> None:
    known = KnownJobs(lambda: NOW)
    for number in range(MAX_HELD):
        known.show(*named(str(number)))
    known.keep(*named("0"))
    known.show(*named("one more"))
    assert known.take(("team", "1")) is None
    assert known.take(("team", "0")) is not None


def test_own_versions_are_no_news_as_far_back_as_a_watch_may_lag() -> None:
    known = KnownJobs(lambda: NOW)
    key, job = named("a", "0")
    known.note_read(key, job)
    for number in range(1, MAX_VERSIONS + 1):
        known.note_written(key, named("a", str(number))[1])
    assert [known.has_seen(key, str(number)) for number in (0, 1, MAX_VERSIONS)] == [False, True, True]
    known.keep(key, job)
    known.forget(key)
    assert known.take(key) is None
    assert not known.has_seen(key, "1")
