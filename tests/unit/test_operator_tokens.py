"""A token counts for the pod that the API server says it is bound to, and for a minute at most."""

import asyncio
import base64
import json
from typing import Any

import pytest

from spot_operator.kube import Kind, Unreachable
from spot_operator.tokens import (
    BAD_FOR_SECONDS,
    GOOD_FOR_SECONDS,
    Sender,
    TokenReviewer,
    claimed_sender,
    sender_of,
)

pytestmark = pytest.mark.looptime

AUDIENCE = "spottraining.io/status"


def make_review(**status: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:team-a:default",
        "extra": {"authentication.kubernetes.io/pod-uid": ["pod-uid"]},
    }
    return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user} | status}


def test_bound_token_for_our_audience_names_its_pod() -> None:
    assert sender_of(make_review()) == Sender(namespace="team-a", pod_uid="pod-uid")


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": None},
        {"user": {"username": "system:serviceaccount:team-a:default"}},
        {"user": {"username": "admin", "extra": {"authentication.kubernetes.io/pod-uid": ["pod-uid"]}}},
    ],
    ids=["not authenticated", "other audience", "no audience", "not bound to a pod", "not a service account"],
)
def test_anything_less_names_nobody(status: dict[str, Any]) -> None:
    assert sender_of(make_review(**status)) is None


class Reviews:
    """The one call that the reviewer makes, with an answer that can be changed and delayed."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer: dict[str, Any] | None = answer
        self.asked = 0

    async def create(self, kind: Kind, body: Any) -> dict[str, Any]:
        assert body["spec"]["audiences"] == [AUDIENCE]
        self.asked += 1
        await asyncio.sleep(0)
        if self.answer is None:
            raise Unreachable("no answer")
        return self.answer


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_accepted_token_is_remembered_for_a_minute() -> None:
    reviews, time = Reviews(make_review()), Time()
    reviewer = TokenReviewer(reviews, monotonic=time)
    await reviewer.ask("token")
    time.now = GOOD_FOR_SECONDS - 1
    assert reviewer.recall("token") == (True, Sender(namespace="team-a", pod_uid="pod-uid"))
    time.now = GOOD_FOR_SECONDS
    assert reviewer.recall("token") == (False, None)


async def test_refused_token_is_remembered_shortly() -> None:
    reviews, time = Reviews(make_review(authenticated=False)), Time()
    reviewer = TokenReviewer(reviews, monotonic=time)
    assert await reviewer.ask("token") is None
    assert reviewer.recall("token") == (True, None)
    time.now = BAD_FOR_SECONDS
    assert reviewer.recall("token") == (False, None)


async def test_questions_about_one_token_at_once_are_one_review() -> None:
    reviews = Reviews(make_review())
    reviewer = TokenReviewer(reviews, monotonic=Time())
    senders = await asyncio.gather(*(reviewer.ask("token") for _ in range(20)))
    assert set(senders) == {Sender(namespace="team-a", pod_uid="pod-uid")}
    assert reviews.asked == 1
    assert reviewer.num_asking == 0


async def test_server_that_does_not_answer_leaves_no_answer_behind() -> None:
    reviews = Reviews(make_review())
    reviews.answer = None
    reviewer = TokenReviewer(reviews, monotonic=Time())
    with pytest.raises(Unreachable):
        await reviewer.ask("token")
    assert reviewer.recall("token") == (False, None)
    reviews.answer = make_review()
    assert await reviewer.ask("token") is not None


def make_token(claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


BOUND = {"aud": [AUDIENCE], "kubernetes.io": {"namespace": "team-a", "pod": {"name": "p", "uid": "pod-uid"}}}


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_token_says_which_pod_it_is_bound_to(audience: Any) -> None:
    assert claimed_sender(make_token(BOUND | {"aud": audience})) == Sender("team-a", "pod-uid")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "a.b.c",
        "a.ü.c",
        "..",
        make_token([]),
        make_token(None),
        make_token({}),
        make_token(BOUND | {"aud": ["https://kubernetes.default.svc"]}),
        make_token(BOUND | {"aud": 5}),
        make_token(BOUND | {"aud": None}),
        make_token(BOUND | {"kubernetes.io": {"namespace": "team-a"}}),
        make_token(BOUND | {"kubernetes.io": {"namespace": "team-a", "pod": "pod-uid"}}),
        make_token(BOUND | {"kubernetes.io": {"namespace": 1, "pod": {"uid": ["pod-uid"]}}}),
        "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c",
    ],
)
def test_what_cannot_be_a_pods_token_for_us_is_not_shown_to_the_api_server(token: str) -> None:
    assert claimed_sender(token) is None
