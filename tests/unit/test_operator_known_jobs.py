"""What a look does that goes by what is known: by a listing, a watch, or its own last write."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from scripted_api import (
    JOB,
    KEY,
    NEW,
    POD,
    Json,
    Launched,
    Quiet,
    begin,
    launched,
    make_core,
    settled,
    with_version,
)

from spot_operator.core import Core
from spot_operator.known_jobs import MAX_HELD, MAX_VERSIONS, KnownJobs
from spot_operator.model import PodRecord
from spot_operator.pod_book import JobPod
from spot_operator.rush import RUSH_ENDING_SECONDS, RUSH_LAUNCHES, RUSH_SETTLING_SECONDS
from spot_operator.testing import JOB_UID, NOW, POD_UID, make_gang, make_outcome, make_status
from spot_operator.wire import format_time, status_to_json
from spot_operator.workqueue import ORDINARY, URGENT
from spot_trainer.contract import OutcomeKind


async def test_the_first_look_of_a_process_reads_nothing_of_a_job_with_which_all_is_well() -> None:
    cluster = await settled()
    core = await begin(cluster)
    again = await core.reconciler.reconcile(KEY)
    assert cluster.calls == []
    assert core.known.has_seen(KEY, cluster.job["metadata"]["resourceVersion"])
    assert core.reconciler.answer(JobPod(KEY, JOB_UID, 1)) is not None
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


@pytest.mark.parametrize("claims", [True, False])
async def test_a_pod_that_is_to_be_stopped_is_read_before(claims: bool) -> None:
    cluster = await settled(claims=claims)
    core = await begin(cluster)
    cluster.taints = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    core.hear_node(cluster._answer("/nodes/spot-a", None))
    await core.reconciler.reconcile(KEY)
    reads = ("GET digits", "GET pods", "DELETE digits-0c5e1-1-0")
    assert tuple(call for call in cluster.calls if call in reads) == reads


async def test_a_pod_that_is_ending_is_read_before_it_is_judged_by_its_node() -> None:
    """It may have completed, and the watch be yet to say so."""
    cluster = await settled()
    core = await begin(cluster)
    pod = cast(Any, cluster._answer("/pods", None))["items"][0]
    pod["metadata"] |= {"deletionTimestamp": "2026-11-23T11:59:00Z", "resourceVersion": "99"}
    core.hear_pod(pod)
    outcome = make_outcome(OutcomeKind.COMPLETE, "Done").to_json()
    ended = {"exitCode": 0, "finishedAt": "2026-11-23T11:59:30Z", "message": outcome}
    states = [{"name": "trainer", "state": {"terminated": ended}}]
    completed = {**pod, "status": {"phase": "Succeeded", "containerStatuses": states}}
    answer = cluster._answer

    def without_node(path: str, body: Json | None) -> Json:
        if path.endswith("/pods") and body is None:
            return {"items": [completed]}
        return answer(path, body)

    async def not_found(method: str, path: str, *rest: Any) -> Any:
        if "/nodes/" in path:
            return 404, "{}", {}
        return await send(method, path, *rest)

    send = cluster._send
    cluster._answer, cluster._send = without_node, not_found  # type: ignore[method-assign]
    core.hear_node(answer("/nodes/spot-a", None), deleted=True)
    await core.reconciler.reconcile(KEY)
    assert "POST pods" not in cluster.calls
    assert cluster.job["status"]["phase"] == "Complete"


async def test_a_pod_that_an_earlier_process_may_have_created_is_looked_for() -> None:
    """It can be younger than the listing of the pods; the next incarnation would run beside it."""
    cluster = Quiet()
    gang = make_gang(pods=(PodRecord(name=POD, rank=0),))
    cluster.job = {**JOB, "status": status_to_json(make_status(gang=gang))}
    core = make_core(cluster)
    pods = cluster._answer("/pods", None)
    answer = cluster._answer
    cluster._answer = lambda path, body: {"items": []} if path.endswith("/pods") else answer(path, body)  # type: ignore[method-assign]
    await core.list_all(is_first=True)
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
    await core.list_all(is_first=True)
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
