"""Progress reaches the operator, directives come back, and training never waits for either."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import spot_trainer as spot
from spot_trainer.contract import CapacityType, Directives, Environment, ProgressReport, parse_progress
from spot_trainer.report import Pace, Reporter
from spot_trainer.testing import MemoryStore


class Server:
    """A status server on loopback that remembers what it was told."""

    def __init__(self) -> None:
        self.bodies: list[ProgressReport] = []
        self.tokens: list[str | None] = []
        self.answer = Directives().to_json().encode()
        self.code = 200
        self.release = threading.Event()
        self.release.set()
        self.news = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with owner.news:
                    owner.bodies.append(parse_progress(body))
                    owner.tokens.append(self.headers["Authorization"])
                    owner.news.notify_all()
                owner.release.wait(10)
                self.send_response(owner.code)
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/status"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.bodies) >= count, timeout=10)

    def close(self) -> None:
        self.release.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def make_reporter(server: Server, **options: Any) -> Reporter:
    return Reporter(
        server.url,
        current=lambda: ProgressReport(step=7, incarnation=1),
        period_seconds=60,
        min_period_seconds=0.01,
        **options,
    )


def test_a_report_is_posted_at_the_start_on_waking_and_at_the_end(server: Server) -> None:
    reporter = make_reporter(server)
    reporter.start()
    server.wait_for(1)
    time.sleep(0.05)
    reporter.wake()
    server.wait_for(2)
    reporter.close(5)
    assert len(server.bodies) >= 3
    assert server.bodies[0] == ProgressReport(step=7, incarnation=1)


def test_the_token_is_read_again_for_each_report(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    reporter = make_reporter(server, token=str(token))
    reporter.start()
    server.wait_for(1)
    token.write_text("second\n")
    reporter.close(5)
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_directives_are_handed_over(server: Server) -> None:
    heard: list[Directives] = []
    server.answer = Directives(checkpoint_now="a", stop="Reclaim").to_json().encode()
    reporter = make_reporter(server, on_directives=heard.append)
    reporter.start()
    reporter.close(5)
    assert heard[0] == Directives(checkpoint_now="a", stop="Reclaim")


@pytest.mark.parametrize("answer", [b"", b"not json", b"[]", b'{"directives":{"stop":5}}', b"x" * 100_000])
def test_a_wrong_answer_is_no_directive_and_ends_nothing(answer: bytes, server: Server) -> None:
    heard: list[Directives] = []
    server.answer = answer
    reporter = make_reporter(server, on_directives=heard.append)
    reporter.start()
    server.wait_for(1)
    reporter.close(5)
    assert len(server.bodies) == 2
    assert heard == []


def test_a_server_that_does_not_answer_holds_nobody_up(server: Server) -> None:
    server.release.clear()
    reporter = make_reporter(server)
    reporter.start()
    server.wait_for(1)
    began = time.monotonic()
    reporter.wake()
    reporter.close(0.2)
    assert time.monotonic() - began < 3


def set_environment(monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path) -> None:
    environment = Environment(
        job_name="j", job_namespace="n", job_uid="u", job_created=datetime(2026, 1, 1, tzinfo=UTC),
        pod_name="p", pod_uid="pu", incarnation=1, capacity_type=CapacityType.SPOT, run_id="n/j",
        status_url=server.url, termination_log=str(tmp_path / "log"),
    )  # fmt: skip
    for name, value in environment.to_environ().items():
        monkeypatch.setenv(name, value)


def test_a_run_follows_directives(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, server, tmp_path)
    server.answer = Directives(checkpoint_now="once").to_json().encode()
    store = MemoryStore()
    run = spot.Run(checkpoint=store, log_seconds=1e9)
    with pytest.raises(SystemExit) as caught, run:  # noqa: PT012  (the loop is what is tested)
        for step in run.steps(100_000):
            time.sleep(0.01)
            if step == 50:
                server.answer = Directives(checkpoint_now="once", stop="Reclaim").to_json().encode()
            run.step_done(loss=1.5)
    assert caught.value.code == 75
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len([event for event in events if event["event"] == "checkpoint"]) == 2
    assert events[-1]["reason"] == "StopRequested"
    last = server.bodies[-1]
    assert last.durable_step == last.step == run.step
    assert last.metrics["loss"] == "1.5"
    ours = {"checkpoint_bytes", "checkpoint_seconds", "checkpoint_stall_seconds", "steps_per_second"}
    assert set(last.metrics) == {"loss", *ours}
    assert 0 < float(last.metrics["steps_per_second"]) < 100


def test_a_directive_changes_the_interval_of_a_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, server, tmp_path)
    server.answer = Directives(checkpoint_interval_seconds=1).to_json().encode()
    with spot.Run(checkpoint=MemoryStore(), log_seconds=1e9) as run:
        for _ in run.steps(150):
            time.sleep(0.01)
            run.step_done(loss=1.5)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len([event for event in events if event["event"] == "checkpoint"]) >= 2  # one of them the last


def test_the_remaining_time_counts_the_steps_of_this_process_only() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    assert pace.remaining_seconds(5, 10) is None
    pace.begin(500)
    now[0] = 110.0
    assert pace.remaining_seconds(520, 600) == 40
    assert pace.remaining_seconds(520, None) is None
