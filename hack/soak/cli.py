"""`make soak`: jobs on spot nodes under random disturbances, then without an API server now and again.

Every one has to end as if there had been none.
"""

import argparse
import random
import sys

from demo.jobs import DemoError
from demo.lab import Lab
from localcluster import Progress
from soak.plan import Options
from soak.run import Row, Soak


def summary(rows: list[Row]) -> str:
    good = sum(row.is_good for row in rows)
    lines = [str(row) for row in rows]
    return "\n".join([*lines, f"{good} of {len(rows)} jobs ended as if nothing had happened"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--torch", type=int, default=8, help="how many of them train with torch")
    parser.add_argument("--seconds", type=float, default=1200.0, help="how long all of it may take")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=None, help="of the disturbances; default: a new one")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    options = Options(given.jobs, given.torch, given.seconds, given.nodes, seed)
    print(f"soak: {options.jobs} jobs, {options.seconds:.0f} s, seed {seed}", flush=True)
    lab = Lab.up("soak", Progress())
    try:
        lab.install_operator()
        rows = Soak(lab, options, lambda text: print(text, flush=True)).run()
    except DemoError as error:
        print(f"soak: seed {seed}: {error}", file=sys.stderr)
        print(lab.operator_log(), file=sys.stderr)
        return 1
    finally:
        lab.cluster.down()
    print(summary(rows))
    return 0 if all(row.is_good for row in rows) else 1
