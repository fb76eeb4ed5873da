"""The HTTPS server that trainers report to: progress in, directives out.

A training step may be waiting for the answer (Hugging Face posts from the training thread),
so it comes from memory: what the body changes is looked at after the answer. Invariants: a
report is believed only for the job that controls the pod its token is bound to; bodies,
tokens and work under way are bounded, and what exceeds the bound is refused at once; a
connection carries one report (`door` bounds the connections).
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from spot_operator import metrics
from spot_operator.kube import KubeError
from spot_operator.limits import Buckets
from spot_operator.logs import Log
from spot_operator.names import JobKey
from spot_operator.pod_book import JobPod, PodBook
from spot_operator.reports import ReportBook
from spot_operator.tokens import MAX_TOKEN_CHARS, Sender, TokenReviewer, claimed_sender
from spot_trainer.contract import MAX_PROGRESS_BYTES, ContractError, parse_progress

PATH: Final = "/v1alpha1/namespaces/{namespace}/spottrainingjobs/{name}/status"
MAX_REVIEWS_ASKED: Final = 16
"""TokenReviews under way; each takes the API server some milliseconds."""
REVIEWS_PER_SECOND: Final = 0.5
REVIEWS_BURST: Final = 5
"""For one pod from one address: a genuine token is asked about once a minute."""
REPORTS_PER_SECOND: Final = 1.0
REPORTS_BURST: Final = 10
"""For one pod: trainers report every 2 s at most, and once more at their end."""
BODY_SECONDS: Final = 3.0
MAX_HEADERS: Final = 64
LINGER_SECONDS: Final = 1.0
"""For the rest of a body that was refused unread: long enough that the answer is not lost with it."""

_log = Log(__name__)

_http_log = logging.getLogger(f"{__name__}.http")
# A client that does not speak HTTP is answered and counted; a line for each would be its flood of ours.
_http_log.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
)


class Turned(Exception):
    """A report that is not accepted: the HTTP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class StatusServer:
    def __init__(
        self,
        tokens: TokenReviewer,
        pods: PodBook,
        reports: ReportBook,
        *,
        answer: Callable[[JobPod], str | None],
        wake: Callable[[JobKey, bool], None],
        is_leading: Callable[[], bool],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._pods = pods
        self._reports = reports
        self._answer = answer
        self._wake = wake
        self._is_leading = is_leading
        self._clock = clock
        self._report_rate = Buckets[str](
            per_second=REPORTS_PER_SECOND, burst=REPORTS_BURST, monotonic=monotonic
        )
        self._review_rate = Buckets[tuple[str, str]](
            per_second=REVIEWS_PER_SECOND, burst=REVIEWS_BURST, monotonic=monotonic
        )

    def runner(self) -> web.AppRunner:
        application = web.Application(client_max_size=MAX_PROGRESS_BYTES)
        application.router.add_post(PATH, self._serve)
        application.on_response_prepare.append(_end_connection)
        return web.AppRunner(
            application,
            # No access log: it would name every job every few seconds.
            access_log=None,
            handle_signals=False,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            logger=_http_log,
            # A small body could inflate to any size; no client of this protocol compresses.
            auto_decompress=False,
        )

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            text = await self._accept(request)
        except Turned as turned:
            metrics.REPORTS.labels(str(turned.status)).inc()
            headers = {"Retry-After": "1"} if turned.status in (429, 503) else None
            return web.Response(status=turned.status, text=f"{turned}\n", headers=headers)
        metrics.REPORTS.labels("200").inc()
        return web.Response(text=text, content_type="application/json")

    async def _accept(self, request: web.Request) -> str:
        key = (request.match_info["namespace"], request.match_info["name"])
        if not self._is_leading():
            raise Turned(503, "this replica does not lead; report again")
        if (request.content_length or 0) > MAX_PROGRESS_BYTES:
            raise Turned(413, f"a report has at most {MAX_PROGRESS_BYTES} bytes")
        sender = await self._identify(request)
        pod = self._pods.get(sender.pod_uid)
        if sender.namespace != key[0] or (pod is not None and pod.key != key):
            raise Turned(403, "the token's pod does not belong to this job")
        if pod is None:
            raise _not_running()
        answer = self._answer(pod)
        if answer is None:
            raise Turned(404, "no such job")
        if not self._report_rate.take(sender.pod_uid):
            raise Turned(429, "this pod reports too often")
        try:
            body = parse_progress(await _read(request))
        except ContractError as error:
            raise Turned(400, str(error)) from error
        if self._pods.get(sender.pod_uid) is None:
            raise _not_running()  # it ended while its body was on the way
        urgent = self._reports.accept(pod, sender.pod_uid, body, self._clock())
        self._wake(key, urgent)
        return answer

    async def _identify(self, request: web.Request) -> Sender:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARS:
            raise Turned(401, "a bearer token is required")
        known, sender = self._tokens.recall(token)
        if not known:
            sender = await self._review(token, request.remote or "")
        if sender is None:
            raise Turned(401, NOT_A_PODS_TOKEN)
        return sender

    async def _review(self, token: str, address: str) -> Sender | None:
        claimed = claimed_sender(token)
        if claimed is None:
            raise Turned(401, NOT_A_PODS_TOKEN)
        if self._pods.get(claimed.pod_uid) is None:
            raise _not_running()
        # By address as well: whoever knows a pod's UID must not use up what its own reports need.
        if not self._review_rate.take((claimed.pod_uid, address)):
            raise Turned(429, "too many tokens for this pod")
        if self._tokens.num_asking >= MAX_REVIEWS_ASKED:
            raise Turned(429, "too many reports at once")
        try:
            return await self._tokens.ask(token)
        except KubeError as error:
            _log.warning("token not reviewed", error=error.message)
            raise Turned(503, "the token cannot be checked now") from error


NOT_A_PODS_TOKEN: Final = "the token is not one of a pod for this audience"


def _not_running() -> Turned:
    # Ended, or so new that the watch has not told of it: either way, not now.
    return Turned(403, "the token's pod is not a running pod of this job")


async def _end_connection(_: web.Request, response: web.StreamResponse) -> None:
    response.force_close()


async def _read(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Turned(413, f"a report has at most {MAX_PROGRESS_BYTES} bytes") from None
    except TimeoutError:
        raise Turned(408, "the body did not come") from None
    except (web.PayloadAccessError, ValueError, OSError) as error:
        raise Turned(400, f"the body is broken: {type(error).__name__}") from None
