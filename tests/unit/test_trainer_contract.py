"""The words that operator and trainer share survive a round trip and bound what a pod can say."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_trainer import contract
from spot_trainer.contract import (
    CapacityType,
    CheckpointRef,
    ContractError,
    Directives,
    Environment,
    Outcome,
    OutcomeKind,
    ProgressReport,
    SaveTotals,
)

MOMENT = datetime(2026, 12, 1, 6, 0, tzinfo=UTC)
FULL = Environment(
    job_name="digits",
    job_namespace="team-a",
    job_uid="0a1b2c3d-0000-4000-8000-000000000001",
    job_created=MOMENT,
    pod_name="digits-0a1b2-3-0",
    pod_uid="0a1b2c3d-0000-4000-8000-000000000002",
    incarnation=3,
    capacity_type=CapacityType.ON_DEMAND,
    run_id="team-a/digits",
    checkpoint_uri="s3://bucket/prefix",
    checkpoint_interval_seconds=7,
    deadline=MOMENT + timedelta(days=1),
    template_fingerprint="f00",
    status_url="https://spot.system.svc:8443/x",
)
OUTCOME = Outcome(
    saves=SaveTotals(count=3, failed=1, num_bytes=10**12, seconds=4.5, stall_seconds=0.25),
    kind=OutcomeKind.STOPPED,
    reason="Notice",
    incarnation=3,
    step=120,
    checkpoint=CheckpointRef(name="000000000120-00000003-ab", step=120),
    message="stopped",
)


def test_the_environment_survives_a_round_trip() -> None:
    assert Environment.from_environ(FULL.to_environ()) == FULL


def test_an_empty_optional_variable_counts_as_unset() -> None:
    environ = FULL.to_environ() | {"SPOT_DEADLINE": "", "SPOT_CHECKPOINT_URI": ""}
    environment = Environment.from_environ(environ)
    assert (environment.deadline, environment.checkpoint_uri) == (None, None)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SPOT_CONTRACT_VERSION", "2", "SPOT_CONTRACT_VERSION=2 is newer than this trainer library"),
        ("SPOT_JOB_NAME", "", "SPOT_JOB_NAME is not set"),
        ("SPOT_INCARNATION", "0", "SPOT_INCARNATION='0': expected a whole number of at least 1"),
        ("SPOT_INCARNATION", "-1", "SPOT_INCARNATION='-1': expected a whole number of at least 1"),
        ("SPOT_CAPACITY_TYPE", "Spot", "SPOT_CAPACITY_TYPE='Spot': expected one of spot, on-demand"),
        ("SPOT_CHECKPOINT_KEEP", "1", "SPOT_CHECKPOINT_KEEP='1': expected a whole number of at least 2"),
        ("SPOT_CHECKPOINT_URI", "/ckpt", "SPOT_CHECKPOINT_URI='/ckpt': expected file:///path or s3://"),
        ("SPOT_DEADLINE", "tomorrow", "SPOT_DEADLINE='tomorrow': 'tomorrow' is not a time"),
        ("SPOT_NODE_RANK", "1", "SPOT_NODE_RANK=1 must be less than SPOT_NODES=1"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(variable: str, value: str, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        Environment.from_environ(FULL.to_environ() | {variable: value})
    assert str(caught.value).startswith(message)


def test_the_outcome_survives_a_round_trip() -> None:
    assert contract.parse_outcome(OUTCOME.to_json()) == OUTCOME


@given(message=st.text(max_size=3000), name=st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True))
def test_an_outcome_always_fits_and_stays_json(message: str, name: str) -> None:
    outcome = Outcome(
        kind=OutcomeKind.FAILED,
        reason="R" * 64,
        incarnation=2**53 - 1,
        step=2**53 - 1,
        checkpoint=CheckpointRef(name=name, step=2**53 - 1),
        message=message,
    )
    text = outcome.to_json()
    assert len(text.encode()) <= contract.MAX_OUTCOME_BYTES
    parsed = contract.parse_outcome(text)
    assert parsed is not None
    assert contract.clean_text(message).startswith(parsed.message)
    assert parsed.checkpoint == outcome.checkpoint


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from([*json.loads(OUTCOME.to_json())]), inner)
            ),
        ).map(json.dumps),
    )
)
def test_nothing_a_pod_writes_makes_parsing_raise(text: str | bytes) -> None:
    parsed = contract.parse_outcome(text)
    assert parsed is None or contract.parse_outcome(parsed.to_json()) == parsed
    for parse in (contract.parse_progress, contract.parse_directives):
        with contextlib.suppress(ContractError):
            parse(text)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"outcome": "done"},
        {"outcome": ["complete"]},
        {"reason": "two words"},
        {"step": -1},
        {"step": True},
        {"step": 1.5},
        {"incarnation": 0},
        {"checkpoint": "x"},
        {"checkpoint": {"name": "../x", "step": 1}},
        {"message": 5},
    ],
)
def test_an_outcome_that_is_not_exact_is_no_outcome(change: dict[str, object]) -> None:
    assert contract.parse_outcome(json.dumps(json.loads(OUTCOME.to_json()) | change)) is None


def test_a_cut_or_deeply_nested_outcome_is_no_outcome() -> None:
    assert contract.parse_outcome(OUTCOME.to_json()[:-2]) is None
    assert contract.parse_outcome("[" * 4000) is None
    assert contract.parse_outcome(None) is None


def test_a_report_survives_a_round_trip() -> None:
    report = ProgressReport(
        progress_percentage=40,
        estimated_remaining_seconds=90,
        metrics={"loss": "0.5"},
        last_updated_time=MOMENT,
        step=40,
        total_steps=100,
        durable_step=30,
        durable_time=MOMENT,
        checkpoint_name="000000000030-00000001-ab",
        incarnation=1,
    )
    assert contract.parse_progress(report.to_json()) == report


def test_the_report_of_another_client_is_accepted() -> None:
    body = {
        "trainerStatus": {
            "lastUpdatedTime": "2026-12-01T06:00:00.123456+00:00",
            "progressPercentage": 5,
            "metrics": [{"name": "loss", "value": "1.0"}],
        }
    }
    report = contract.parse_progress(json.dumps(body))
    assert (report.progress_percentage, report.step, report.metrics) == (5, None, {"loss": "1.0"})


@pytest.mark.parametrize(
    "body",
    [
        {"trainerStatus": {"progressPercentage": 101}},
        {"trainerStatus": []},
        {"trainerStatus": {"metrics": {"loss": 1}}},
        {"step": "5"},
        {"durableTime": "2026-12-01"},
        {"incarnation": 0},
    ],
)
def test_a_report_with_a_wrong_value_is_refused(body: object) -> None:
    with pytest.raises(ContractError):
        contract.parse_progress(json.dumps(body))


def test_hostile_text_in_a_report_is_cleaned_and_cut() -> None:
    metrics = [{"name": f"m{i}", "value": "\x1b[2J" + "x" * 400} for i in range(100)]
    report = contract.parse_progress(json.dumps({"trainerStatus": {"metrics": metrics}}))
    assert len(report.metrics) == contract.MAX_METRICS
    assert report.metrics["m0"].startswith("[2J")
    assert all(len(value) <= contract.MAX_VALUE_CHARS for value in report.metrics.values())


def test_directives_survive_a_round_trip() -> None:
    directives = Directives(
        mean_seconds_between_losses=7200,
        checkpoint_now="id-1",
        checkpoint_interval_seconds=30,
        deadline=MOMENT,
        stop="Reclaim",
        predecessor_dead=2,
    )
    assert contract.parse_directives(directives.to_json()) == directives
    assert contract.parse_directives("{}") == Directives()


def test_importing_the_contract_loads_neither_torch_nor_numpy_nor_boto3() -> None:
    source_root = Path(contract.__file__).parents[1]
    heavy = ("torch", "numpy", "boto3", "xxhash", "kopf", "kubernetes")
    code = f"import sys, spot_trainer.contract; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(source_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
