"""An inspection as lines for programs and as rows for people. Pure.

Invariant: a line begins with the object's key and two spaces; for a checkpoint the verdict
comes next. Other programs read these lines: what is added, is added at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from spot_trainer.cli.inspection import CheckpointRow, ClaimRow, Inspection, Verdict
from spot_trainer.cli.quantities import format_seconds, format_size

COLUMNS = ("step", "incarnation", "age", "size", "state", "lineage", "claim", "attempt")


def lines(found: Inspection, now: datetime) -> list[str]:
    """The whole inspection, one object a line."""
    result = [f"{row.key}  {row.text}" for row in found.claims]
    result += [_checkpoint_line(row, now) for row in found.checkpoints]
    if found.final:
        result.append(f"final.json  {found.final}")
    return [*result, *remarks(found)]


def _checkpoint_line(row: CheckpointRow, now: datetime) -> str:
    if row.verdict is Verdict.VALID:
        verdict = f"valid  {row.num_bytes} bytes  {row.created_text}"
    else:
        verdict = f"{row.verdict}  {row.reason}"
    if row.is_quarantined:
        verdict += "  in quarantine"
    return f"attempts/{row.name}  {verdict}  step {row.name.step}  age {_age(row, now)}  {_place(row)}"


def rows(found: Inspection, now: datetime) -> list[Sequence[str]]:
    """The checkpoints as cells below COLUMNS."""
    return [
        (
            str(row.name.step),
            str(row.name.incarnation),
            _age(row, now),
            format_size(row.num_bytes) if row.claim else "-",
            _state(row),
            _place(row),
            row.claim or "-",
            str(row.name),
        )
        for row in found.checkpoints
    ]


CLAIM_COLUMNS = ("claim", "builds on", "ended", "record")


def claim_rows(claims: Sequence[ClaimRow]) -> list[Sequence[str]]:
    return [
        (
            row.key.removeprefix("claims/").removesuffix(".json"),
            str(row.base or "-"),
            row.closed or "-",
            row.text,
        )
        for row in claims
    ]


def remarks(found: Inspection) -> list[str]:
    """What is left to say below the table."""
    said = []
    if not found.checkpoints:
        said.append(f"no checkpoint is published in {found.uri}")
    if found.num_unpublished:
        said.append(
            f"unpublished attempts: {found.num_unpublished} (a save in progress, or left by a killed process)"
        )
    if found.checkpoints and not found.is_deep:
        said.append("looked at manifests, presence and sizes; --deep reads and verifies every byte")
    return said


def _state(row: CheckpointRow) -> str:
    if row.is_quarantined:
        return f"quarantined ({row.verdict})"
    return str(row.verdict) if row.verdict is Verdict.VALID else f"{row.verdict}: {row.reason}"


def _place(row: CheckpointRow) -> str:
    if row.is_next:
        return "lineage, next to resume"
    return "lineage" if row.is_in_lineage else "dead end"


def _age(row: CheckpointRow, now: datetime) -> str:
    return "-" if row.created is None else format_seconds(max(0.0, (now - row.created).total_seconds()))
