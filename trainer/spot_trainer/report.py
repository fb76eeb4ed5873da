"""Tells the operator how far the run is, and hears what it wants.

A daemon thread posts the latest status; the training thread only ever swaps a reference.
Invariant: whatever the server does (slow, wrong, away), training neither waits nor
fails; the operator then knows less, and the outcome still says how it ended.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from spot_trainer.contract import (
    MAX_DIRECTIVES_BYTES,
    ContractError,
    Directives,
    ProgressReport,
    parse_directives,
)

TIMEOUT_SECONDS = 5.0
PERIOD_SECONDS = 10.0
MIN_PERIOD_SECONDS = 2.0
"""However often something noteworthy happens, posts are at least this far apart."""

_log = logging.getLogger(__name__)


class Reporter:
    """Posts `current()` every few seconds, and soon after `wake()`."""

    def __init__(
        self,
        url: str,
        *,
        current: Callable[[], ProgressReport],
        ca_cert: str | None = None,
        token: str | None = None,
        on_directives: Callable[[Directives], None] = lambda _: None,
        period_seconds: float = PERIOD_SECONDS,
        min_period_seconds: float = MIN_PERIOD_SECONDS,
    ) -> None:
        self._url, self._ca_cert, self._token = url, ca_cert, token
        self._current, self._on_directives = current, on_directives
        self._period, self._min_period = period_seconds, min_period_seconds
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="spot-report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something happened that the operator should know at once."""
        self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Post once more, and wait for it no longer than this."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            self._wake.clear()
            self._post()
            if closing:
                return
            # Spacing, unless the process is about to end; then the regular period.
            self._closing.wait(self._min_period)
            self._wake.wait(self._period - self._min_period)

    def _post(self) -> None:
        try:
            answer = self._exchange(self._current().to_json().encode())
            self._on_directives(parse_directives(answer))
        except (OSError, ValueError, ContractError) as error:
            # URLError, HTTPError, timeouts and ssl errors are OSErrors; a half answer is a ValueError.
            _log.debug("progress report failed: %s", error)
        except Exception:  # noqa: BLE001  http.client has errors of its own; none may end the thread
            _log.debug("progress report failed", exc_info=True)

    def _exchange(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._token:
            # Projected tokens are rotated in place.
            headers["Authorization"] = f"Bearer {Path(self._token).read_text().strip()}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        # No proxies: the operator is in the cluster, a proxy for the internet is not meant.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._url.startswith("https:"):
            context = ssl.create_default_context(cafile=self._ca_cert or None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(MAX_DIRECTIVES_BYTES + 1)
        return data


class Pace:
    """Speed of this process, for the remaining time: steps since it began to step."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: tuple[float, int] | None = None

    def begin(self, step: int) -> None:
        self._began = (self._now(), step)

    def steps_per_second(self, step: int) -> float | None:
        """None: nothing is measured yet."""
        if self._began is None or step <= self._began[1]:
            return None
        seconds = self._now() - self._began[0]
        return (step - self._began[1]) / seconds if seconds > 0 else None

    def remaining_seconds(self, step: int, total_steps: int | None) -> int | None:
        rate = self.steps_per_second(step)
        return None if rate is None or total_steps is None else round(max(0, total_steps - step) / rate)
