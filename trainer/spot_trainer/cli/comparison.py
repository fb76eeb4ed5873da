"""Two runs held against each other, in words.

Invariant: the first line begins with EQUAL or DIFFERENT and is a whole answer; whatever
reads this output reads that line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spot_trainer import compare, writer
from spot_trainer.cli import inspection
from spot_trainer.manifest import Damaged
from spot_trainer.store import Store
from spot_trainer.writer import Loaded

SHOWN_DIFFERENCES = 20


def load(store: Store, step: int | None) -> Loaded:
    """The final checkpoint, or the one at a step; raises ValueError, StoreError or Damaged."""
    if step is None:
        return _load_final(store)
    published = compare.published(store)
    found = [name for name in published if name.step == step]
    if not found:
        steps = ", ".join(str(number) for number in sorted({name.step for name in published})) or "none"
        raise ValueError(f"{store.uri} has no checkpoint at step {step}; there are: {steps}")
    # Two processes may have saved the same step; what counts is the one that a resume would take.
    members = inspection.lineage_of(inspection.read_claims(store), published)
    return writer.load(store, next((name for name in members if name.step == step), found[-1]))


def _load_final(store: Store) -> Loaded:
    if not inspection.read_final(store):
        raise ValueError(
            f"{store.uri} holds no finished run (no final.json): let it finish, or compare with --step N"
        )
    try:
        return compare.final_checkpoint(store)
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{store.uri}/final.json is not what was written there") from None


def verdict(left: Loaded, right: Loaded) -> tuple[bool, list[str]]:
    """Whether both are equal bit for bit, and the lines that say so."""
    found = list(compare.differences(left.state, right.state))
    if found:
        return False, different(found)
    equal = f"EQUAL at step {left.name.step}: every tensor, generator state and position, bit for bit"
    return True, [equal, *environment_remarks(left.manifest.environment, right.manifest.environment)]


def different(found: list[str]) -> list[str]:
    first = f"DIFFERENT: {len(found)} differences; the first is {found[0]}"
    return [first, *(f"  {line}" for line in found[1:SHOWN_DIFFERENCES])]


def environment_remarks(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[str]:
    for name, value in then.items():
        if now.get(name) != value:
            yield f"  although {name} is {value} and {now.get(name)}"
