"""The clouds' notice endpoints: what each says, when it says nothing, and that training never waits."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import spot_trainer as spot
from spot_trainer import notice_endpoint as endpoints
from spot_trainer.contract import ContractError
from spot_trainer.notice_endpoint import Ask, Aws, Azure, Cloud, CloudNotice, Gcp, Poll, Silence, http_ask
from spot_trainer.settings import read_settings
from spot_trainer.testing import MemoryStore

ACTION = "/latest/meta-data/spot/instance-action"
TOKEN = "/latest/api/token"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
AT = datetime(2026, 1, 1, 12, 2, tzinfo=UTC)


@dataclass
class Service:
    """A metadata service on loopback; 404 where it has no answer. Names of headers are in lower case."""

    answers: dict[str, bytes] = field(default_factory=dict)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    token: str = "token-1"
    status: int = 0
    url: str = ""

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        self.headers.append((path, headers))
        if self.status:
            return self.status, b""
        if path == TOKEN:
            assert method == "PUT"
            return 200, self.token.encode()
        if path == ACTION and headers.get("x-aws-ec2-metadata-token") != self.token:
            return 401, b""
        found = self.answers.get(path)
        return (404, b"") if found is None else (200, found)


@pytest.fixture
def service() -> Iterator[Service]:
    owner = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = owner.answer(self.command, self.path, headers)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", owner.url + ACTION)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    owner.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield owner
    server.shutdown()
    server.server_close()
    thread.join()


def event(kind: str, *machines: str, before: str = "Thu, 01 Jan 2026 12:02:00 GMT") -> bytes:
    return json.dumps(
        {"Events": [{"EventType": kind, "Resources": machines, "NotBefore": before}, "nonsense"]}
    ).encode()


@pytest.mark.parametrize(
    ("cloud", "answers", "want"),
    [
        (Aws, {}, None),
        (
            Aws,
            {ACTION: b'{"action":"terminate","time":"2026-01-01T12:02:00Z"}'},
            CloudNotice("AWS spot interruption (terminate)", AT),
        ),
        (Aws, {ACTION: b'{"action":"stop"}'}, CloudNotice("AWS spot interruption (stop)")),
        (Aws, {ACTION: b'{"action":"stop","time":"soon"}'}, CloudNotice("AWS spot interruption (stop)")),
        (Gcp, {PREEMPTED: b"FALSE", MAINTENANCE: b"NONE"}, None),
        (Gcp, {PREEMPTED: b"FALSE", MAINTENANCE: b"MIGRATE_ON_HOST_MAINTENANCE"}, None),
        (Gcp, {PREEMPTED: b"TRUE\n"}, CloudNotice("Google Cloud preemption")),
        (
            Gcp,
            {PREEMPTED: b"FALSE", MAINTENANCE: b"TERMINATE_ON_HOST_MAINTENANCE"},
            CloudNotice("Google Cloud host maintenance"),
        ),
        (Azure, {NAME: b"pool_4", EVENTS: b'{"Events":[]}'}, None),
        (Azure, {NAME: b"pool_4", EVENTS: event("Preempt", "pool_5")}, None),
        (Azure, {NAME: b"pool_4", EVENTS: event("Reboot", "pool_4")}, None),
        (
            Azure,
            {NAME: b"pool_4", EVENTS: event("Preempt", "pool_5", "pool_4")},
            CloudNotice("Azure Preempt event", AT),
        ),
        (
            Azure,
            {NAME: b"pool_4", EVENTS: event("Terminate", "pool_4", before="")},
            CloudNotice("Azure Terminate event"),
        ),
    ],
)
def test_what_each_cloud_says(
    cloud: Callable[[], Cloud], answers: dict[str, bytes], want: CloudNotice | None, service: Service
) -> None:
    service.answers = answers
    assert cloud().look(http_ask(service.url)) == want


def test_each_cloud_gets_the_header_without_which_it_refuses(service: Service) -> None:
    service.answers = {PREEMPTED: b"TRUE", NAME: b"x", EVENTS: b"{}"}
    for cloud in (Aws(), Gcp(), Azure()):
        cloud.look(http_ask(service.url))
    sent = dict(service.headers)
    assert sent[TOKEN]["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
    assert sent[PREEMPTED]["metadata-flavor"] == "Google"
    assert sent[EVENTS]["metadata"] == sent[NAME]["metadata"] == "true"


def test_an_expired_session_token_is_renewed(service: Service) -> None:
    aws, ask = Aws(), http_ask(service.url)
    assert aws.look(ask) is None
    service.token = "token-2"
    service.answers = {ACTION: b'{"action":"terminate"}'}
    assert aws.look(ask) is not None


@pytest.mark.parametrize(
    ("cloud", "answers", "status", "text"),
    [
        (Aws, {ACTION: b"<html>"}, 0, "not JSON"),
        (Aws, {ACTION: b"[]"}, 0, "no JSON object"),
        (Aws, {}, 401, "401"),
        (Aws, {}, 500, "500"),
        (Aws, {}, 302, "302"),  # a captive portal; whatever it leads to is not the machine's own word
        (Gcp, {}, 0, "GKE's metadata server hides it"),
        (Azure, {}, 0, "this machine's name"),
        (Azure, {NAME: b"x"}, 0, "does not know scheduled events"),
        (Azure, {NAME: b"x", EVENTS: b'{"Events": 5}'}, 0, None),
        (Azure, {NAME: b"x", EVENTS: b'{"Events":[{"EventType":"Preempt","Resources":5}]}'}, 0, None),
    ],
)
def test_an_answer_that_makes_no_sense_is_silence(
    cloud: Callable[[], Cloud], answers: dict[str, bytes], status: int, text: str | None, service: Service
) -> None:
    service.answers, service.status = answers, status
    if text is None:
        assert cloud().look(http_ask(service.url)) is None
        return
    with pytest.raises(Silence, match=text):
        cloud().look(http_ask(service.url))


def poll(cloud: Cloud, ask: Ask) -> tuple[Poll, list[CloudNotice], list[str]]:
    notices: list[CloudNotice] = []
    silences: list[str] = []
    return (
        Poll(cloud, ask, on_notice=notices.append, on_silence=silences.append, period_seconds=0.01),
        notices,
        silences,
    )


def wait_until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_notice_is_told_once_and_ends_the_asking(service: Service) -> None:
    asking, notices, silences = poll(Aws(), http_ask(service.url))
    asking.start()
    wait_until(lambda: len(service.headers) > 4)
    service.answers = {ACTION: b'{"action":"terminate"}'}
    wait_until(lambda: notices)
    time.sleep(0.1)
    assert (len(notices), silences) == (1, [])


def test_a_few_failures_are_borne_and_three_in_a_row_end_the_asking(service: Service) -> None:
    answers = iter([Silence("a"), Silence("b"), None, Silence("c"), Silence("d"), None])
    asked: list[str] = []

    def ask(path: str, headers: dict[str, str], method: str = "GET") -> bytes | None:
        if path == TOKEN:
            return b"t"
        asked.append(path)
        answer = next(answers, Silence("hung"))
        if answer is not None:
            raise answer
        return None

    asking, notices, silences = poll(Aws(), ask)
    asking.start()
    wait_until(lambda: silences)
    assert len(asked) == 9
    assert notices == []
    assert "AWS is not asked any more after 3 failures (hung)" in silences[0]


def test_a_closed_poll_asks_no_more(service: Service) -> None:
    asking, _, _ = poll(Aws(), http_ask(service.url))
    asking.start()
    wait_until(lambda: service.headers)
    asking.close()
    time.sleep(0.1)
    asked = len(service.headers)
    time.sleep(0.1)
    assert len(service.headers) == asked


def train(
    service_url: str, monkeypatch: pytest.MonkeyPatch, *, steps: int, cloud: str = "aws"
) -> tuple[object, float, spot.Run]:
    """Exit code, longest step in seconds, and the run."""
    monkeypatch.setenv("SPOT_NOTICE_ENDPOINT", cloud)
    monkeypatch.setenv("SPOT_NOTICE_ENDPOINT_URL", service_url)
    run, longest, code = spot.Run(values=spot.Values(x=1), checkpoint=MemoryStore()), 0.0, None
    try:
        with run:
            before = time.monotonic()
            for _ in run.steps(steps):
                time.sleep(0.01)
                run.step_done()
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
    except SystemExit as ended:
        code = ended.code
    return code, longest, run


def test_a_run_that_is_told_by_its_cloud_saves_and_leaves(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threading.Timer(
        0.3, lambda: service.answers.update({ACTION: b'{"action":"terminate","time":"2999-01-01T00:00:00Z"}'})
    ).start()
    monkeypatch.setattr(endpoints.Poll.__init__, "__kwdefaults__", {"period_seconds": 0.05})
    code, _, run = train(service.url, monkeypatch, steps=2000)
    assert code == 75
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (notice,) = [event for event in events if event["event"] == "notice"]
    assert notice["cause"] == "AWS spot interruption (terminate)"
    assert 20 < notice["remainingSeconds"] <= 30  # the grace period, since the cloud leaves longer
    assert events[-1]["reason"] == "Notice"
    assert f"saved at step {run.step}" in events[-1]["message"]


def test_the_cloud_may_leave_less_than_the_grace_period(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = datetime.fromtimestamp(time.time() + 8, UTC).isoformat().replace("+00:00", "Z")
    answer = json.dumps({"action": "stop", "time": soon}).encode()
    threading.Timer(0.3, lambda: service.answers.update({ACTION: answer})).start()
    monkeypatch.setattr(endpoints.Poll.__init__, "__kwdefaults__", {"period_seconds": 0.05})
    assert train(service.url, monkeypatch, steps=2000)[0] == 75
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (notice,) = [event for event in events if event["event"] == "notice"]
    assert 3 < notice["remainingSeconds"] < 8


def test_a_service_out_of_reach_costs_training_nothing_but_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a pod behind a hop limit of 1: connections are taken and nothing ever comes back."""
    monkeypatch.setattr(endpoints, "TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(endpoints.Poll.__init__, "__kwdefaults__", {"period_seconds": 0.05})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, longest, _ = train(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch, steps=250)
    assert (code, longest < 0.5) == (None, True)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert "the notice endpoint of AWS is not asked any more after 3 failures (TimeoutError" in warning
    assert events[-1]["outcome"] == "complete"


def test_nobody_is_asked_unless_it_is_wished(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    train(service.url, monkeypatch, steps=3, cloud="")
    assert service.headers == []


def test_an_unknown_cloud_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ContractError, match="use one of aws, gcp, azure"):
        read_settings({"SPOT_NOTICE_ENDPOINT": "oracle"})
