"""`spot-trainer verify` finds scripts sound that are, and names what the others forget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import ROOT

pytestmark = pytest.mark.faults

SCRIPT = """
import spot_trainer as spot
import argparse, itertools, random, time
import numpy as np
import torch
from torch import nn

torch.manual_seed(0); np.random.seed(0); random.seed(0)
torch.set_num_threads(1)
data = torch.randn(96, 8, generator=torch.manual_seed(3))
target = data.sum(dim=1, keepdim=True)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.93 ** min(step, 50))  # aperiodic
"""
SAMPLER = """
sampler = spot.ShuffledSampler(96, seed=1)
loader = torch.utils.data.DataLoader(list(range(96)), batch_size=8, sampler=sampler)
run = spot.Run(model=model, {parts}sampler=sampler)
with run:
    for index in run.batches(loader, epochs=5):
"""
STEP = """
        time.sleep(0.03)
        loss = (model(data[index]{noise}) - target[index]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); scheduler.step()
        run.step_done(loss=loss.item())
"""
OWN_LOADER = """
def endless():
    generator = np.random.RandomState(5)
    while True:
        yield from generator.permutation(96).reshape(12, 8)
batches = endless()
run = spot.Run(model=model, optimizer=optimizer, scheduler=scheduler)
with run:
    for step in run.steps(60):
        index = next(batches)
"""
SOUND = SCRIPT + SAMPLER.format(parts="optimizer=optimizer, scheduler=scheduler, ") + STEP.format(noise="")
NO_OPTIMIZER = SCRIPT + SAMPLER.format(parts="scheduler=scheduler, ") + STEP.format(noise="")
NO_SCHEDULER = SCRIPT + SAMPLER.format(parts="optimizer=optimizer, ") + STEP.format(noise="")
NO_SAMPLER = SCRIPT + OWN_LOADER + STEP.format(noise="")
OWN_GENERATOR = (
    SCRIPT
    + "own = np.random.default_rng(11)\n"
    + SAMPLER.format(parts="optimizer=optimizer, scheduler=scheduler, ")
    + STEP.format(noise=" + torch.from_numpy(own.normal(size=(8, 8))).float()")
)
PLAIN = """
import os, sys, time
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
path, first = sys.argv[1], 0
if os.path.exists(path):
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    torch.set_rng_state(saved["torch"])
    first = saved["step"]
    {load}
    print(f"went on from step {first}")
for step in range(first, 40):
    time.sleep(0.03)
    loss = model(torch.randn(16, 4)).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    print(f"step {step + 1} loss {loss.item():.17g} took {time.time():.3f} s")
    if step % 4 == 3:
        kept = {"model": model.state_dict(), "torch": torch.get_rng_state(), "step": step + 1}
        {save}
        torch.save(kept, path + ".new")
        os.replace(path + ".new", path)
"""
PLAIN_SOUND = PLAIN.replace("{load}", 'optimizer.load_state_dict(saved["optimizer"])').replace(
    "{save}", 'kept["optimizer"] = optimizer.state_dict()'
)
PLAIN_FORGETFUL = PLAIN.replace("{load}", "pass").replace("{save}", "pass")


def verify(tmp_path: Path, script: str, *options: str, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
    (tmp_path / "train.py").write_text(script)
    command = [*spot_trainer("verify", *options), "--", sys.executable, "train.py", *arguments]
    result = subprocess.run(
        command, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=300, check=False
    )
    return result.returncode, result.stdout + result.stderr


def spot_trainer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "spot_trainer", *arguments]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "trainer")}


def test_a_sound_script_is_equal_over_sigterm_and_sigkill(tmp_path: Path) -> None:
    code, text = verify(tmp_path, SOUND, "--times=2")
    assert (code, "EQUAL at step 60 after 1 x SIGTERM and 1 x SIGKILL" in text) == (0, True), text
    assert (tmp_path / "spot-verify" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "spot-verify" / "verdict.json").read_text())["equal"] is True


def test_generators_that_are_neither_seeded_nor_used_are_no_difference(tmp_path: Path) -> None:
    script = SOUND.replace("np.random.seed(0); random.seed(0)", "")
    code, text = verify(tmp_path, script, "--times=1", "--signal=KILL")
    assert (code, "although rng.python begins differently in each run" in text) == (0, True), text


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (NO_OPTIMIZER, "the optimizer is not saved"),
        (NO_SCHEDULER, "the learning rate scheduler is not saved"),
        (NO_SAMPLER, "the data order is not saved"),
        (OWN_GENERATOR, "a random generator of its own is not saved"),
    ],
    ids=["optimizer", "scheduler", "sampler", "generator"],
)
@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_what_a_script_forgets_is_named(tmp_path: Path, script: str, cause: str, number: str) -> None:
    code, text = verify(tmp_path, script, "--times=1", "--at-step=25", f"--signal={number}")
    assert (code, f"likely cause: {cause}" in text) == (1, True), text
    assert "the first is state." in text


def test_a_script_that_does_not_repeat_itself_is_told_so(tmp_path: Path) -> None:
    script = SOUND.replace("torch.manual_seed(0)", "torch.seed()")
    code, text = verify(tmp_path, script, "--times=1", "--signal=TERM")
    assert (code, "the script does not repeat itself" in text) == (1, True), text


def test_a_plain_script_is_compared_by_what_it_prints_and_saves(tmp_path: Path) -> None:
    options = ("--times=2", "--watch", "{dir}/ckpt.pt")
    code, text = verify(tmp_path, PLAIN_SOUND, *options, arguments=("{dir}/ckpt.pt",))
    assert (code, "EQUAL over 40 printed steps" in text) == (0, True), text
    assert "ckpt.pt, tensor by tensor" in text


def test_a_plain_script_that_forgets_its_optimizer_is_told(tmp_path: Path) -> None:
    options = ("--times=1", "--watch", "ckpt.pt", "--at-step=22")
    code, text = verify(tmp_path, PLAIN_FORGETFUL, *options, arguments=("ckpt.pt",))
    assert (code, "likely cause: the optimizer is not saved" in text) == (1, True), text
    assert "save optimizer.state_dict()" in text
    assert "state.model." in text


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ("raise SystemExit(3)", "does not finish even uninterrupted: it ended with exit code 3"),
        ("print('hello')", "prints no steps"),
        (
            "import time\nfor step in range(40):\n    time.sleep(0.02)\n    print('step', step, 'loss', 0.5)",
            "never went on from a checkpoint",
        ),
    ],
    ids=["fails", "says nothing", "never saves"],
)
def test_what_cannot_be_tried_is_no_success(tmp_path: Path, script: str, want: str) -> None:
    code, text = verify(tmp_path, script, "--times=1")
    assert (code, want in text) == (2, True), text
    assert "Traceback" not in text


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "open('pids', 'w').write(f'{child.pid}')\n"
        "time.sleep(300)\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [*spot_trainer("verify"), "--", sys.executable, "train.py"]
    with subprocess.Popen(
        # A suite that was started in the background hands an ignored SIGINT down to all below it.
        ["env", "--default-signal=INT", *command],
        cwd=tmp_path,
        env={**environ(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            pid = int((tmp_path / "pids").read_text())
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, "Traceback" not in text) == (130, True), text
    assert list(temporary.iterdir()) == []
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or " Z " in state.read_text()
