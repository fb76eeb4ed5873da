"""What the operator sends to the API server, and when it does not."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import aiohttp
import pytest

from spot_operator.act import Actor
from spot_operator.credentials import Credentials
from spot_operator.kube import JOBS, PODS, Kube, NotLeading
from spot_operator.leadership import LeaderLabel
from spot_operator.model import CreatePod
from spot_operator.testing import JOB_UID, NOW

Json = Mapping[str, Any]
Answer = tuple[int, Json]


class ScriptedKube(Kube):
    """The operator's client; `answer` plays the API server."""

    def __init__(self, answer: Callable[[str, str], Answer], guard: Callable[[], bool] | None = None) -> None:
        session = cast(aiohttp.ClientSession, object())
        super().__init__(Credentials(server="http://x"), timeout_seconds=1, session=session, guard=guard)
        self._answer = answer
        self.sent: list[tuple[str, str, Json | None]] = []

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None
    ) -> tuple[int, str, Mapping[str, str]]:
        self.sent.append((method, path, body))
        status, answer = self._answer(method, path)
        return status, json.dumps(answer), {}


def pod_of(owner_uid: str) -> Json:
    owner = {"kind": "SpotTrainingJob", "name": "digits", "uid": owner_uid, "controller": True}
    return {"metadata": {"name": "digits-0c5e1-1-0", "uid": "pod-uid", "ownerReferences": [owner]}}


@pytest.mark.parametrize(("owner_uid", "is_ours"), [(JOB_UID, True), ("of-an-earlier-job", False)])
async def test_a_pod_that_exists_is_ours_only_if_its_controller_is_our_job(
    owner_uid: str, is_ours: bool
) -> None:
    def answer(method: str, _: str) -> Answer:
        return (409, {"reason": "AlreadyExists"}) if method == "POST" else (200, pod_of(owner_uid))

    actor = Actor(ScriptedKube(answer), lambda: NOW, "operator-0")
    results = await actor.act("team", JOB_UID, (CreatePod(name="digits-0c5e1-1-0", manifest={}),))
    assert results.created == ()
    assert (results.refusal is None, "digits-0c5e1-1-0" in results.uids) == (is_ours, is_ours)


@pytest.mark.parametrize("verb", ["create", "replace", "patch", "delete"])
async def test_who_does_not_lead_writes_nothing(verb: str) -> None:
    kube = ScriptedKube(lambda *_: (200, {}), guard=lambda: False)
    job = {"metadata": {"name": "digits", "namespace": "team", "resourceVersion": "1"}}
    calls = {
        "create": lambda: kube.create(PODS, {}, "team"),
        "replace": lambda: kube.replace(JOBS, job),
        "patch": lambda: kube.patch(PODS, "p", {}, "team"),
        "delete": lambda: kube.delete(PODS, "p", "team", uid="u"),
    }
    with pytest.raises(NotLeading):
        await calls[verb]()
    await kube.get(PODS, "p", "team")
    assert [method for method, _, _ in kube.sent] == ["GET"]


async def test_a_new_leader_takes_the_label_from_whoever_still_has_it() -> None:
    listed = {"items": [{"metadata": {"name": "operator-0"}}, {"metadata": {"name": "operator-1"}}]}
    kube = ScriptedKube(lambda method, _: (200, listed if method == "GET" else {}))
    await LeaderLabel(kube, "system", "operator-1").take()
    patched = [(path.rpartition("/")[2], body) for method, path, body in kube.sent if method == "PATCH"]
    labels = {name: (body or {})["metadata"]["labels"]["spottraining.io/leader"] for name, body in patched}
    assert labels == {"operator-0": None, "operator-1": "true"}


async def test_a_webhook_that_does_not_answer_is_a_refusal_that_is_shown() -> None:
    """The API server says 500, as it does of its own troubles; but it has not made the pod, and people can
    only help where they are told."""
    why = 'Internal error occurred: failed calling webhook "a.example.com": context deadline exceeded'
    kube = ScriptedKube(lambda *_: (500, {"reason": "InternalError", "message": why}))
    results = await Actor(kube, lambda: NOW, "operator-0").act(
        "team", JOB_UID, (CreatePod(name="p", manifest={}),)
    )
    assert results.refusal is not None
    assert results.refusal.message == why
    assert (results.is_unsure, results.errors) == (False, ())
