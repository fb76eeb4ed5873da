"""Play the capacity policy and published rules on recorded spot markets. See bench/README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from policy import measures, tune
from policy.market import Market, find_traces


def main() -> int:
    parser = argparse.ArgumentParser(prog="policy", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of the report")
    parser.add_argument("--traces", type=Path, help="folder of referee.py (default: ../shared/traces)")
    parser.add_argument(
        "--tune", action="store_true", help="cross-validate the constants instead (15 minutes)"
    )
    arguments = parser.parse_args()
    traces = find_traces(arguments.traces)
    if traces is None:
        print("skipped: no recorded markets: there is no ../shared/traces/referee.py, and no --traces")
        return 0
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    market = Market(traces, arguments.out / "policy-cache")
    if arguments.tune:
        tune.tune(market, say)
        return 0
    told = measures.all_measures(market, say)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "policy.json"
    report.write_text(json.dumps({"measures": [each.to_json() for each in told]}, indent=2) + "\n")
    print(measures.as_table(told))
    say(f"written: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
