"""One look through the real observer and reconciler, against scripted answers of an API server."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import aiohttp
import pytest

from spot_operator import metrics
from spot_operator.core import Core
from spot_operator.credentials import Credentials
from spot_operator.kube import Kube, KubeError
from spot_operator.model import PodRecord
from spot_operator.names import LABEL_JOB_UID, Reason
from spot_operator.observe import Observer
from spot_operator.reconcile import CREATED_SECONDS
from spot_operator.rush import RUSH_LAUNCHES, RUSH_SETTLING_SECONDS
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID, NOW, POD_UID, make_gang, make_pod, make_status
from spot_operator.wire import StatusUnreadable, format_time, status_to_json
from spot_operator.workqueue import ORDINARY, URGENT

Json = Mapping[str, Any]
POD = "digits-0c5e1-1-0"
JOB: dict[str, Any] = {
    "metadata": {
        "name": "digits",
        "namespace": "team",
        "uid": JOB_UID,
        "generation": 1,
        "creationTimestamp": "2026-11-23T11:00:00Z",
        "resourceVersion": "7",
    },
    "spec": {
        "template": {"spec": {"containers": [{"name": "trainer", "image": "train"}]}},
        "checkpoint": {"s3": {"bucket": "runs"}},
        "capacity": {"preset": "Karpenter"},
    },
    "status": status_to_json(make_status()),
}


KEY = ("team", "digits")
NEW: dict[str, Any] = {
    "metadata": JOB["metadata"] | {"creationTimestamp": "2026-11-23T11:59:59Z"},
    "spec": JOB["spec"],
}
"""As the watch tells of it when it has just been applied."""


class Cluster(Kube):
    """A job that runs on a node that has just been cordoned."""

    def __init__(self) -> None:
        session = cast(aiohttp.ClientSession, object())
        super().__init__(Credentials(server="http://x"), timeout_seconds=1, session=session)
        self.calls: list[str] = []
        self.refuses_writes = 0

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        self.calls.append(f"{method} {path.rpartition('/')[2]}")
        if method == "PUT" and self.refuses_writes:
            self.refuses_writes -= 1
            return 409, json.dumps({"reason": "Conflict", "message": "the object has been modified"}), {}
        return 200, json.dumps(self._answer(path, body)), {}

    def _answer(self, path: str, body: Json | None) -> Json:
        if body is not None:
            return {**body, "metadata": {"uid": POD_UID} | body.get("metadata", {})}
        if path.endswith("/pods"):
            owner = {"kind": "SpotTrainingJob", "name": "digits", "uid": JOB_UID, "controller": True}
            running = {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T11:58:25Z"}}}
            metadata = {"name": POD, "namespace": "team", "uid": POD_UID, "ownerReferences": [owner]}
            metadata["labels"] = {LABEL_JOB_UID: JOB_UID}
            spec = {"nodeName": "spot-a", "containers": [{"name": "trainer"}]}
            status = {"phase": "Running", "containerStatuses": [running]}
            return {"items": [{"metadata": metadata, "spec": spec, "status": status}]}
        if path.endswith(POD):
            return cast(Any, self._answer("/pods", None))["items"][0]
        if "/nodes/" in path:
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {"unschedulable": True}}
        return JOB


def make_core(cluster: Cluster, clock: Callable[[], datetime] = lambda: NOW) -> Core:
    return Core(
        cluster,
        Settings(namespace="system"),
        component="operator-0",
        status_ca=lambda: "",
        clock=clock,
        monotonic=lambda: 0.0,
    )


async def test_the_first_look_at_a_new_job_reads_nothing() -> None:
    cluster = Cluster()
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["PUT status", "POST pods"]


async def test_what_a_watch_says_of_a_new_job_counts_once_and_only_if_a_write_confirms_it() -> None:
    cluster = Cluster()
    cluster.refuses_writes = 1
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:3] == ["PUT status", "GET digits", "GET pods"]


async def test_an_old_job_without_a_status_is_read_since_it_may_have_pods() -> None:
    cluster = Cluster()
    core = make_core(cluster)
    core.hear_job({**NEW, "metadata": JOB["metadata"]})
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:2] == ["GET digits", "GET pods"]


async def test_a_new_job_about_which_there_is_nothing_to_write_is_read() -> None:
    cluster = Cluster()
    core = make_core(cluster)
    going = NEW["metadata"] | {"deletionTimestamp": "2026-11-23T11:59:00Z"}
    core.hear_job(NEW | {"metadata": going})
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[:2] == ["GET digits", "GET pods"]


async def test_a_job_that_is_not_new_is_read_whatever_a_watch_said_of_it() -> None:
    for told in ([JOB], [NEW, JOB]):
        cluster = Cluster()
        core = make_core(cluster)
        for job in told:
            core.hear_job(job)
        await core.reconciler.reconcile(KEY)
        assert cluster.calls[:2] == ["GET digits", "GET pods"]
        # A watch that lags brings it up once more, as it was before anybody had looked.
        core.hear_job(NEW)
        await core.reconciler.reconcile(KEY)
        assert "POST pods" not in cluster.calls


async def test_a_new_job_that_is_gone_before_its_look_is_not_looked_up_in_memory() -> None:
    cluster = Cluster()
    core = make_core(cluster)
    core.hear_job(NEW)
    core.hear_job(NEW, deleted=True)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls[0] == "GET digits"


async def test_what_a_look_decides_is_in_the_answer_to_the_next_report() -> None:
    core = make_core(Cluster())
    await core.reconciler.reconcile(KEY)
    answer = core.reconciler.answer(KEY, 1)
    assert answer is not None
    assert json.loads(answer)["directives"]["checkpointNow"].startswith("hint-")


def test_the_node_whose_uid_is_about_to_be_recorded_is_read_live() -> None:
    """A watch that lags may still show the machine before, under the same name."""
    known = make_status()
    assert Observer._nodes_to_judge_by(known, (make_pod(),)) == set()
    gang = make_gang()
    record = type(gang.pods[0])(name=POD, rank=0, uid=POD_UID)
    new = make_status(gang=type(gang)(**(vars(gang) | {"pods": (record,)})))
    assert Observer._nodes_to_judge_by(new, (make_pod(),)) == {"spot-a"}


class Priced(Cluster):
    """Another job of the pool has lost spot nodes; the node of this one says what it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Json] = []

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/other"):
            seen = {"zones": [{"zone": "a", "interruptions": 3, "nodeSeconds": 36000.0}]}
            metadata = {**JOB["metadata"], "name": "other", "uid": "other"}
            condition = {
                "type": "Complete",
                "status": "True",
                "reason": "x",
                "message": "",
                "observedGeneration": 1,
            }
            condition["lastTransitionTime"] = "2026-11-23T11:00:00Z"
            status = {"interruptionRate": seen, "conditions": [condition]}
            return {**JOB, "metadata": metadata, "status": status}
        if "/nodes/" in path:
            annotations = {"spottraining.io/price-per-node-hour": "0.36"}
            return {
                "metadata": {"name": "spot-a", "uid": "node-uid-a", "annotations": annotations},
                "spec": {},
            }
        if body is not None and path.endswith("/status"):
            self.written.append(body["status"])
        return super()._answer(path, body)


async def test_a_job_is_told_the_price_of_its_node_and_what_others_of_its_pool_have_seen() -> None:
    cluster = Priced()
    core = Core(
        cluster,
        Settings(namespace="system"),
        component="operator-0",
        status_ca=lambda: "",
        clock=lambda: NOW + timedelta(seconds=100),
        monotonic=lambda: 0.0,
    )
    for name in ("other", "digits"):
        await core.reconciler.reconcile(("team", name))
    status = cluster.written[-1]
    assert status["gang"]["pods"][0]["pricePerNodeHour"] == "0.36"
    assert (status["cost"]["spotNodeSeconds"], status["cost"]["spent"]) == (100.0, "0.0100")
    rate = status["interruptionRate"]
    assert rate["nodeHoursPerInterruption"] == pytest.approx((2 + 10 + 100 / 3600) / (1 + 3), abs=1e-3)
    assert [zone["nodeSeconds"] for zone in rate["zones"]] == [100.0]


class Ending(Priced):
    """A job whose work is known; then it has ended, and then it is deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.is_complete = self.is_deleted = False

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if self.is_deleted and path.endswith("/digits"):
            return 404, json.dumps({"reason": "NotFound"}), {}
        return await super()._send(method, path, query, body)

    def _answer(self, path: str, body: Json | None) -> Json:
        if body is not None and body.get("kind") == "DeleteOptions":
            return {}
        if not path.endswith("/digits") or body is not None:
            return super()._answer(path, body)
        deadline = {"secondsAfterCreation": 86400, "expectedDurationSeconds": 3600}
        job = {**JOB, "spec": {**JOB["spec"], "deadline": deadline}}
        if not self.is_complete:
            return job
        condition = {"type": "Complete", "status": "True", "reason": "x", "observedGeneration": 1}
        condition["lastTransitionTime"] = "2026-11-23T11:00:00Z"
        cost = {"spent": "5", "projected": "5"}
        return {**job, "status": {"conditions": [condition], "cost": cost, "observedGeneration": 1}}


async def test_the_metric_of_what_is_to_come_knows_the_jobs_that_have_not_ended() -> None:
    cluster = Ending()
    core = Core(
        cluster,
        Settings(namespace="system"),
        component="operator-0",
        status_ca=lambda: "",
        clock=lambda: NOW + timedelta(seconds=100),
        monotonic=lambda: 0.0,
    )

    async def projected() -> float | None:
        await core.reconciler.reconcile(("team", "digits"))
        return metrics.REGISTRY.get_sample_value("spot_operator_cost_projected")

    # 100 s were spent, and an hour of work is left; the launch is over time already.
    assert await projected() == pytest.approx(0.36 * (100 + 3600) / 3600, abs=1e-4)
    cluster.is_complete = True
    assert await projected() == 0
    cluster.is_complete = False
    assert await projected() != 0
    cluster.is_deleted = True
    assert await projected() == 0


# --- pods that a listing does not show ------------------------------------------------------


class Unmarked(Cluster):
    """The pod of the gang has lost its label: only its name finds it."""

    def __init__(self, *, is_there: bool = True) -> None:
        super().__init__()
        self._is_there = is_there
        self._stored: Json = JOB

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/status") and body is not None:
            self._stored = body
        if path.endswith("/digits"):
            return self._stored
        if path.endswith("/pods") and body is None:
            return {"items": []}
        if "/pods/" in path:
            pod = super()._answer("/pods", None)["items"][0]
            owner = {"ownerReferences": []}
            uid = {} if self._is_there else {"uid": "of-another-pod-of-this-name"}
            return {**pod, "metadata": pod["metadata"] | owner | uid}
        return super()._answer(path, body)


async def test_a_pod_without_its_label_and_owner_is_not_replaced_while_it_runs() -> None:
    cluster = Unmarked()
    assert await make_core(cluster).reconciler.reconcile(KEY) == 10
    assert "GET digits-0c5e1-1-0" in cluster.calls
    assert "POST pods" not in cluster.calls


class Unlisted(Cluster):
    """Pods can be read one by one, and not listed."""

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if method == "GET" and path.endswith("/pods"):
            return 503, json.dumps({"message": "overloaded"}), {}
        return await super()._send(method, path, query, body)


async def test_a_listing_that_failed_says_nothing_of_any_pod() -> None:
    cluster = Unlisted()
    assert await make_core(cluster).reconciler.reconcile(KEY) == 5
    assert cluster.calls == ["GET digits", "GET spot-a"]


async def test_a_pod_that_is_gone_is_replaced() -> None:
    cluster = Unmarked(is_there=False)
    await make_core(cluster).reconciler.reconcile(KEY)
    assert "POST pods" in cluster.calls


async def test_of_a_pods_end_only_the_end_itself_goes_before_others() -> None:
    core = make_core(Cluster())
    pod = Cluster()._answer("/pods", None)["items"][0]
    now = asyncio.get_running_loop().time()

    def due(change: Json, *, deleted: bool = False) -> tuple[int, float]:
        core.queue._due.clear()
        core.hear_pod(pod | change, deleted=deleted)
        rank, time = core.queue._due[KEY]
        return rank, round(time - now, 1)

    told = {"metadata": pod["metadata"] | {"deletionTimestamp": "2026-11-23T12:00:30Z"}}
    ended = told | {"status": {"phase": "Failed"}}
    assert due({}) == (ORDINARY, 0.3)
    assert due(told) == (ORDINARY, 0.0)
    assert due(ended) == (URGENT, 0.0)
    assert due(ended, deleted=True) == (ORDINARY, 0.3)
    assert due({}) == (ORDINARY, 0.3)
    assert due(told, deleted=True) == (URGENT, 0.0)  # by force: its end was never heard


async def test_a_pod_that_was_seen_to_go_is_not_asked_for() -> None:
    cluster = Unmarked(is_there=False)
    core = make_core(cluster)
    pod = Cluster()._answer("/pods", None)["items"][0]
    going = {"deletionTimestamp": "2026-11-23T11:59:59Z", "deletionGracePeriodSeconds": 0}
    core.hear_pod({**pod, "metadata": pod["metadata"] | going}, deleted=True)
    await core.reconciler.reconcile(KEY)
    assert "GET digits-0c5e1-1-0" not in cluster.calls


async def test_a_pod_that_a_webhook_strips_as_it_is_made_is_found_by_what_its_creation_said() -> None:
    """Otherwise each look would take it for gone and make another, without end."""
    cluster = Unmarked()
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls.count("POST pods") == 1


async def test_a_condition_of_another_controller_is_kept_and_keeps_nobody_from_looking() -> None:
    cluster = Cluster()
    foreign = {"type": "example.com/Audited", "status": "True"}
    status = {**JOB["status"], "conditions": [foreign], "phase": "Levitating"}
    written: list[Json] = []

    def answer(path: str, body: Json | None) -> Json:
        if path.endswith("/status"):
            written.append(body or {})
        return {**JOB, "status": status} if path.endswith("/digits") else Cluster._answer(cluster, path, body)

    cluster._answer = answer  # type: ignore[method-assign]
    await make_core(cluster).reconciler.reconcile(KEY)
    (body,) = written
    assert foreign in body["status"]["conditions"]
    assert body["status"]["phase"] == "Running"


# --- what no condition can say --------------------------------------------------------------


class Stubborn(Cluster):
    """Answers what it is asked with an error of the status code, for calls of the given beginning."""

    def __init__(self, refuses: str, status: int = 403) -> None:
        super().__init__()
        self._refuses, self._status = refuses, status
        self.told: list[str] = []

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if path.endswith("/events") and body is not None:
            self.told.append(body["reason"])
        if f"{method} {path.rpartition('/')[2]}".startswith(self._refuses):
            return self._status, json.dumps({"reason": "Forbidden", "message": "a policy says no"}), {}
        return await super()._send(method, path, query, body)


async def look_often(core: Core) -> None:
    for _ in range(4):
        with contextlib.suppress(KubeError, StatusUnreadable):
            await core.reconciler.reconcile(KEY)


async def test_a_status_that_may_not_be_written_is_told_on_the_job_once() -> None:
    cluster = Stubborn("PUT status")
    await look_often(make_core(cluster))
    assert cluster.told == [Reason.STATUS_REFUSED]


async def test_a_status_that_cannot_be_read_is_told_on_the_job_once() -> None:
    cluster = Cluster()
    cluster._answer = lambda path, body: (  # type: ignore[method-assign]
        {**JOB, "status": {"incarnation": "three"}} if path.endswith("/digits") else dict(body or {})
    )
    await look_often(make_core(cluster))
    assert cluster.calls.count("POST events") == 1


async def test_a_pod_that_may_not_be_deleted_is_told_on_the_job_once() -> None:
    cluster = Stubborn("DELETE")
    suspended = {**JOB, "spec": JOB["spec"] | {"suspend": True}}
    answer = cluster._answer
    cluster._answer = lambda path, body: (  # type: ignore[method-assign]
        suspended if path.endswith("/digits") else answer(path, body)
    )
    await look_often(make_core(cluster))
    assert cluster.told.count(Reason.POD_DELETION_REFUSED) == 1


async def test_creations_that_nobody_answers_are_told_on_the_job_and_a_single_one_is_not() -> None:
    cluster = Stubborn("POST pods", 504)
    core = make_core(cluster)
    for looks in (1, 4):
        for _ in range(looks):
            core.known.forget(KEY)
            core.hear_job(NEW)
            with contextlib.suppress(KubeError):
                await core.reconciler.reconcile(KEY)
        assert cluster.told.count(Reason.POD_CREATION_UNANSWERED) == looks // 4


@pytest.mark.parametrize("status", [404, 409])
async def test_a_write_that_is_always_lost_is_not_repeated_without_a_pause(status: int) -> None:
    """A definition whose status subresource was taken away answers 404, and some webhooks say 409."""
    cluster = Stubborn("PUT status", status)
    core = make_core(cluster)
    waits = [await core.reconciler.reconcile(KEY) for _ in range(20)]
    assert waits[:5] == [0, 0, 0, 0, 0.25]
    assert waits[-1] == 30
    assert cluster.told == ([Reason.STATUS_REFUSED] if status == 404 else [])


async def test_a_deletion_that_changes_nothing_is_not_repeated_without_a_pause() -> None:
    """What answers 409 may be a webhook and not the precondition: then the pod is still there."""
    cluster = Stubborn("DELETE", 409)
    suspended = {**JOB, "spec": JOB["spec"] | {"suspend": True}}
    answer = cluster._answer
    cluster._answer = lambda path, body: (  # type: ignore[method-assign]
        suspended if path.endswith("/digits") else answer(path, body)
    )
    core = make_core(cluster)
    assert [await core.reconciler.reconcile(KEY) for _ in range(20)][-1] == 30


class Listed(Cluster):
    """A job whose pod has ended and is kept."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self._phase = phase

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/nodes"):
            return {"items": []}
        if path.endswith("/spottrainingjobs"):
            return {"items": [JOB | {"status": {"phase": self._phase}}]}
        found = super()._answer(path, body)
        if path.endswith("/pods"):
            return {"items": [pod | {"status": {"phase": "Failed"}} for pod in found["items"]]}
        return found


@pytest.mark.parametrize(
    ("phase", "rank"), [("Running", URGENT), ("Complete", ORDINARY), ("Failed", ORDINARY)]
)
async def test_pods_that_are_kept_of_finished_jobs_press_nobody(phase: str, rank: int) -> None:
    core = make_core(Listed(phase))
    await core.list_all()
    assert core.queue._due[KEY][0] == rank


class Quiet(Cluster):
    """A job that runs as it should, as the operator's own look has left it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cordoned = False
        self.taints: list[Json] = []
        self.job = JOB

    def _answer(self, path: str, body: Json | None) -> Json:
        node = {
            "metadata": {"name": "spot-a", "uid": "node-uid-a", "resourceVersion": "1"},
            "spec": {"unschedulable": self.is_cordoned, "taints": self.taints},
        }
        if path.endswith("/nodes"):
            return {"items": [node]}
        if "/nodes/" in path:
            return node
        if path.endswith("/spottrainingjobs"):
            return {"items": [self.job]}
        if path.endswith("/status"):
            self.job = cast(dict[str, Any], super()._answer(path, body))
        if path.endswith(("/digits", "/status")):
            return self.job
        found = super()._answer(path, body)
        if path.endswith("/pods") and body is None:
            found["items"][0]["metadata"]["resourceVersion"] = "8"
        return found


async def settled() -> Quiet:
    """The cluster after an operator has looked at the job until nothing was left to be done."""
    cluster = Quiet()
    core = make_core(cluster)
    await core.list_all()
    for _ in range(3):
        await core.reconciler.reconcile(KEY)
    cluster.calls.clear()
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == []
    return cluster


async def begin(cluster: Quiet) -> Core:
    """Another operator process, which has listed what there is."""
    core = make_core(cluster)
    await core.list_all()
    cluster.calls.clear()
    return core


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


class Launched(Cluster):
    """A job that has just been applied; whatever is written has a new version."""

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.pods: list[dict[str, Any]] = []
        self.written: list[Json] = []
        self.events: list[Json] = []
        self.refuses_pods = False

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        if self.refuses_pods and method == "POST" and path.endswith("/pods"):
            self.calls.append("POST pods")
            return 403, json.dumps({"reason": "Forbidden", "message": "exceeded quota"}), {}
        return await super()._send(method, path, query, body)

    def _answer(self, path: str, body: Json | None) -> Json:
        if path.endswith("/events") and body is not None:
            self.events.append(body)
        if path.endswith("/status"):
            assert body is not None
            version = str(int(self.job["metadata"]["resourceVersion"]) + 1)
            self.job = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
            self.written.append(self.job)
        if path.endswith(("/digits", "/status")):
            return self.job
        if path.endswith("/pods") and body is not None:
            self.pods = [{**body, "metadata": body["metadata"] | {"uid": POD_UID, "resourceVersion": "8"}}]
            return self.pods[0]
        if path.endswith("/pods"):
            return {"items": self.pods}
        if "/nodes/" in path:
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {}}
        return super()._answer(path, body)

    def bound(self) -> dict[str, Any]:
        pod = self.pods[0]
        self.pods = [
            {
                **pod,
                "metadata": pod["metadata"] | {"resourceVersion": "9"},
                "spec": pod["spec"] | {"nodeName": "spot-a"},
            }
        ]
        return self.pods[0]


async def launched() -> tuple[Launched, Core]:
    cluster = Launched()
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["PUT status", "POST pods"]
    cluster.calls.clear()
    return cluster, core


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


def with_version(item: Json, version: str) -> Json:
    return {**item, "metadata": item["metadata"] | {"resourceVersion": version}}


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
    for _ in range(RUSH_LAUNCHES):
        core._rush.note_launch()
    core.queue._due.clear()
    core.hear_pod(cluster.bound())
    rank, due = core.queue._due[KEY]
    assert rank == ORDINARY
    assert due - asyncio.get_running_loop().time() > RUSH_SETTLING_SECONDS - 1
    ended = with_version(cluster.pods[0] | {"status": {"phase": "Failed"}}, "10")
    core.hear_pod(ended)
    assert core.queue._due[KEY][0] == URGENT
