"""The store protocol of one process: claim, build on the lineage, publish, retain.

The order of operations is the protocol (docs/checkpoint-format.md): claim, list, verify,
record the base, look for greater claims; and before every publish look again. Invariant:
a process that has seen a greater claim writes and deletes nothing more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from spot_trainer import lineage, retention, writer
from spot_trainer.clock import Clock
from spot_trainer.contract import IfExists, OutcomeReason, format_time
from spot_trainer.lineage import AttemptName, Claim, ClaimName, Lineage
from spot_trainer.manifest import MANIFEST, Damaged, Manifest, TooNew, parse_record, record_bytes
from spot_trainer.retention import Published
from spot_trainer.snapshot import Snapshot
from spot_trainer.store import Entry, NotFound, Store, StoreError, StoreFull, StoreRefused, create_ours
from spot_trainer.writer import Loaded

CLAIMS, QUARANTINE = "claims/", "quarantine/"
BASE, CLOSED, CLAIM = ".base.json", ".closed.json", ".json"


class Fenced(Exception):
    """Somebody with a greater claim continues this run."""

    def __init__(self, message: str, reason: OutcomeReason = OutcomeReason.SUPERSEDED) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this process is towards the store."""

    claim: ClaimName
    nonce: str
    pod_uid: str
    job: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class Final:
    """The marker of a finished run."""

    step: int
    total_steps: int | None
    fingerprint: str
    checkpoint: str


class Checkpoints:
    """Not thread-safe: one caller at a time."""

    def __init__(
        self,
        store: Store,
        identity: Identity,
        *,
        keep: int,
        clock: Clock,
        warn: Callable[[str], None],
        keep_every_steps: int | None = None,
        retention_delay: timedelta = retention.DELAY,
    ) -> None:
        self._store, self._identity, self._keep, self._clock = store, identity, keep, clock
        self._warn, self._retention_delay, self._keep_every = warn, retention_delay, keep_every_steps
        self._has_swept = False
        self._has_claimed = self._has_base = False
        self._base: dict[str, Any] | None = None
        self._num_attempts = 0
        self._inherited: tuple[AttemptName, ...] = ()
        self._published: set[AttemptName] = set()
        self._failed: list[AttemptName] = []

    @property
    def uri(self) -> str:
        return self._store.uri

    # ------------------------------------------------------------------ claim and resume

    def look_at_claims(self) -> tuple[frozenset[ClaimName], frozenset[ClaimName]]:
        """All claims, and those whose process has ended in good order; raises StoreError."""
        keys = [entry.key.removeprefix(CLAIMS) for entry in self._store.list(CLAIMS)]
        claims = frozenset(name for key in keys if (name := ClaimName.parse(key.removesuffix(CLAIM))))
        closed = (key.removesuffix(CLOSED) for key in keys if key.endswith(CLOSED))
        return claims, frozenset(name for key in closed if (name := ClaimName.parse(key)))

    def claim(self, if_exists: IfExists = IfExists.RESUME) -> None:
        """Check the run's identity and claim; raises StoreRefused, Fenced, StoreError. Safe to repeat."""
        self._check_run()
        me = self._identity
        key, content = self._create_claim()
        self._has_claimed = True
        # A server that ignores the condition would let two processes own the run.
        if self._store.create(key, content):
            raise StoreRefused(
                OutcomeReason.STORE_UNSUPPORTED,
                f"{self._store.uri} does not honour exclusive creation (PUT with If-None-Match)",
            )
        claims = self._list_claims()
        self._look(claims)
        strangers = [claim for claim in claims if claim.job_uid != me.claim.job_uid]
        if if_exists is IfExists.FAIL and strangers:
            raise StoreRefused(
                OutcomeReason.CHECKPOINT_CONFLICT,
                f"{self._store.uri} holds an earlier run and spec.checkpoint.ifExists is Fail: use another "
                "prefix, or set it to Resume",
            )

    def find_base(self, live: Mapping[str, Any] | None = None) -> Loaded | None:
        """Load the latest valid checkpoint of the lineage and record it; None: a fresh start.

        Tensors of `live` are overwritten in place where they fit (see `writer.load`).
        Raises Fenced, StoreError, TooNew, and StoreRefused if there are checkpoints but none is intact.
        """
        names = self._list_claims()
        published = self._list_published()
        claims = self._read_claims(names)
        found = lineage.below(self._identity.claim, claims, published.keys())
        self._check_orphans(lineage.orphans(found, claims, published.keys()), found)
        loaded = self._first_valid(found, live)
        if loaded is not None:
            position = found.candidates.index(loaded.name)
            self._inherited = found.candidates[position:]
        self._base = {"name": str(loaded.name), "step": loaded.name.step} if loaded else None
        if not self._create_base():
            raise Fenced(f"another process recorded a base for {self._identity.claim}")
        self._has_base = True
        self._look(self._list_claims())
        return loaded

    def _check_orphans(self, orphans: Sequence[AttemptName], found: Lineage) -> None:
        """Checkpoints whose claim somebody has deleted: never a silent fresh start or step back."""
        if not orphans:
            return
        # One that claimed and published while we were listing has overtaken us, and is no orphan.
        self._look(self._list_claims())
        text = (
            f"{self._store.uri} holds {len(orphans)} checkpoints, up to step {max(orphans).step}, whose "
            "claims are gone from claims/"
        )
        if not found.candidates and not found.missing:
            raise StoreRefused(
                OutcomeReason.CHECKPOINTS_DAMAGED, f"{text}: restore the claims, or use another prefix"
            )
        self._warn(f"{text}: they are not used")

    def _check_run(self) -> None:
        # Some servers create a bucket that is absent when something is written to it; a listing
        # says that it is absent, which is far more often a typing mistake than a wish.
        self._store.list("claims/")
        key = "run.json"
        if self._store.create(key, record_bytes(key, runID=self._identity.run_id)):
            return
        found = self._read_json(key).get("runID")
        if found != self._identity.run_id:
            raise StoreRefused(
                OutcomeReason.CHECKPOINT_CONFLICT,
                f"{self._store.uri} belongs to the run {found!r}, not {self._identity.run_id!r}: use another "
                "prefix, or set spec.checkpoint.runID",
            )

    def _first_valid(self, found: Lineage, live: Mapping[str, Any] | None) -> Loaded | None:
        quarantined = self._list_quarantined()
        damaged: list[str] = []
        for name in found.missing:
            damaged.append(f"{name}: recorded but gone")
            self._warn(f"checkpoint {name} was recorded and is gone; trying the one before it")
        for name in found.candidates:
            if name in quarantined:
                damaged.append(f"{name}: in quarantine")
                continue
            try:
                return writer.load(self._store, name, live)
            except Damaged as error:
                damaged.append(f"{name}: {error}")
                self._warn(f"checkpoint {name} is damaged ({error}); trying the one before it")
                self._quarantine(name, str(error))
        if damaged:
            raise StoreRefused(
                OutcomeReason.CHECKPOINTS_DAMAGED,
                f"no checkpoint in {self._store.uri} is intact ({'; '.join(damaged)[:400]}): restore one and "
                "delete its record in quarantine/, or start again under another prefix",
            )
        return None

    def _quarantine(self, name: AttemptName, reason: str) -> None:
        key, since = f"{QUARANTINE}{name}.json", format_time(self._clock.wall())
        try:
            self._store.create(key, record_bytes(key, attempt=str(name), reason=reason, since=since))
        except StoreError as error:
            self._warn(f"could not record that {name} is damaged: {error}")

    # ------------------------------------------------------------------ publish and retain

    def save(
        self,
        snapshot: Snapshot,
        *,
        step: int,
        total_steps: int | None,
        environment: dict[str, Any],
    ) -> AttemptName:
        """Write and publish a checkpoint, then retain; raises Fenced or StoreError."""
        if not self._has_base:
            # Without a base what is published would begin a history of its own and hide all others.
            raise RuntimeError("save was called before find_base")
        with contextlib.suppress(StoreFull):
            return self._save_or_make_room(snapshot, step, total_steps, environment)
        return self._save_or_make_room(snapshot, step, total_steps, environment)

    def _save_or_make_room(
        self, snapshot: Snapshot, step: int, total_steps: int | None, environment: dict[str, Any]
    ) -> AttemptName:
        try:
            return self._save(snapshot, step, total_steps, environment)
        except StoreFull:
            # What that attempt has written, and what is superseded, is in the way now. To wait only
            # spares a reader that has not yet claimed, and that finds the newest ones damaged as well.
            self._retain(timedelta(0))
            raise

    def _save(
        self, snapshot: Snapshot, step: int, total_steps: int | None, environment: dict[str, Any]
    ) -> AttemptName:
        me = self._identity
        self._num_attempts += 1
        name = AttemptName.make(step, me.claim.incarnation, me.nonce, self._num_attempts)
        self._failed.append(name)
        files = writer.write(self._store, name, snapshot)
        manifest = Manifest(
            attempt=str(name),
            claim=str(me.claim),
            run_id=me.run_id,
            step=step,
            total_steps=total_steps,
            incarnation=me.claim.incarnation,
            created=format_time(self._clock.wall()),
            files=files,
            environment=environment,
        )
        claims = self._list_claims()
        self._look(claims)
        if me.claim not in claims:
            self._record_again()
        if not create_ours(self._store, writer.folder(name) + MANIFEST, manifest.to_bytes()):
            raise StoreRefused(OutcomeReason.STORE_UNSUPPORTED, f"{name} was published by somebody else")
        self._failed.remove(name)
        self._published.add(name)
        self._retain(self._retention_delay)
        if not self._has_swept:
            self._has_swept = True
            self._sweep()
        return name

    def _record_again(self) -> None:
        """Our claim is gone: without it no later process would find what we publish."""
        self._warn(
            f"somebody has deleted the records of this run in {self._store.uri}; they are written again, "
            "what else was deleted is lost"
        )
        self._check_run()
        self._create_claim()
        self._create_base()

    def _create_claim(self) -> tuple[str, bytes]:
        """The record of our claim, which exists now; raises Fenced."""
        me = self._identity
        key = f"{CLAIMS}{me.claim}{CLAIM}"
        content = record_bytes(key, podUID=me.pod_uid, nonce=me.nonce, job=me.job)
        if not create_ours(self._store, key, content):
            raise Fenced(f"another process holds the claim {me.claim}")
        return key, content

    def _create_base(self) -> bool:
        key = f"{CLAIMS}{self._identity.claim}{BASE}"
        content = record_bytes(key, nonce=self._identity.nonce, checkpoint=self._base)
        return create_ours(self._store, key, content)

    def _retain(self, delay: timedelta) -> None:
        """Delete what was superseded long enough ago; trouble here is only worth a warning."""
        try:
            times = self._list_published()
            quarantined = self._list_quarantined()
            # A save whose last answer was lost may have been published after all.
            self._published |= {name for name in self._failed if name in times}
            self._failed = [name for name in self._failed if name not in times]
            order = (*sorted(self._published, reverse=True), *self._inherited)
            verified = self._published | set(self._inherited[:1])
            alive = [
                Published(name, times[name].modified, name in verified)
                for name in order
                if name in times and name not in quarantined
            ]
            if not alive and order:
                return  # a successor has deleted all of them: the next look at the claims will tell
            gone = list(self._failed)
            if alive:
                gone += retention.superseded(
                    alive,
                    keep=self._keep,
                    now=alive[0].time,
                    delay=delay,
                    keep_every_steps=self._keep_every,
                )
            if gone:
                self._look(self._list_claims())
                self._delete(gone)
                self._failed = []
        except StoreError as error:
            self._warn(f"could not delete old checkpoints: {error}")

    def _sweep(self) -> None:
        """Remove what processes that are gone have left half-written, once per process."""
        try:
            entries = [(*_attempt_of(entry.key), entry.modified) for entry in self._store.list("attempts/")]
            published = {name for name, file, _ in entries if file == MANIFEST}
            now = max(time for _, _, time in entries)
            written: dict[AttemptName, datetime] = {}
            for name, _, time in entries:
                if name is not None and name not in published and name.claim_nonce != self._identity.nonce:
                    written[name] = max(time, written.get(name, time))
            pending = [(item, _attempt_of(item.key)[0]) for item in self._store.unfinished("attempts/")]
            if not written and not pending:
                return
            closed = self._closed_nonces()

            def is_gone(name: AttemptName, time: datetime) -> bool:
                return retention.is_abandoned(name, written=time, closed=closed, now=now)

            gone = [name for name, time in written.items() if is_gone(name, time)]
            stale = [item for item, name in pending if name is not None and is_gone(name, item.modified)]
            if gone or stale:
                self._look(self._list_claims())
                for item in stale:
                    self._store.discard(item)
                self._delete(gone)
        except StoreError as error:
            self._warn(f"could not remove what interrupted saves have left: {error}")

    def _closed_nonces(self) -> set[str]:
        keys = [entry.key for entry in self._store.list(CLAIMS) if entry.key.endswith(CLOSED)]
        return {str(self._read_json(key).get("nonce")) for key in keys}

    def _delete(self, names: Iterable[AttemptName]) -> None:
        for name in names:
            keys = [entry.key for entry in self._store.list(writer.folder(name))]
            # The manifest goes first: an attempt is at no time a checkpoint with files missing.
            keys.sort(key=lambda key: (not key.endswith(MANIFEST), key))
            self._store.delete(keys)

    # ------------------------------------------------------------------ the end

    def read_final(self) -> Final | None:
        """The marker of a finished run, if there is one."""
        try:
            body = self._read_json("final.json")
        except NotFound:
            return None
        return Final(
            step=body["step"],
            total_steps=body["totalSteps"],
            fingerprint=body["fingerprint"],
            checkpoint=body["checkpoint"],
        )

    def write_final(self, final: Final) -> None:
        """Mark the run as finished; raises Fenced or StoreError."""
        self._look(self._list_claims())
        content = record_bytes(
            "final.json",
            runID=self._identity.run_id,
            step=final.step,
            totalSteps=final.total_steps,
            fingerprint=final.fingerprint,
            checkpoint=final.checkpoint,
        )
        self._store.put("final.json", [content])

    def close(self, outcome: str, checkpoint: str) -> None:
        """Record that this process has published its last; best effort."""
        if not self._has_claimed:
            return
        key = f"{CLAIMS}{self._identity.claim}{CLOSED}"
        content = record_bytes(key, nonce=self._identity.nonce, outcome=outcome, checkpoint=checkpoint)
        try:
            self._store.create(key, content)
        except StoreError as error:
            self._warn(f"could not close the claim: {error}")

    def write_metrics(self, first_step: int, lines: list[str]) -> None:
        """Keep the metrics of the steps since the last save, one object per save; raises StoreError."""
        me = self._identity
        name = f"metrics/{me.claim.incarnation:08d}-{me.nonce}-{first_step:012d}.jsonl"
        self._store.put(name, ["".join(f"{line}\n" for line in lines).encode()])

    # ------------------------------------------------------------------ reading the store

    def _look(self, claims: Iterable[ClaimName]) -> None:
        own = self._identity.claim
        greater = lineage.greater_than(own, claims)
        if greater is None:
            return
        if greater.job_uid == own.job_uid:
            raise Fenced(f"incarnation {greater.incarnation} has taken over")
        try:
            job = self._read_json(f"{CLAIMS}{greater}{CLAIM}").get("job", "")
        except StoreError:
            job = ""
        raise Fenced(
            f"job {job or greater.job_uid} ({greater}) trains from the same store",
            OutcomeReason.CLAIM_CONFLICT,
        )

    def _list_claims(self) -> list[ClaimName]:
        return [name for name in map(_claim_of, self._store.list(CLAIMS)) if name is not None]

    def _read_claims(self, names: Iterable[ClaimName]) -> list[Claim]:
        keys = {entry.key for entry in self._store.list(CLAIMS)}
        return [self._read_claim(name, keys) for name in names]

    def _read_claim(self, name: ClaimName, keys: Collection[str]) -> Claim:
        body = self._read_json(f"{CLAIMS}{name}{CLAIM}")
        base_key, closed_key = f"{CLAIMS}{name}{BASE}", f"{CLAIMS}{name}{CLOSED}"
        recorded = self._read_json(base_key).get("checkpoint") if base_key in keys else None
        last: dict[str, Any] = {}
        if closed_key in keys:
            try:
                last = self._read_json(closed_key)
            except StoreRefused as error:
                self._warn(f"{error}; it is not needed to go on")
        return Claim(
            name,
            body["nonce"],
            body.get("job", ""),
            base=AttemptName.parse(recorded["name"]) if recorded else None,
            last=AttemptName.parse(last.get("checkpoint") or ""),
        )

    def _list_published(self) -> dict[AttemptName, Entry]:
        found: dict[AttemptName, Entry] = {}
        for entry in self._store.list("attempts/"):
            name, file = _attempt_of(entry.key)
            if name is not None and file == MANIFEST:
                found[name] = entry
        return found

    def _list_quarantined(self) -> set[AttemptName]:
        keys = (entry.key for entry in self._store.list(QUARANTINE))
        names = (AttemptName.parse(key.removeprefix(QUARANTINE).removesuffix(".json")) for key in keys)
        return {name for name in names if name is not None}

    def _read_json(self, key: str) -> dict[str, Any]:
        data = self._store.read(key)
        try:
            return parse_record(key, data)
        except Damaged as error:
            raise StoreRefused(
                OutcomeReason.CHECKPOINTS_DAMAGED,
                f"{self._store.uri}/{key} is not what was written there ({error}): restore it, or use "
                "another prefix",
            ) from None
        except TooNew as error:
            raise StoreRefused(OutcomeReason.STORE_UNSUPPORTED, f"{self._store.uri}/{key} {error}") from None


def _claim_of(entry: Entry) -> ClaimName | None:
    stem = entry.key.removeprefix(CLAIMS)
    if not stem.endswith(CLAIM) or stem.endswith((BASE, CLOSED)):
        return None
    return ClaimName.parse(stem.removesuffix(CLAIM))


def _attempt_of(key: str) -> tuple[AttemptName | None, str]:
    """The attempt and the name within it."""
    _, folder, *rest = key.split("/")
    return AttemptName.parse(folder), "/".join(rest)
