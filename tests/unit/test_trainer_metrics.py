"""What the trainer tells Prometheus, the operator and its outcome about checkpoints."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import spot_trainer as spot
from spot_trainer.contract import ContractError, Outcome, SaveTotals, parse_outcome
from spot_trainer.lineage import AttemptName
from spot_trainer.saver import Save, Saved
from spot_trainer.settings import read_settings
from spot_trainer.store import StoreUnavailable
from spot_trainer.tally import Tally
from spot_trainer.testing import FaultyStore, MemoryStore

NAME = AttemptName.make(7, 1, "0123456789abcdef", 1)
SAVE = Save(step=7, began=10.0, stall_seconds=0.25, num_bytes=1000)


def test_a_tally_counts_what_became_durable_and_every_stall() -> None:
    good, bad = Saved(SAVE, NAME, None, 12.0), Saved(SAVE, None, OSError(), 13.0)
    tally = Tally().after_save(good).after_save(bad).after_save(replace(good, ended=11.0))
    assert tally.totals == SaveTotals(count=2, failed=1, num_bytes=2000, seconds=3.0, stall_seconds=0.75)
    assert tally.metrics == {
        "checkpoint_bytes": "1000",
        "checkpoint_seconds": "1.000",
        "checkpoint_stall_seconds": "0.2500",
    }
    assert Tally().metrics == {}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    found = {sample.name: sample.value for sample in samples}
    (info,) = [s.labels for s in samples if s.name == "spot_trainer_run_info"]
    assert (info["job"], info["capacity_type"]) == ("local", "local")
    return {**found, "incarnation": float(info["incarnation"])}


def read_events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_prometheus_sees_steps_saves_failures_and_what_a_loss_would_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("SPOT_METRICS_PORT", str(port))
    memory, is_away = MemoryStore(), False

    def fault(operation: str, key: str) -> None:
        if is_away and operation == "put" and key.startswith("attempts/"):
            raise StoreUnavailable("away")

    with spot.Run(values=spot.Values(x=1), checkpoint=FaultyStore(memory, fault=fault)) as run:
        assert scrape(port)["spot_trainer_step"] == 0
        for step in run.steps(10):
            run.step_done(loss=1.0)
            if step == 3:
                assert run.save()
                size = sum(len(v) for k, v in memory.objects.items() if k.endswith(".bin"))
            if step == 5:
                is_away = True
                assert not run.save()
                seen = scrape(port)
                is_away = False
    assert seen["spot_trainer_step"] == seen["spot_trainer_steps_total"] == 6
    assert seen["spot_trainer_total_steps"] == 10
    assert seen["spot_trainer_checkpoint_step"] == 4
    assert seen["spot_trainer_unsaved_steps"] == 2
    assert seen["spot_trainer_checkpoint_failures_total"] == 1
    assert seen["spot_trainer_checkpoint_seconds_count"] == 1
    assert seen["spot_trainer_checkpoint_seconds_sum"] > 0
    assert seen["spot_trainer_checkpoint_stall_seconds_total"] > 0
    assert 0 < seen["spot_trainer_checkpoint_age_seconds"] < 60
    assert seen["spot_trainer_checkpoint_bytes_total"] >= size > 0
    assert "spot_trainer_restore_seconds" not in seen
    with pytest.raises(OSError, match="refused"):
        scrape(port)  # nothing listens when the run is over
    outcome = read_events(capsys)[-1]
    assert outcome["saves"]["count"] == 2
    assert outcome["saves"]["failed"] == 1

    with spot.Run(values=spot.Values(x=1), checkpoint=memory) as again:
        seen = scrape(port)
        for _ in again.steps(12):
            again.step_done()
        later = scrape(port)
    assert seen["incarnation"] == 2
    assert (seen["spot_trainer_step"], seen["spot_trainer_steps_total"]) == (10, 0)
    assert later["spot_trainer_steps_total"] == 2
    assert seen["spot_trainer_restore_seconds"] > 0
    assert seen["spot_trainer_restore_bytes"] >= size
    (resume,) = [event for event in read_events(capsys) if event["event"] == "resume"]
    assert resume["bytes"] == seen["spot_trainer_restore_bytes"]


def test_a_port_that_is_taken_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_INET) as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("SPOT_METRICS_PORT", str(port))
        with spot.Run(values=spot.Values(x=1), checkpoint=MemoryStore()) as run:
            for _ in run.steps(2):
                run.step_done()
    events = read_events(capsys)
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert f"no metrics on port {port}: Address already in use" in warning
    assert events[-1]["outcome"] == "complete"


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "²"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ContractError, match="use a port from 1 to 65535"):
        read_settings({"SPOT_METRICS_PORT": port})


@pytest.mark.parametrize(
    "saves", [5, {"count": -1}, {"bytes": "many"}, {"seconds": -0.5}, {"stallSeconds": True}]
)
def test_an_outcome_with_odd_totals_is_none(saves: object) -> None:
    outcome = Outcome(kind="stopped", reason="Notice", incarnation=1, step=1)  # type: ignore[arg-type]
    assert parse_outcome(json.dumps({**json.loads(outcome.to_json()), "saves": saves})) is None


def test_no_metrics_package_is_needed_where_nobody_scrapes() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import spot_trainer as spot\n"
        "from spot_trainer.testing import MemoryStore\n"
        "with spot.Run(values=spot.Values(x=1), checkpoint=MemoryStore()) as run:\n"
        "    for _ in run.steps(1): run.step_done()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    port = {"SPOT_METRICS_PORT": str(free_port())}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **port}
    )
    assert told.returncode == 0, told.stderr
    assert "install prometheus-client" in told.stdout
