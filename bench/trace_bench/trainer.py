"""A training program that speaks the contract and needs no torch: steps are time, checkpoints are a number.

It claims its store, waits for a predecessor that may still save, resumes from the newest checkpoint,
reports, hears SIGTERM, saves and leaves with its outcome. Everything but the store is the trainer library's.
Invariant: a step is done when its time is over, counted from the first of this process, so that the rate
is the same on a busy machine.
"""

from __future__ import annotations

import spot_trainer  # noqa: F401  first: listens for SIGTERM from here on

# isort: split
import json
import os
import secrets
import sys
import time
from typing import NoReturn

from spot_trainer import handover
from spot_trainer.clock import Clock
from spot_trainer.contract import (
    CheckpointRef,
    Directives,
    Environment,
    Metric,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    ProgressReport,
)
from spot_trainer.handover import Waited
from spot_trainer.lineage import AttemptName, ClaimName, greater_than
from spot_trainer.notice import LISTENER
from spot_trainer.outcome import OutcomeFile
from spot_trainer.report import Pace, Reporter
from trace_bench.bucket import Bucket

CLAIMS, ATTEMPTS = "claims/", "attempts/"
MANIFEST = "/MANIFEST.json"
RESTORE_SECONDS = 3.0
"""Image, program and checkpoint of a real run take minutes, which is seconds in compressed time."""


class Trainer:
    def __init__(self, total_steps: int, step_seconds: float) -> None:
        self._told = Environment.from_environ(os.environ)
        assert self._told.checkpoint_uri is not None
        self._store = Bucket(self._told.checkpoint_uri, os.environ)
        self._claim = ClaimName.make(self._told.job_created, self._told.job_uid, self._told.incarnation)
        self._nonce = secrets.token_hex(8)
        self._total, self._step_seconds = total_steps, step_seconds
        self._step = 0
        self._durable: AttemptName | None = None
        self._num_saves, self._save_seconds = 0, 0.0
        self._is_waiting = True
        self._reports = False
        self._directives = Directives()
        self._handled: str | None = None
        self._clock, self._pace = Clock(), Pace()
        self._outcome = OutcomeFile(self._told.termination_log)
        self._reporter = Reporter(
            self._told.status_url or "",
            current=self._progress,
            ca_cert=self._told.status_ca_cert,
            token=self._told.status_token,
            on_directives=self._take_directives,
            min_period_seconds=1.0,
        )

    def run(self) -> NoReturn:
        self._start()
        began, first = time.monotonic(), self._step
        last_save = began
        while self._step < self._total:
            time.sleep(max(0.0, began + (self._step - first + 1) * self._step_seconds - time.monotonic()))
            self._step += 1
            if LISTENER.received_at is not None or self._directives.stop is not None:
                self._save()
                self._end(OutcomeKind.STOPPED, OutcomeReason.NOTICE)
            asked = self._directives.checkpoint_now
            is_asked = asked is not None and asked != self._handled
            if is_asked or time.monotonic() - last_save >= self._told.checkpoint_interval_seconds:
                self._handled, last_save = asked, time.monotonic()
                self._save()
        self._save()
        self._end(OutcomeKind.COMPLETE, OutcomeReason.COMPLETED)

    def _start(self) -> None:
        if self._claims()[0]:  # somebody was here before: what the operator knows of him comes with an answer
            self._report()
        self._wait_for_predecessor()
        claim = json.dumps({"podUID": self._told.pod_uid, "nonce": self._nonce}).encode()
        if not self._store.create(f"{CLAIMS}{self._claim}.json", claim):
            self._end(OutcomeKind.FENCED, OutcomeReason.SUPERSEDED)
        # Who claims has waited until nobody before it can publish: the greatest step is the newest.
        names = {key.split("/")[1] for key in self._store.list(ATTEMPTS) if key.endswith(MANIFEST)}
        found = [name for name in map(AttemptName.parse, names) if name is not None]
        if found:
            self._durable = max(found)
            self._step = int(json.loads(self._store.read(f"{ATTEMPTS}{self._durable}{MANIFEST}"))["step"])
        time.sleep(RESTORE_SECONDS)
        print(f"incarnation {self._told.incarnation} on {self._told.capacity_type}", flush=True)
        print(f"from step {self._step}", flush=True)
        self._is_waiting = False
        self._pace.begin(self._step)
        self._report()
        LISTENER.start_polling(self._told.grace_seconds)

    def _report(self) -> None:
        """Soon; the first time also begins it."""
        if self._reports:
            self._reporter.wake()
        else:
            self._reports = True
            self._reporter.start()

    def _wait_for_predecessor(self) -> None:
        why = handover.wait(
            self._claim,
            seconds=self._told.handover_seconds,
            look=self._claims,
            dead_incarnation=lambda: self._directives.predecessor_dead,
            is_told_to_stop=lambda: LISTENER.received_at is not None,
            tell=lambda _: self._report(),
            clock=self._clock,
        )
        print(f"the wait is over: {why}", flush=True)
        if why is Waited.TOLD_TO_STOP:
            self._end(OutcomeKind.STOPPED, OutcomeReason.NOTICE)

    def _claims(self) -> tuple[frozenset[ClaimName], frozenset[ClaimName]]:
        keys = [key.removeprefix(CLAIMS) for key in self._store.list(CLAIMS)]
        closed = (key.removesuffix(".closed.json") for key in keys if key.endswith(".closed.json"))
        return (
            frozenset(name for key in keys if (name := ClaimName.parse(key.removesuffix(".json")))),
            frozenset(name for key in closed if (name := ClaimName.parse(key))),
        )

    def _save(self) -> None:
        if self._durable is not None and self._durable.step == self._step:
            return
        began = time.monotonic()
        if greater_than(self._claim, self._claims()[0]) is not None:
            self._end(OutcomeKind.FENCED, OutcomeReason.SUPERSEDED)
        self._num_saves += 1
        name = AttemptName.make(self._step, self._told.incarnation, self._nonce, self._num_saves)
        self._store.create(f"{ATTEMPTS}{name}{MANIFEST}", json.dumps({"step": self._step}).encode())
        self._durable, self._save_seconds = name, time.monotonic() - began
        self._report()

    def _end(self, kind: OutcomeKind, reason: OutcomeReason) -> NoReturn:
        name = self._durable
        durable = None if name is None else CheckpointRef(name=str(name), step=name.step)
        outcome = Outcome(
            kind=kind,
            reason=reason,
            incarnation=self._told.incarnation,
            step=self._step,
            checkpoint=durable,
        )
        self._outcome.write(outcome)
        if kind is not OutcomeKind.FENCED:
            self._store.create(f"{CLAIMS}{self._claim}.closed.json", b"{}")
        self._reporter.close(timeout_seconds=1.0)
        print(f"{kind} at step {self._step}", flush=True)
        sys.exit(self._outcome.exit_code)

    def _take_directives(self, directives: Directives) -> None:
        self._directives = directives

    def _progress(self) -> ProgressReport:
        step, durable = self._step, self._durable
        metrics = {str(Metric.CHECKPOINT_SECONDS): f"{self._save_seconds:.4f}"} if self._num_saves else {}
        if (rate := self._pace.steps_per_second(step)) is not None:
            metrics[str(Metric.STEPS_PER_SECOND)] = f"{rate:.6g}"
        return ProgressReport(
            metrics=metrics,
            last_updated_time=self._clock.wall(),
            step=None if self._is_waiting else step,
            total_steps=self._total,
            durable_step=None if durable is None else durable.step,
            checkpoint_name=None if durable is None else str(durable),
            incarnation=self._told.incarnation,
        )


if __name__ == "__main__":
    Trainer(int(sys.argv[1]), float(sys.argv[2])).run()
