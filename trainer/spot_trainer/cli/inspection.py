"""What a store holds, read without writing anything, and judged.

Invariant: nothing here writes or deletes, so that it is safe beside a running job; a
checkpoint is called valid only after all that was asked for was looked at: manifest,
presence and sizes, or every byte if the look is deep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import xxhash

from spot_trainer import lineage, writer
from spot_trainer.checkpoints import BASE, CLAIM, CLAIMS, CLOSED, QUARANTINE
from spot_trainer.contract import ContractError, parse_time
from spot_trainer.lineage import AttemptName, Claim, ClaimName
from spot_trainer.manifest import MANIFEST, Damaged, Manifest, TooNew
from spot_trainer.store import Entry, NotFound, Store

_BEYOND_ALL = ClaimName("99999999T999999Z", "~", 10**8)
"""Sorts after every claim that can exist."""


class Verdict(StrEnum):
    """The closed set of what can be said of a checkpoint."""

    VALID = "valid"
    DAMAGED = "DAMAGED"
    TOO_NEW = "TOO NEW"


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """One published attempt."""

    name: AttemptName
    verdict: Verdict
    reason: str = ""
    num_bytes: int = 0
    created: datetime | None = None
    created_text: str = ""
    claim: str = ""
    is_quarantined: bool = False
    is_in_lineage: bool = False
    """False: a dead end, which no resume will take."""
    is_next: bool = False
    """The next resume takes this one."""


@dataclass(frozen=True)
class ClaimRow:
    """One claim, with what it recorded."""

    key: str
    text: str
    base: AttemptName | None = None
    closed: str = ""


@dataclass(frozen=True)
class Inspection:
    """Everything that `inspect` shows."""

    uri: str
    is_deep: bool
    claims: tuple[ClaimRow, ...]
    checkpoints: tuple[CheckpointRow, ...]
    """By step, the latest last."""
    num_unpublished: int
    """Attempts without a manifest: saves in progress, or what the dead left behind."""
    final: str
    """The final marker's text; empty: the run is not finished."""

    @property
    def has_damage(self) -> bool:
        return any(row.verdict is not Verdict.VALID for row in self.checkpoints)


def survey(store: Store) -> tuple[dict[AttemptName, dict[str, Entry]], int]:
    """Files of each published attempt by name, and the number of attempts without a manifest."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in store.list("attempts/"):
        _, folder, *rest = entry.key.split("/")
        found.setdefault(folder, {})["/".join(rest)] = entry
    published = {
        name: files
        for folder, files in found.items()
        if (name := AttemptName.parse(folder)) is not None and MANIFEST in files
    }
    return published, len(found) - len(published)


def inspect(
    store: Store,
    *,
    is_deep: bool,
    on_begin: Callable[[int], Callable[[int], None]] = lambda _: lambda _: None,
) -> Inspection:
    """Look at everything; `on_begin(bytes)` gives a function that is told of bytes read."""
    published, num_unpublished = survey(store)
    claims = read_claims(store)
    quarantined = {entry.key for entry in store.list(QUARANTINE)}
    members = lineage_of(claims, published)
    rows = [_shallow_row(store, name, files) for name, files in sorted(published.items())]
    if is_deep:
        advance = on_begin(sum(row.num_bytes for row in rows))
        rows = [_deep_row(store, row, advance) for row in rows]
    is_quarantined = {row.name: f"{QUARANTINE}{row.name}.json" in quarantined for row in rows}
    usable = {row.name for row in rows if row.verdict is Verdict.VALID and not is_quarantined[row.name]}
    following = next((name for name in members if name in usable), None)
    return Inspection(
        uri=store.uri,
        is_deep=is_deep,
        claims=tuple(_claim_rows(store, claims)),
        checkpoints=tuple(
            _placed(row, is_quarantined[row.name], row.name in members, row.name == following) for row in rows
        ),
        num_unpublished=num_unpublished,
        final=read_final(store),
    )


def lineage_of(claims: Iterable[Claim], published: Iterable[AttemptName]) -> tuple[AttemptName, ...]:
    """What the next incarnation would try, the best first."""
    return lineage.below(_BEYOND_ALL, tuple(claims), tuple(published)).candidates


def read_final(store: Store) -> str:
    """The text of the final marker, empty if there is none."""
    try:
        return store.read("final.json").decode(errors="replace").strip()
    except NotFound:
        return ""


def read_claims(store: Store) -> list[Claim]:
    """All claims that can be read, in their order."""
    keys = {entry.key for entry in store.list(CLAIMS)}
    claims = []
    for key in sorted(keys):
        name = ClaimName.parse(key.removeprefix(CLAIMS).removesuffix(CLAIM))
        if name is None:
            continue
        body = _read_object(store, key)
        base_key = f"{CLAIMS}{name}{BASE}"
        base = _read_object(store, base_key).get("checkpoint") if base_key in keys else None
        base_name = AttemptName.parse(str(base.get("name"))) if isinstance(base, dict) else None
        claims.append(Claim(name, str(body.get("nonce", "")), str(body.get("job", "")), base_name))
    return sorted(claims, key=lambda claim: claim.name)


def _claim_rows(store: Store, claims: Iterable[Claim]) -> Iterable[ClaimRow]:
    for claim in claims:
        key = f"{CLAIMS}{claim.name}"
        closed = _read_object(store, key + CLOSED)
        text = store.read(key + CLAIM).decode(errors="replace").strip()
        yield ClaimRow(key + CLAIM, text, claim.base, str(closed.get("outcome", "")))


def _read_object(store: Store, key: str) -> dict[str, Any]:
    """A JSON object; what is absent or unreadable is empty, for a look must not fail on it."""
    try:
        body = json.loads(store.read(key))
    except (NotFound, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _shallow_row(store: Store, name: AttemptName, files: dict[str, Entry]) -> CheckpointRow:
    try:
        manifest = writer.read_manifest(store, name)
    except Damaged as error:
        return CheckpointRow(name=name, verdict=Verdict.DAMAGED, reason=str(error))
    except TooNew as error:
        return CheckpointRow(name=name, verdict=Verdict.TOO_NEW, reason=str(error))
    reason = _missing_or_cut(manifest, files)
    return CheckpointRow(
        name=name,
        verdict=Verdict.DAMAGED if reason else Verdict.VALID,
        reason=reason,
        num_bytes=sum(record.size for record in manifest.files.values()),
        created=_time_or_none(manifest.created),
        created_text=manifest.created,
        claim=manifest.claim,
    )


def _missing_or_cut(manifest: Manifest, files: dict[str, Entry]) -> str:
    for name, record in manifest.files.items():
        if name not in files:
            return f"{name} is missing"
        if files[name].size != record.size:
            return f"{name} has {files[name].size} bytes instead of {record.size}"
    return ""


def _deep_row(store: Store, row: CheckpointRow, advance: Callable[[int], None]) -> CheckpointRow:
    if row.verdict is not Verdict.VALID:
        return row
    try:
        verify_bytes(store, row.name, advance)
    except Damaged as error:
        return replace(row, verdict=Verdict.DAMAGED, reason=str(error))
    return row


def verify_bytes(store: Store, name: AttemptName, advance: Callable[[int], None] = lambda _: None) -> None:
    """Read every byte of a checkpoint with little memory; raises Damaged."""
    manifest = writer.read_manifest(store, name)
    buffer = memoryview(bytearray(store.read_bytes))
    for file, record in manifest.files.items():
        digest, offset = xxhash.xxh3_128(), 0
        while offset < record.size:
            view = buffer[: min(len(buffer), record.size - offset)]
            try:
                count = store.read_into(writer.folder(name) + file, offset, [view])
            except NotFound:
                raise Damaged(f"{file} is missing") from None
            if count == 0:
                raise Damaged(f"{file} ends at {offset} instead of {record.size} bytes")
            digest.update(view[:count])
            offset += count
            advance(count)
        if (found := digest.hexdigest()) != record.xxh3_128:
            raise Damaged(f"{file} has content hash {found} instead of {record.xxh3_128}")


def _placed(row: CheckpointRow, is_quarantined: bool, is_in_lineage: bool, is_next: bool) -> CheckpointRow:
    return replace(row, is_quarantined=is_quarantined, is_in_lineage=is_in_lineage, is_next=is_next)


def _time_or_none(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except ContractError:
        return None
