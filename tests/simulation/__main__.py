"""`make simulate SEEDS=1000`: play seeds, replay one, shrink those that fail."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from simulation import run, schedule


def _verdict(seed: int) -> tuple[int, str | None]:
    return seed, run.play_seed(seed).violation


def _show(seed: int) -> int:
    drawn = schedule.draw(seed)
    violation = run.play(drawn).violation
    print(drawn)
    if violation is None:
        print(*run.play(drawn).log, sep="\n")
        print(f"seed {seed}: nothing wrong")
        return 0
    kind = violation.split(":")[0][:20]
    small = schedule.shrink(drawn, lambda each: (run.play(each).violation or "").startswith(kind))
    print(f"\n{violation}\n\nThe shortest schedule that was found:\n{small}\n")
    result = run.play(small)
    print(*result.log, sep="\n")
    print(f"seed {seed}: {result.violation}")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one alone, shrink it if it fails, show its log")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of what a seed repeats
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])
    if options.seed is not None:
        return _show(options.seed)
    began, failed = time.monotonic(), 0
    if options.until_failure:
        for seed in range(options.first, options.first + options.seeds):
            if (violation := _verdict(seed)[1]) is not None:
                print(f"seed {seed}: {violation}")
                return 1
        return 0
    with ProcessPoolExecutor(options.workers) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for number, (seed, violation) in enumerate(pool.map(_verdict, seeds, chunksize=8), start=1):
            if violation is not None:
                failed += 1
                print(f"seed {seed}: {violation}", flush=True)
            if number % 500 == 0:
                print(f"{number} of {options.seeds} seeds, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{options.seeds} seeds, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
