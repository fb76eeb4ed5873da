"""What a checkpoint says about itself. Pure.

The manifest is written last and makes an attempt a checkpoint: it names every file with
its size and content hash, and carries a checksum of its own text. Invariant: a manifest
that parses and whose files match is exactly what the trainer had in memory; whatever a
flipped bit or a cut file does, `parse` or `check_file` raises Damaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import xxhash

from spot_trainer.lineage import AttemptName

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
STATE = "state.json"


class Damaged(Exception):
    """The checkpoint is not what was written; the message says what differs."""


class TooNew(Exception):
    """Written by a newer version of this library."""


@dataclass(frozen=True)
class FileRecord:
    """Size and XXH3-128 of one data file."""

    size: int
    xxh3_128: str


@dataclass(frozen=True)
class Manifest:
    """The content of MANIFEST.json, less its checksum."""

    attempt: str
    claim: str
    run_id: str
    step: int
    total_steps: int | None
    incarnation: int
    created: str
    files: Mapping[str, FileRecord]
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions, world size, threads: what a bitwise resume depends on besides the state."""
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        body = asdict(self)
        return _canonical(body | {"checksum": content_hash(_canonical(body))})


def parse(data: bytes, attempt: AttemptName) -> Manifest:
    """The manifest of the attempt; raises Damaged or TooNew."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(f"{MANIFEST} is not JSON") from None
    if not isinstance(body, dict):
        raise Damaged(f"{MANIFEST} is not an object")
    checksum = body.pop("checksum", None)
    if checksum != content_hash(_canonical(body)):
        raise Damaged(f"{MANIFEST} does not match its own checksum")
    # Only a manifest that is intact can be trusted about its version.
    if body["format_version"] > FORMAT_VERSION:
        raise TooNew(
            f"checkpoint {attempt} has format version {body['format_version']}, this library reads up to "
            f"{FORMAT_VERSION}: install a newer one"
        )
    if body["attempt"] != str(attempt) or body["step"] != attempt.step:
        raise Damaged(f"{MANIFEST} belongs to {body['attempt']}")
    files = {name: FileRecord(record["size"], record["xxh3_128"]) for name, record in body["files"].items()}
    known = {name: body[name] for name in Manifest.__dataclass_fields__ if name in body}
    return Manifest(**(known | {"files": files}))


def record_bytes(key: str, **body: Any) -> bytes:
    """A small record (a claim, a base, a marker) that says what it is, with the checksum of its own text."""
    body = {"formatVersion": FORMAT_VERSION, "key": key, **body}
    return _canonical(body | {"checksum": content_hash(_canonical(body))}) + b"\n"


def parse_record(key: str, data: bytes) -> dict[str, Any]:
    """What `record_bytes` was given, with formatVersion; raises Damaged or TooNew.

    Records of the first release have neither checksum nor key and are believed.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("formatVersion"), int):
        raise Damaged("it has no formatVersion")
    checksum = body.pop("checksum", None)
    if checksum is not None and checksum != content_hash(_canonical(body)):
        raise Damaged("it does not match its own checksum")
    if body.get("key", key) != key:
        raise Damaged(f"it belongs to {body['key']}")
    if body["formatVersion"] > FORMAT_VERSION:
        raise TooNew(
            f"has format version {body['formatVersion']}, this library reads up to {FORMAT_VERSION}: "
            "install a newer one in the training image"
        )
    return body


def check_file(name: str, record: FileRecord, data: bytes) -> None:
    """Raise Damaged unless the data is what the manifest promises."""
    if len(data) != record.size:
        raise Damaged(f"{name} has {len(data)} bytes instead of {record.size}")
    if (found := content_hash(data)) != record.xxh3_128:
        raise Damaged(f"{name} has content hash {found} instead of {record.xxh3_128}")


def content_hash(data: bytes | memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
