"""The example, killed again and again, ends where the uninterrupted run ends, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from training import EXAMPLE, pod_environ, spot_trainer_command, training

pytestmark = pytest.mark.faults

COMMAND = [str(EXAMPLE), "--epochs=4", "--log-seconds=0"]
TOTAL = 4 * 29


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    uri = f"file://{folder}/ckpt"
    with training(COMMAND, pod_environ(folder, uri)) as process:
        assert process.wait() == 0, process.report()
    return uri


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_three_times_it_equals_the_uninterrupted_run(
    number: signal.Signals, reference: str, tmp_path: Path
) -> None:
    uri, incarnation, last = f"file://{tmp_path}/ckpt", 1, 0
    for incarnation in (1, 2, 3):
        environ = pod_environ(tmp_path, uri, incarnation=incarnation)
        with training([*COMMAND, "--step-seconds=0.04"], environ) as process:
            saved = process.wait_for_event("checkpoint")
            process.signal(number)
            assert process.wait() == (75 if number is signal.SIGTERM else -9)
            if number is signal.SIGTERM:
                outcome = process.outcome()
                assert outcome is not None
                assert outcome.checkpoint is not None
                assert outcome.checkpoint.step == outcome.step >= saved["step"]
            resumed = [event["step"] for event in process.events if event["event"] == "resume"]
            assert resumed == ([] if incarnation == 1 else [resumed[0]])
            assert not resumed or resumed[0] >= last
            last = saved["step"]
    with training(COMMAND, pod_environ(tmp_path, uri, incarnation=4)) as process:
        assert process.wait() == 0, process.report()
    code, text = spot_trainer_command("compare", reference, uri)
    assert (code, text.startswith(f"EQUAL at step {TOTAL}")) == (0, True), text
    assert samples(uri) == samples(reference)


def samples(uri: str) -> dict[int, tuple[object, object]]:
    """Per step what was trained on and the loss; a step that was repeated must have repeated both."""
    code, text = spot_trainer_command("history", uri)
    assert code == 0, text
    found: dict[int, tuple[object, object]] = {}
    for line in map(json.loads, text.splitlines()):
        value = (line["samples"], line["metrics"])
        assert found.setdefault(line["step"], value) == value
    assert sorted(found) == list(range(1, TOTAL + 1))
    return found


def test_another_seed_is_another_run(reference: str, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/ckpt"
    with training([*COMMAND, "--seed=1"], pod_environ(tmp_path, uri)) as process:
        assert process.wait() == 0, process.report()
    code, text = spot_trainer_command("compare", reference, uri)
    assert (code, text.startswith("DIFFERENT")) == (1, True), text


def test_a_checkpoint_damaged_on_disk_is_passed_over(reference: str, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/ckpt"
    with training([*COMMAND, "--step-seconds=0.04"], pod_environ(tmp_path, uri)) as process:
        process.wait_for_event("checkpoint", count=2)
        process.signal(signal.SIGKILL)
        process.wait()
    newest = sorted((tmp_path / "ckpt" / "attempts").glob("*/MANIFEST.json"))[-1].parent
    data = newest / "data-00000.bin"
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 4
    data.write_bytes(content)
    code, text = spot_trainer_command("inspect", "--deep", uri)
    assert (code, f"attempts/{newest.name}  DAMAGED" in text) == (1, True), text
    with training(COMMAND, pod_environ(tmp_path, uri, incarnation=2)) as process:
        assert process.wait() == 0, process.report()
        warning = process.wait_for_event("warning")
        resume = process.wait_for_event("resume")
    assert newest.name in warning["message"]
    assert resume["checkpoint"] < newest.name
    assert newest.exists()
    code, text = spot_trainer_command("compare", reference, uri)
    assert code == 0, text
