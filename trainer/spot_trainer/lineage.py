"""Which checkpoints count: names of claims and attempts, and the lineage of a claim. Pure.

Two processes of one run may be alive at once (a node that was given up comes back). Each
claims before it trains and records the one checkpoint it builds on. From these records
alone, whoever comes next knows which checkpoints belong to the history that was
continued, and which are the dead end of a process that had been given up. Invariant: the
answer is a function of a listing; neither clocks nor the order of arrival matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

CLAIM_NONCE_CHARS = 16

_CLAIM = re.compile(r"(\d{8}T\d{6}Z)-([A-Za-z0-9.-]{1,64})-(\d{8})\Z")
_ATTEMPT = re.compile(r"(\d{12})-(\d{8})-([0-9a-f]{20})\Z")


@dataclass(frozen=True, order=True)
class ClaimName:
    """Claims are ordered by this: creation of the job, its UID, the incarnation."""

    created: str
    job_uid: str
    incarnation: int

    @classmethod
    def make(cls, created: datetime, job_uid: str, incarnation: int) -> ClaimName:
        return cls(created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"), job_uid, incarnation)

    @classmethod
    def parse(cls, text: str) -> ClaimName | None:
        match = _CLAIM.match(text)
        return cls(match[1], match[2], int(match[3])) if match else None

    def __str__(self) -> str:
        return f"{self.created}-{self.job_uid}-{self.incarnation:08d}"


@dataclass(frozen=True, order=True)
class AttemptName:
    """One save of one process; the nonce begins with the nonce of its claim."""

    step: int
    incarnation: int
    nonce: str

    @classmethod
    def make(cls, step: int, incarnation: int, claim_nonce: str, count: int) -> AttemptName:
        return cls(step, incarnation, f"{claim_nonce}{count:04x}")

    @classmethod
    def parse(cls, text: str) -> AttemptName | None:
        match = _ATTEMPT.match(text)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    @property
    def claim_nonce(self) -> str:
        return self.nonce[:CLAIM_NONCE_CHARS]

    def __str__(self) -> str:
        return f"{self.step:012d}-{self.incarnation:08d}-{self.nonce}"


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the store."""

    name: ClaimName
    nonce: str
    job: str = ""
    """namespace/name, for people."""
    base: AttemptName | None = None
    """The checkpoint that it recorded to build on; None: a fresh start, or nothing recorded yet."""
    last: AttemptName | None = None
    """The checkpoint that it named as its last when it ended; None: it did not end in good order."""


@dataclass(frozen=True)
class Lineage:
    """Checkpoints to try, the best first, and recorded ones that should be there and are gone."""

    candidates: tuple[AttemptName, ...] = ()
    missing: tuple[AttemptName, ...] = ()


def greater_than(own: ClaimName, claims: Iterable[ClaimName]) -> ClaimName | None:
    """The greatest claim above our own, if there is one: then we are fenced."""
    return max((claim for claim in claims if claim > own), default=None)


def below(own: ClaimName, claims: Collection[Claim], published: Collection[AttemptName]) -> Lineage:
    """The lineage that a new claim continues: that of the greatest lesser claim that has anything."""
    active = {attempt.claim_nonce for attempt in published}
    lesser = [c for c in claims if c.name < own and (c.base is not None or c.nonce in active)]
    if not lesser:
        return Lineage()
    return of(max(lesser, key=lambda claim: claim.name), claims, published)


def orphans(
    lineage: Lineage, claims: Iterable[Claim], published: Iterable[AttemptName]
) -> tuple[AttemptName, ...]:
    """Checkpoints that no claim explains and that the lineage does not reach: their claims are gone."""
    nonces, reached = {claim.nonce for claim in claims}, set(lineage.candidates)
    return tuple(name for name in published if name.claim_nonce not in nonces and name not in reached)


def of(claim: Claim, claims: Collection[Claim], published: Collection[AttemptName]) -> Lineage:
    """What the claim published, then its base, and so on down."""
    by_nonce: Mapping[str, Claim] = {each.nonce: each for each in claims}
    candidates: list[AttemptName] = []
    missing: list[AttemptName] = []
    if claim.last is not None and claim.last not in published and claim.last != claim.base:
        missing.append(claim.last)
    current: Claim | None = claim
    bound: int | None = None
    while current is not None:
        own = [
            attempt
            for attempt in published
            if attempt.claim_nonce == current.nonce and (bound is None or attempt.step <= bound)
        ]
        candidates.extend(sorted(own, reverse=True))
        base = current.base
        if base is None:
            break
        # Whoever has published since may have deleted what it had built upon.
        if base not in published and not candidates:
            missing.append(base)
        parent = by_nonce.get(base.claim_nonce)
        if parent is None and base in published:
            candidates.append(base)
        # A base always lies in an earlier claim; anything else is not a record of ours.
        current = parent if parent is not None and parent.name < current.name else None
        bound = base.step
    return Lineage(tuple(candidates), tuple(missing))
