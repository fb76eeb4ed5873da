"""Run jobs with deadlines under a replayed spot market, beside the simulator. See bench/README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from checkpoint.measure import as_table
from demo.jobs import DemoError
from demo.lab import Lab
from localcluster import LocalClusterError
from policy.market import find_traces
from trace_bench import recording, report
from trace_bench.plan import Options
from trace_bench.recording import Stretch
from trace_bench.run import Found, bring_up, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="trace_bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=Options.jobs)
    parser.add_argument("--work", type=float, default=Options.work_seconds, help="seconds of each job")
    parser.add_argument("--compression", type=float, default=Options.compression)
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the stretches and the notices")
    parser.add_argument("--zones", type=int, default=5, help="how many of the recorded ones")
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of the report")
    parser.add_argument("--traces", type=Path, help="folder of the recordings (default: ../shared/traces)")
    parser.add_argument("--name", default="trace", help="of the cluster")
    given = parser.parse_args()
    traces = find_traces(given.traces)
    if traces is None:
        print("skipped: no recorded markets: there is no ../shared/traces/referee.py, and no --traces")
        return 0
    if os.geteuid() != 0:
        print("skipped: namespaces and cgroups need root")
        return 0
    options = Options(
        jobs=given.jobs, work_seconds=given.work, compression=given.compression, seed=given.seed
    )
    stretches = draw(traces, options, given.zones)
    began = time.monotonic()
    lab: Lab | None = None
    try:
        lab = bring_up(given.name)
        print(f"cluster up after {time.monotonic() - began:.0f} s", flush=True)
        found = run(lab, options, stretches, lambda text: print(text, flush=True))
        (given.out / "trace").mkdir(parents=True, exist_ok=True)
        (given.out / "trace" / "operator.log").write_text(lab.operator_log(20000))
    except (DemoError, LocalClusterError) as error:
        print(f"trace_bench: {error}", file=sys.stderr)
        if lab is not None:
            print(lab.operator_log(), file=sys.stderr)
        return 1
    finally:
        if lab is not None:
            lab.cluster.down()
    return tell(found, options, stretches, given.out)


def draw(traces: Path, options: Options, num_zones: int) -> list[Stretch]:
    markets = [recording.read_zone(path, options.compression) for path in recording.zones(traces)[:num_zones]]
    return [
        recording.draw_stretch(market, seconds=options.window_seconds, seed=str(options.seed))
        for market in markets
    ]


def tell(found: Found, options: Options, stretches: list[Stretch], out: Path) -> int:
    window = options.window_seconds
    shown = {
        each.zone: {
            "share": round(each.share(window), 3),
            "changes": sum(1 for _ in each.changes(window)) - 1,
            "offsetHours": round(each.offset * options.compression / 3600, 2),
        }
        for each in stretches
    }
    details = {"compression": options.compression, "seed": options.seed, "zones": shown}
    measures = report.measures(found.rows, found.measured, found.replay.changes, details)
    path = report.write(measures, out)
    title = (
        f"{options.jobs} jobs under a recorded market, {options.compression:g} seconds in one: "
        f"{sum(row.is_late for row in found.rows)} late, {measures[2].ratio:.3f} of the predicted cost"
    )
    report.plot(found.rows, stretches, found.watch.samples, found.applied, out / "trace.png", title=title)
    print(report.table(found.rows))
    print(f"measured: {found.measured}")
    print(as_table(measures))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
