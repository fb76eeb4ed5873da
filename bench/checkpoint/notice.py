"""SIGTERM: until it is seen, and until the process has saved and left with 75."""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np

from checkpoint.measure import Goal, Measure, say
from spot_trainer.events import Event

NUM_SIGNALS = 50
NUM_EXITS = 3
EXIT_INTERRUPTED = 75


def measure_flag() -> Measure:
    """The clock is CLOCK_MONOTONIC in both processes, which is one for the whole machine."""
    delays = []
    with _child("flag", str(NUM_SIGNALS)) as child:
        for _ in range(NUM_SIGNALS):
            _expect(child.stdout, "computing")
            time.sleep(random.uniform(0.05, 0.15))
            sent = time.monotonic()
            child.send_signal(signal.SIGTERM)
            delays.append((float(_expect(child.stdout, "received")) - sent) * 1e3)
    say(f"SIGTERM to flag: {NUM_SIGNALS} signals")
    return Measure(
        name="SIGTERM to flag during one long C call, p99",
        unit="ms",
        value=float(np.percentile(delays, 99)),
        goal=Goal("<=", 10),
        details={"p50": round(statistics.median(delays), 3), "signals": NUM_SIGNALS},
    )


def measure_exit(folder: Path) -> Measure:
    """What is left of the time from SIGTERM to exit when one step and the save are taken off."""
    rest, wholes, saves = [], [], []
    for number in range(NUM_EXITS):
        with _child("train", str(folder / f"exit-{number}")) as child:
            assert child.stdout is not None
            step_seconds = float(_expect(child.stdout, "step"))
            time.sleep(random.uniform(0.2, 0.6))
            sent = time.monotonic()
            child.send_signal(signal.SIGTERM)
            lines = child.stdout.read().splitlines()
            code = child.wait()
            wholes.append(time.monotonic() - sent)
        if code != EXIT_INTERRUPTED:
            raise RuntimeError(f"the training ended with {code} instead of {EXIT_INTERRUPTED}: {lines}")
        events = [json.loads(line) for line in lines if line.startswith("{")]
        saves.append(next(event["seconds"] for event in events if event.get("event") == Event.CHECKPOINT))
        rest.append(wholes[-1] - step_seconds - saves[-1])
        say(f"SIGTERM to exit 75: {number + 1} of {NUM_EXITS}")
    return Measure(
        name="SIGTERM to exit 75, less one step and the save",
        unit="s",
        value=statistics.median(rest),
        details={"whole": [round(each, 3) for each in wholes], "save": [round(each, 3) for each in saves]},
    )


def _child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "checkpoint.interrupted", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _expect(output: IO[str] | None, word: str) -> str:
    """The rest of the next line that begins with the word."""
    assert output is not None
    for line in output:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise RuntimeError(f"the process ended before it said {word!r}")
