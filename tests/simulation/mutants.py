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
FIRST_SEED = 10_000
MAX_SEEDS = 2000
"""Seeds of this range fail for nothing but a mistake: `test_no_schedule_breaks_a_promise` plays them all."""
OTHER_SEEDS = 150
"""So many are tried where the kept one does not catch it: any change of the code may have moved it."""


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
    """One that caught it; 0: what it does is out of the model's sight."""
    test: str
    """A test that fails because of it, for those."""
    is_blind: bool
    """Whoever wrote it had not read the checks."""


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


def catch(mutant: Mutant, *, num_seeds: int = OTHER_SEEDS) -> str:
    """The seed or the test that fails, and why; empty if none does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apply(mutant, folder)
        if mutant.test:
            return _try(mutant, folder)
        ranges = [(mutant.seed, 1), (FIRST_SEED, num_seeds)]
        return next(filter(None, (_play(mutant, folder, *each) for each in ranges)), "")


def _try(mutant: Mutant, folder: Path) -> str:
    """The test fails with the mistake in; that it passes without is the business of its own suite."""
    paths = [str(folder), str(ROOT / "trainer")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mutant {mutant.name}: {mutant.test} does not run: {done.stdout[-2000:]}")
    return mutant.test if done.returncode == 1 else ""


def _play(mutant: Mutant, folder: Path, first: int, num_seeds: int) -> str:
    paths = [str(ROOT / "tests"), str(folder), str(ROOT / "trainer")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "simulation", "--until-failure", "--workers=1"),
            *(f"--first={first}", f"--seeds={num_seeds}"),
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


def _keep(found: dict[str, int]) -> None:
    listed = json.loads(LIST.read_text())
    for each in listed:
        each["seed"] = found.get(each["name"], each["seed"])
    LIST.write_text(json.dumps(listed, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--search", type=int, default=0, help="try so many seeds, keep those that catch")
    options = parser.parse_args()
    mutants = [each for each in read() if options.only in each.name]
    missed: list[str] = []
    found: dict[str, int] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        caught = pool.map(lambda each: catch(each, num_seeds=options.search or OTHER_SEEDS), mutants)
        for mutant, text in zip(mutants, caught, strict=True):
            print(f"{mutant.name:<50} {text[:150] or 'NOT CAUGHT'}", flush=True)
            if text:
                found |= {} if mutant.test else {mutant.name: int(text.split()[1].rstrip(":"))}
            else:
                missed.append(mutant.name)
    if options.search:
        _keep(found)
    print(f"{len(mutants)} mutants, {len(missed)} not caught")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
