"""Mistakes put into the operator's code on purpose: each must be caught by its seed.

`python -m simulation.mutants` tries all of `mutants.json`; `--search` looks for a seed that catches
one. A mistake that none catches means that a promise is missing from `checks.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "spot_operator"
LIST = Path(__file__).with_name("mutants.json")
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    """Relative to the operator's package."""
    old: str
    """Occurs once in the file."""
    new: str
    why: str
    """What somebody would see go wrong."""
    seed: int
    """One that catches it."""


def read() -> list[Mutant]:
    return [Mutant(**each) for each in json.loads(LIST.read_text())]


def apply(mutant: Mutant, folder: Path) -> None:
    """Copy the package to the folder with the mistake in it; raises ValueError if its place is gone."""
    shutil.copytree(PACKAGE, folder / "spot_operator", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "spot_operator" / mutant.file
    source = path.read_text()
    if (count := source.count(mutant.old)) != 1:
        raise ValueError(f"mutant {mutant.name}: its text occurs {count} times in {mutant.file}")
    path.write_text(source.replace(mutant.old, mutant.new))


def catch(mutant: Mutant, *, searches: bool = False) -> str:
    """The seed that fails and why; empty if none does."""
    seeds = (0, MAX_SEEDS) if searches else (mutant.seed, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apply(mutant, folder)
        paths = [str(ROOT / "tests"), str(folder), str(ROOT / "trainer")]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "simulation", "--until-failure", "--workers=1"),
                *(f"--first={seeds[0]}", f"--seeds={seeds[1]}"),
            ],
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
    if lines:
        return lines[0]
    if done.returncode != 0:
        raise RuntimeError(f"mutant {mutant.name} does not run: {done.stderr[-2000:]}")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--search", action="store_true", help=f"try the first {MAX_SEEDS} seeds")
    options = parser.parse_args()
    mutants = [each for each in read() if options.only in each.name]
    missed = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, caught in zip(
            mutants, pool.map(lambda each: catch(each, searches=options.search), mutants), strict=True
        ):
            print(f"{mutant.name:<45} {caught[:150] or 'NOT CAUGHT'}", flush=True)
            if not caught:
                missed.append(mutant.name)
    print(f"{len(mutants)} mutants, {len(missed)} not caught")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
