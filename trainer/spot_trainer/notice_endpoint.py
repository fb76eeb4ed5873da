"""The cloud's own word that this machine goes, polled from inside it. Off unless it is asked for.

In most clusters the operator sees the notice on the node and the pod is told by SIGTERM. Where
nothing watches the node, or there is no cluster, the machine's metadata service knows. It is
often out of a pod's reach, and then does not refuse but stays silent; so asking has a thread of
its own with short timeouts, and gives up with a warning. Invariant: whatever the service
does, training neither waits for it nor fails.

Paths and answers: AWS "Spot Instance interruption notices" (IMDSv2), Google Cloud "Preemptible VM
instances: detect preemption" and "getting live migration notices", Azure "Scheduled Events for
Linux VMs".
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from spot_trainer.contract import ContractError, parse_time

PERIOD_SECONDS = 2.0
TIMEOUT_SECONDS = 1.0
"""Of silence. A service out of reach does not refuse a connection, it lets it hang."""
MAX_ANSWER_BYTES = 64 * 1024
TOKEN_SECONDS = 21600

DEFAULT_URL = "http://169.254.169.254"
"""The same in all three clouds; an address and not a name, because resolving may hang without a timeout."""


@dataclass(frozen=True)
class CloudNotice:
    """This machine will be taken away."""

    cause: str
    """For people."""
    at: datetime | None = None
    """When, if the cloud says so."""


class Silence(Exception):
    """No usable answer; the message says what came instead."""


class Ask(Protocol):
    """One request: the body, or None for 404; raises Silence, or PermissionError for 401."""

    def __call__(self, path: str, headers: dict[str, str], method: str = "GET") -> bytes | None: ...


class Cloud(Protocol):
    """How one cloud is asked."""

    name: str
    tries: int
    """Failures in a row after which asking makes no sense."""

    def look(self, ask: Ask) -> CloudNotice | None:
        """The notice, if there is one now; raises Silence."""


class Aws:
    """IMDSv2: a session token, then the spot instance action (404: none)."""

    name = "AWS"
    tries = 3

    def __init__(self) -> None:
        self._token: str | None = None

    def look(self, ask: Ask) -> CloudNotice | None:
        try:
            answer = self._action(ask)
        except PermissionError:  # the token has expired
            self._token = None
            try:
                answer = self._action(ask)
            except PermissionError as error:
                raise Silence(str(error)) from error
        if answer is None:
            return None
        said = _read_json(answer)
        return CloudNotice(f"AWS spot interruption ({said.get('action')})", _time(said.get("time")))

    def _action(self, ask: Ask) -> bytes | None:
        if self._token is None:
            seconds = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            token = ask("/latest/api/token", seconds, "PUT")
            if not token:
                raise Silence("no session token")
            self._token = token.decode("ascii", "replace").strip()
        return ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token})


class Gcp:
    """Preemption, and maintenance that ends the machine (accelerators cannot be migrated)."""

    name = "Google Cloud"
    tries = 3

    def look(self, ask: Ask) -> CloudNotice | None:
        if self._word(ask, "preempted") == "TRUE":
            return CloudNotice("Google Cloud preemption")
        if self._word(ask, "maintenance-event") == "TERMINATE_ON_HOST_MAINTENANCE":
            return CloudNotice("Google Cloud host maintenance")
        return None

    def _word(self, ask: Ask, name: str) -> str:
        answer = ask(f"/computeMetadata/v1/instance/{name}", {"Metadata-Flavor": "Google"})
        if answer is None:
            raise Silence(f"it does not know instance/{name}; GKE's metadata server hides it from pods")
        return answer.decode("ascii", "replace").strip()


class Azure:
    """Scheduled events; those of other machines of the scale set are listed as well."""

    name = "Azure"
    tries = 90  # the first question turns the service on, which can take two minutes

    def __init__(self) -> None:
        self._machine: str | None = None

    def look(self, ask: Ask) -> CloudNotice | None:
        headers = {"Metadata": "true"}
        if self._machine is None:
            name = ask("/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
            if not name:
                raise Silence("it does not say this machine's name")
            self._machine = name.decode("utf-8", "replace").strip()
        answer = ask("/metadata/scheduledevents?api-version=2020-07-01", headers)
        if answer is None:
            raise Silence("it does not know scheduled events")
        events = _read_json(answer).get("Events") or ()
        for event in events if isinstance(events, list) else ():
            if not isinstance(event, dict) or event.get("EventType") not in ("Preempt", "Terminate"):
                continue
            resources = event.get("Resources")
            if isinstance(resources, list) and self._machine in resources:
                return CloudNotice(f"Azure {event['EventType']} event", _time(event.get("NotBefore")))
        return None


CLOUDS: dict[str, Callable[[], Cloud]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


def _read_json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Silence(f"an answer that is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Silence("an answer that is no JSON object")
    return value


def _time(text: object) -> datetime | None:
    """RFC 3339 or RFC 1123; None for anything else: a notice without a readable time is still one."""
    if not isinstance(text, str):
        return None
    try:
        return parse_time(text)
    except ContractError:
        pass
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def http_ask(url: str) -> Ask:
    """Requests to the metadata service at this URL, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def ask(path: str, headers: dict[str, str], method: str = "GET") -> bytes | None:
        request = urllib.request.Request(url.rstrip("/") + path, headers=headers, method=method)
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                body: bytes = answer.read(MAX_ANSWER_BYTES)
                return body
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            if error.code == 401:
                raise PermissionError("401: the session token is not accepted") from None
            raise Silence(f"HTTP status {error.code}") from None
        except Exception as error:  # noqa: BLE001  http.client has errors of its own; none may end the thread
            raise Silence(f"{type(error).__name__}: {error}") from None

    return ask


class Poll:
    """Looks for a notice every two seconds until there is one, or until nobody answers."""

    def __init__(
        self,
        cloud: Cloud,
        ask: Ask,
        *,
        on_notice: Callable[[CloudNotice], None],
        on_silence: Callable[[str], None],
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        """The callbacks are called on the poll's own thread, one of them and only once."""
        self._cloud, self._ask, self._period = cloud, ask, period_seconds
        self._on_notice, self._on_silence = on_notice, on_silence
        self._closing = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="spot-notice-endpoint", daemon=True).start()

    def close(self) -> None:
        """Ask no more; does not wait."""
        self._closing.set()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                notice = self._cloud.look(self._ask)
                failures = 0
            except Silence as silence:
                notice, failures = None, failures + 1
                if failures >= self._cloud.tries:
                    self._on_silence(
                        f"the notice endpoint of {self._cloud.name} is not asked any more after {failures} "
                        f"failures ({silence}): only SIGTERM will tell of a reclaim"
                    )
                    return
            if notice is not None and not self._closing.is_set():
                self._on_notice(notice)
                return
            self._closing.wait(max(0.0, began + self._period - time.monotonic()))
