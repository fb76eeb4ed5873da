"""Who sends a report: the pod that a projected token is bound to, as the API server says.

Invariants: a token counts only for our audience and only with a pod UID; answers are kept
by the token's hash, never the token itself, for at most a minute (a deleted pod's token is
refused by the API server from then on); a failure to ask is never an answer; what a token
says of itself is reason enough to refuse it, never to accept it.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from spot_operator import metrics
from spot_operator.kube import TOKEN_REVIEWS, Kube
from spot_operator.names import STATUS_TOKEN_AUDIENCE

GOOD_FOR_SECONDS: Final = 60.0
BAD_FOR_SECONDS: Final = 10.0
MAX_KEPT: Final = 20_000
MAX_TOKEN_CHARS: Final = 8_000
"""aiohttp takes no longer header; a projected token has some 1200."""

_ACCOUNT_PREFIX: Final = "system:serviceaccount:"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class Sender:
    namespace: str
    pod_uid: str


def sender_of(review: dict[str, Any]) -> Sender | None:
    """The pod that a TokenReview proves; None: it proves none."""
    status = review.get("status") or {}
    user = status.get("user") or {}
    username = str(user.get("username", ""))
    uids = (user.get("extra") or {}).get(_POD_UID) or []
    if (
        not status.get("authenticated")
        or STATUS_TOKEN_AUDIENCE not in (status.get("audiences") or [])
        or not username.startswith(_ACCOUNT_PREFIX)
        or len(uids) != 1
    ):
        return None
    return Sender(namespace=username.removeprefix(_ACCOUNT_PREFIX).split(":")[0], pod_uid=str(uids[0]))


def claimed_sender(token: str) -> Sender | None:
    """The pod that a token says it is bound to, for our audience; nothing of it is proven.

    Projected tokens are JSON Web Tokens whoever signs them. What cannot be one need not be shown
    to the API server, which could otherwise be flooded through us.
    """
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        audiences = claims["aud"]
        is_ours = STATUS_TOKEN_AUDIENCE in ([audiences] if isinstance(audiences, str) else audiences)
        bound = claims["kubernetes.io"]
        namespace, pod_uid = bound["namespace"], bound["pod"]["uid"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not is_ours or not isinstance(namespace, str) or not isinstance(pod_uid, str):
        return None
    return Sender(namespace=namespace, pod_uid=pod_uid)


class TokenReviewer:
    def __init__(self, kube: Kube, *, monotonic: Callable[[], float]) -> None:
        self._kube = kube
        self._monotonic = monotonic
        self._kept: dict[bytes, tuple[float, Sender | None]] = {}
        self._asking: dict[bytes, asyncio.Task[Sender | None]] = {}

    @property
    def num_asking(self) -> int:
        """TokenReviews under way."""
        return len(self._asking)

    def recall(self, token: str) -> tuple[bool, Sender | None]:
        """Whether the answer is known, and the answer; never waits."""
        until, sender = self._kept.get(_key(token), (0.0, None))
        return (True, sender) if self._monotonic() < until else (False, None)

    async def ask(self, token: str) -> Sender | None:
        """The sender by the API server's word; concurrent questions about one token are one.

        Raises:
            KubeError: the API server could not say.
        """
        key = _key(token)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._review(key, token))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _review(self, key: bytes, token: str) -> Sender | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [STATUS_TOKEN_AUDIENCE]},
        }
        sender = sender_of(await self._kube.create(TOKEN_REVIEWS, body))
        metrics.TOKEN_REVIEWS.labels("accepted" if sender else "refused").inc()
        now = self._monotonic()
        if len(self._kept) >= MAX_KEPT:
            self._kept = {k: v for k, v in self._kept.items() if v[0] > now}
            # Still full: a flood of tokens. Forgetting all costs one review per pod.
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
        self._kept[key] = (now + (GOOD_FOR_SECONDS if sender else BAD_FOR_SECONDS), sender)
        return sender


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
