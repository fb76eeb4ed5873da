"""How long `kubectl spottraining simulate` takes. See bench/README.md.

The whole program is timed, from its start to its table, on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from checkpoint.measure import Goal, Measure, say

NUM_CORES = 2
GOAL = Goal("<=", 30.0)
REPOSITORY = Path(__file__).resolve().parents[2]

JOB: dict[str, Any] = {
    "apiVersion": "spottraining.io/v1alpha1",
    "kind": "SpotTrainingJob",
    "metadata": {"name": "bench", "namespace": "bench"},
    "spec": {
        "template": {"spec": {"containers": [{"name": "trainer", "image": "trainer", "command": ["train"]}]}},
        "checkpoint": {"s3": {"bucket": "checkpoints"}},
        "capacity": {
            "preset": "Karpenter",
            "spot": {"pricePerNodeHour": "0.9731"},
            "onDemand": {"pricePerNodeHour": "3.06"},
        },
        "fallback": {
            "afterInterruptions": {"count": 8, "windowSeconds": 86400},
            "beforeDeadlineSeconds": 900,
        },
        "deadline": {"secondsAfterCreation": 70 * 3600, "expectedDurationSeconds": 48 * 3600},
    },
}


def measure(name: str, *words: str, runs: int) -> Measure:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(json.dumps(JOB))  # JSON is YAML
        command = [sys.executable, "-m", "spot_plugin", "simulate", "-f", str(path), "--json", *words]
        began, cpu_began = time.perf_counter(), _cpu_seconds()
        out = subprocess.run([*command, "--runs", str(runs)], check=True, stdout=subprocess.PIPE).stdout
        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds() - cpu_began
    found = json.loads(out)
    say(f"{name}: {seconds:.1f} s ({cpu_seconds:.1f} s of CPU)")
    return Measure(
        name=name,
        unit="s",
        value=seconds,
        goal=GOAL if runs == 1000 else None,
        details={
            "runs": runs,
            "cores": NUM_CORES,
            "cpuSeconds": round(cpu_seconds, 2),
            "policies": {
                each["policy"]: {
                    "onTime": each["onTime"],
                    "costMean": each["costMean"],
                    "saved": each["saved"],
                }
                for each in found["policies"]
            },
        },
    )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="plugin", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of the report")
    parser.add_argument("--runs", type=int, default=1000, help="the goal is about 1000")
    parser.add_argument("--traces", type=Path, help="folder of recorded markets (default: ../shared/traces)")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_CORES])
    what = f"{arguments.runs} runs of a 48 h job under 4 policies"
    measures = [measure(f"{what}, synthetic markets", runs=arguments.runs)]
    places = [arguments.traces] if arguments.traces else [p / "shared/traces" for p in REPOSITORY.parents[:2]]
    zones = next((p / "aws-v100-2023" for p in places if (p / "aws-v100-2023").is_dir()), None)
    if zones is not None:
        measures.append(measure(f"{what}, recorded markets", "--market", str(zones), runs=arguments.runs))
    else:
        skipped = "no recorded markets: there is no ../shared/traces/aws-v100-2023, and no --traces"
        measures.append(Measure(name=f"{what}, recorded markets", unit="s", skipped=skipped))
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {
        "cpus": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
    }
    body = {"machine": machine, "measures": [each.to_json() for each in measures]}
    path = arguments.out / "plugin.json"
    path.write_text(json.dumps(body, indent=2) + "\n")
    say(f"written: {path}")


if __name__ == "__main__":
    main()
