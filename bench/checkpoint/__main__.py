"""Measure everything, write the report. See bench/README.md."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from checkpoint import local, notice, overhead, report, s3, stall, states
from checkpoint.measure import Measure, as_table, say
from spot_trainer import snapshot as snapshots

PARTS = ("stall", "save", "restore", "s3", "overhead", "notice")


def main() -> None:
    parser = argparse.ArgumentParser(prog="checkpoint", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of the report")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure just these")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # DCP says so on every call; alone is how it is meant to run here.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    state = states.make()
    num_bytes = states.num_bytes(state)
    say(f"state: {num_bytes / 1e9:.2f} GB in {len(state)} tensors")
    snapshot = snapshots.take(state)
    # Below `out`, so that the volume is the one that the report is about, and never a tmpfs.
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=out) as name:
        folder = Path(name)
        parts: dict[str, Callable[[], list[Measure]]] = {
            "stall": lambda: [*stall.measure(state, folder), stall.measure_gpu()],
            "save": lambda: local.measure_save(state, snapshot, folder),
            "restore": lambda: local.measure_restore(state, snapshot, folder),
            "s3": lambda: s3.measure(snapshot, folder),
            "overhead": lambda: [overhead.measure(folder)],
            "notice": lambda: [notice.measure_flag(), notice.measure_exit(folder)],
        }
        measures: list[Measure] = []
        for part in PARTS:
            if part in arguments.only:
                measures += parts[part]()
                # After each part: what was measured is not lost if a later part fails.
                report.write(measures, out, num_bytes=num_bytes)
    print(as_table(measures))
    say(f"written: {out / 'checkpoint.json'} and {out / 'checkpoint.png'}")


if __name__ == "__main__":
    main()
