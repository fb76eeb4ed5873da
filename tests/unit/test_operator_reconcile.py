"""One look through the real observer and reconciler, against scripted answers of an API server."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from scripted_api import JOB, KEY, NEW, Cluster, Json, Stubborn, make_core

from spot_operator import metrics
from spot_operator.core import Core
from spot_operator.kube import KubeError
from spot_operator.names import Reason
from spot_operator.pod_book import JobPod
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID, NOW
from spot_operator.wire import StatusUnreadable
from spot_operator.workqueue import ORDINARY, URGENT


async def test_the_first_look_at_a_new_job_reads_nothing() -> None:
    cluster = Cluster()
    core = make_core(cluster)
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    assert cluster.calls == ["PUT status", "POST pods"]


async def test_where_nothing_else_is_said_a_run_is_named_after_its_job() -> None:
    cluster = Cluster()
    core, send, sent = make_core(cluster), cluster._send, []

    async def listen(method: str, path: str, query: Mapping[str, str] | None, body: Json | None) -> Any:
        sent.append(body)
        return await send(method, path, query, body)

    cluster._send = listen  # type: ignore[method-assign]
    core.hear_job(NEW)
    await core.reconciler.reconcile(KEY)
    (pod,) = (body for body in sent if body is not None and "containers" in body["spec"])
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert environment["SPOT_RUN_ID"] == "team/digits"


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
    answer = core.reconciler.answer(JobPod(KEY, JOB_UID, 1))
    assert answer is not None
    assert json.loads(answer)["directives"]["checkpointNow"].startswith("hint-")


class Unwritable(Stubborn):
    """A job whose node is being reclaimed, and whose status cannot be written."""

    def __init__(self) -> None:
        super().__init__("PUT", status=500)

    def _answer(self, path: str, body: Json | None) -> Json:
        if "/nodes/" in path:
            taint = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
            return {"metadata": {"name": "spot-a", "uid": "node-uid-a"}, "spec": {"taints": [taint]}}
        return super()._answer(path, body)


async def test_no_pod_is_told_to_stop_by_what_could_not_be_written() -> None:
    """It would stop, and nothing would say why: persist before acting holds for answers as well."""
    cluster = Unwritable()
    core = make_core(cluster)
    with pytest.raises(KubeError):
        await core.reconciler.reconcile(KEY)
    assert "DELETE digits-0c5e1-1-0" not in cluster.calls
    answer = core.reconciler.answer(JobPod(KEY, JOB_UID, 1))
    assert answer is not None
    assert "stop" not in json.loads(answer)["directives"]
    cluster._refuses = "none"
    await core.reconciler.reconcile(KEY)
    answer = core.reconciler.answer(JobPod(KEY, JOB_UID, 1))
    assert answer is not None
    assert json.loads(answer)["directives"]["stop"] == "NodeSignal"


async def test_a_checkpoint_is_asked_for_although_nothing_can_be_written() -> None:
    cluster = Stubborn("PUT", status=500)
    core = make_core(cluster)
    with pytest.raises(KubeError):
        await core.reconciler.reconcile(KEY)
    answer = core.reconciler.answer(JobPod(KEY, JOB_UID, 1))
    assert answer is not None
    directives = json.loads(answer)["directives"]
    assert directives["checkpointNow"].startswith("hint-")
    wish = {"annotations": {"spottraining.io/checkpoint-requested-at": "2026-11-23T12:00:00Z"}}
    cluster.job = {**JOB, "metadata": JOB["metadata"] | wish}
    with pytest.raises(KubeError):
        await core.reconciler.reconcile(KEY)
    answer = core.reconciler.answer(JobPod(KEY, JOB_UID, 1))
    assert answer is not None
    assert "2026-11-23T12:00:00Z" in json.loads(answer)["directives"]["checkpointNow"]


async def test_a_pod_that_is_newer_than_the_status_is_told_nothing_until_it_is_taken_up() -> None:
    """The status came from a backup: what runs is not superseded."""
    core = make_core(Stubborn("PUT", status=500))
    with pytest.raises(KubeError):
        await core.reconciler.reconcile(KEY)
    assert core.reconciler.answer(JobPod(KEY, JOB_UID, 5)) is None
    earlier = core.reconciler.answer(JobPod(KEY, JOB_UID, 0))
    assert earlier is not None
    assert json.loads(earlier)["directives"]["stop"] == "Superseded"


async def test_a_pod_of_a_job_that_was_made_anew_under_its_name_gets_no_answer() -> None:
    core = make_core(Cluster())
    await core.reconciler.reconcile(KEY)
    assert core.reconciler.answer(JobPod(KEY, "job-uid-before", 1)) is None


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
    await core.list_all(is_first=True)
    assert core.queue._due[KEY][0] == rank
