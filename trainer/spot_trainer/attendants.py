"""What goes on beside training: reports to the operator, the notice endpoint, metrics for Prometheus.

Each has a daemon thread of its own. Invariant: training never waits for any of them, and one
that cannot do its work costs a warning.
"""

from __future__ import annotations

from collections.abc import Callable

from spot_trainer import notice_endpoint
from spot_trainer.contract import Directives, ProgressReport
from spot_trainer.notice_endpoint import CloudNotice, Poll
from spot_trainer.report import Reporter
from spot_trainer.settings import METRICS_PORT, Settings
from spot_trainer.tally import Reading


class Attendants:
    """Started once, closed once, both on the training thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Callable[[], ProgressReport],
        reading: Callable[[], Reading],
        on_notice: Callable[[CloudNotice], None],
        warn: Callable[[str], None],
    ) -> None:
        """The callbacks are called on other threads."""
        self._settings, self._reading = settings, reading
        self._on_notice, self._warn = on_notice, warn
        self.directives = Directives()
        """What the operator said last."""
        self._reporter = (
            None
            if settings.status_url is None
            else Reporter(
                settings.status_url,
                current=progress,
                ca_cert=settings.status_ca_cert,
                token=settings.status_token,
                on_directives=self._take_directives,
            )
        )
        self._poll: Poll | None = None
        self._end_serving: Callable[[], None] | None = None

    def start(self) -> None:
        told = self._settings
        if self._reporter is not None:
            self._reporter.start()
        if told.notice_endpoint is not None:
            cloud = notice_endpoint.CLOUDS[told.notice_endpoint]()
            ask = notice_endpoint.http_ask(told.notice_endpoint_url)
            self._poll = Poll(cloud, ask, on_notice=self._on_notice, on_silence=self._warn)
            self._poll.start()
        if told.metrics_port is not None:
            self._serve(told.metrics_port)

    def _serve(self, port: int) -> None:
        try:
            # Not at the top: where nobody scrapes, the package need not be there.
            from spot_trainer import exporter
        except ImportError as error:
            self._warn(f"{METRICS_PORT} is set, but there are no metrics: {error}: install prometheus-client")
            return
        try:
            self._end_serving = exporter.serve(port, self._reading)
        except OSError as error:
            self._warn(f"there are no metrics on port {port}: {error.strerror or error}; set {METRICS_PORT}")

    def wake(self) -> None:
        """Something happened that the operator should know at once."""
        if self._reporter is not None:
            self._reporter.wake()

    def close(self, timeout_seconds: float) -> None:
        """The last report goes out, if it does so in this time; everything ends."""
        if self._poll is not None:
            self._poll.close()
        if self._reporter is not None:
            self._reporter.close(timeout_seconds)
        if self._end_serving is not None:
            self._end_serving()
            self._end_serving = None

    def _take_directives(self, directives: Directives) -> None:
        self.directives = directives
