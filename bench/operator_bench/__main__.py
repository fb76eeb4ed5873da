"""Measure the operator beside the Job controller, write the report. See bench/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from checkpoint.measure import Measure, as_table, say
from localcluster.binaries import KUBERNETES_VERSION
from localcluster.progress import Progress
from operator_bench import idle, rounds, sides, signals, takeover
from operator_bench.lab import Lab, Place, TooSlow, open_lab, open_place
from operator_bench.manifests import PODS_PER_NODE

PARTS = ("rounds", "signals", "takeover", "idle")
_LIMIT_SECONDS = 35 * 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="operator_bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of the report")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure just these")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs in the cluster")
    parser.add_argument("--suspended", type=int, help="suspended jobs beside them, default 9 * JOBS")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each controller")
    parser.add_argument("--limit", type=float, default=_LIMIT_SECONDS, help="give up after this many seconds")
    arguments = parser.parse_args()
    # As Ctrl-C: whatever was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    measures: list[Measure] = []
    with open_place(Progress()) as place:
        asyncio.run(_measure(place, arguments, measures, out))
    print(as_table(measures))


async def _measure(place: Place, arguments: argparse.Namespace, measures: list[Measure], out: Path) -> None:
    num_suspended = 9 * arguments.jobs if arguments.suspended is None else arguments.suspended
    async with open_lab(place, arguments.jobs) as lab:
        parts: dict[str, Callable[[], Awaitable[list[Measure]]]] = {
            "rounds": lambda: rounds.measure(lab, arguments.rounds),
            "signals": lambda: signals.measure(lab),
            "takeover": lambda: takeover.measure(lab),
            "idle": lambda: idle.measure(lab, num_suspended),
        }
        num_nodes = max(2, arguments.jobs // PODS_PER_NODE)
        say(f"{num_nodes} nodes")
        await lab.make_nodes(num_nodes, "spot")
        try:
            async with asyncio.timeout(arguments.limit):
                is_populated = False
                for part in (part for part in PARTS if part in arguments.only):
                    if part != "rounds" and not is_populated:
                        await _populate(lab)
                        is_populated = True
                    measures += await _safely(part, parts[part])
                    # After each part: what was measured is not lost if a later part fails.
                    _write(measures, out)
        except TimeoutError:
            say(f"given up: {arguments.limit:g} s are over")
    say(f"written: {out / 'operator.json'}")


async def _safely(part: str, measure: Callable[[], Awaitable[list[Measure]]]) -> list[Measure]:
    """A part that takes for ever is told as such, and the others are measured all the same."""
    try:
        return await measure()
    except TooSlow as error:
        say(f"{part}: {error}")
        return [Measure(name=part, unit="", skipped=str(error))]


async def _populate(lab: Lab) -> None:
    side = sides.ours()
    say(f"{lab.num_jobs} jobs for what follows")
    applied = await sides.apply(lab, side, [f"job-{n:04}" for n in range(lab.num_jobs)])
    say(f"all run after {applied.running_seconds:.1f} s")
    # What there is to note of so many launches waits for them; what is measured next begins at rest.
    await lab.wait_until_noted(side.collection)


def _write(measures: list[Measure], out: Path) -> None:
    machine = {
        "cpus": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
        "kubernetes": KUBERNETES_VERSION,
    }
    body = {"machine": machine, "measures": [each.to_json() for each in measures]}
    (out / "operator.json").write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
