"""The HTTPS server that trainers report to: progress in, directives out.

A training step may be waiting for the answer (Hugging Face posts from the training thread),
so it comes from memory: what the body changes is looked at after the answer. Invariants: a
report is believed only for the job that controls the pod its token is bound to; bodies,
tokens and work under way are bounded, and what exceeds the bound is refused at once.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from aiohttp import web

from spot_operator import metrics
from spot_operator.cluster import JobKey, PodBook
from spot_operator.kube import KubeError
from spot_operator.logs import Log
from spot_operator.reports import ReportBook
from spot_operator.tokens import MAX_TOKEN_CHARS, Sender, TokenReviewer
from spot_trainer.contract import MAX_PROGRESS_BYTES, ContractError, parse_progress

PATH: Final = "/v1alpha1/namespaces/{namespace}/spottrainingjobs/{name}/status"
MAX_REVIEWS_ASKED: Final = 64

_log = Log(__name__)


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
        answer: Callable[[JobKey, int], str | None],
        wake: Callable[[JobKey, bool], None],
        is_leading: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._pods = pods
        self._reports = reports
        self._answer = answer
        self._wake = wake
        self._is_leading = is_leading
        self._clock = clock

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_PROGRESS_BYTES)
        application.router.add_post(PATH, self._serve)
        return application

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
        answer = self._answer(key, 0 if pod is None else pod.incarnation)
        if answer is None:
            raise Turned(404, "no such job")
        if pod is None:
            # Ended, or so new that the watch has not told of it: either way, not now.
            raise Turned(403, "the token's pod is not a running pod of this job")
        try:
            body = parse_progress(await _read(request))
        except ContractError as error:
            raise Turned(400, str(error)) from error
        urgent = self._reports.accept(pod, sender.pod_uid, body, self._clock())
        self._wake(key, urgent)
        return answer

    async def _identify(self, request: web.Request) -> Sender:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARS:
            raise Turned(401, "a bearer token is required")
        known, sender = self._tokens.recall(token)
        if not known:
            if self._tokens.num_asking >= MAX_REVIEWS_ASKED:
                raise Turned(429, "too many reports at once")
            try:
                sender = await self._tokens.ask(token)
            except KubeError as error:
                _log.warning("token not reviewed", error=error.message)
                raise Turned(503, "the token cannot be checked now") from error
        if sender is None:
            raise Turned(401, "the token is not one of a pod for this audience")
        return sender


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Turned(413, f"a report has at most {MAX_PROGRESS_BYTES} bytes") from None
