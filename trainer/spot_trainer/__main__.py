"""`python -m spot_trainer`: look at checkpoints and compare two runs.

Invariant: nothing here writes to a store, so that it is safe beside a running job.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from spot_trainer import compare, writer
from spot_trainer.manifest import Damaged, TooNew
from spot_trainer.store import Store, StoreError, open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """0: fine; 1: a difference or damage was found; 2: could not be looked at."""
    options = _parser().parse_args(arguments)
    try:
        stores = [open_store(uri) for uri in options.uris]
        result: int = options.action(*stores)
        return result
    except (StoreError, Damaged, TooNew, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spot_trainer", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, action, num_uris, text in (
        ("compare", _compare, 2, "compare the final checkpoints of two runs bit by bit"),
        ("inspect", _inspect, 1, "list claims and checkpoints, and verify every byte"),
        ("history", _history, 1, "print the metrics of every step of every incarnation"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("uris", metavar="URI", nargs=num_uris, help="file:///path or s3://bucket/prefix")
        command.set_defaults(action=action)
    return parser


def _compare(a: Store, b: Store) -> int:
    left, right = compare.final_checkpoint(a), compare.final_checkpoint(b)
    found = list(compare.differences(left.state, right.state))
    if found:
        print_line(f"DIFFERENT: {len(found)} differences; the first is {found[0]}")
        for line in found[1:20]:
            print_line(f"  {line}")
        return 1
    print_line(f"EQUAL at step {left.name.step}: every tensor, generator state and position, bit for bit")
    for name, then in left.manifest.environment.items():
        if (now := right.manifest.environment.get(name)) != then:
            print_line(f"  although {name} is {then} and {now}")
    return 0


def _inspect(store: Store) -> int:
    damaged = 0
    for key in sorted(entry.key for entry in store.list("claims/")):
        print_line(f"{key}  {store.read(key).decode().strip()}")
    quarantined = {entry.key for entry in store.list("quarantine/")}
    for name in compare.published(store):
        try:
            loaded = writer.load(store, name)
            size = sum(record.size for record in loaded.manifest.files.values())
            verdict = f"valid  {size} bytes  {loaded.manifest.created}"
        except Damaged as error:
            damaged += 1
            verdict = f"DAMAGED  {error}"
        if f"quarantine/{name}.json" in quarantined:
            verdict += "  in quarantine"
        print_line(f"attempts/{name}  {verdict}")
    for entry in store.list("final.json"):
        print_line(f"{entry.key}  {store.read(entry.key).decode().strip()}")
    return 1 if damaged else 0


def _history(store: Store) -> int:
    for line in compare.history(store):
        print_line(json.dumps(line, separators=(",", ":")))
    return 0


def print_line(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
