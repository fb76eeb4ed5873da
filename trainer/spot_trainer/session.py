"""The life of one process of a run: start, step after step, the end.

`loop.Run` is what users see; this is what happens behind it. Invariant: every way out
goes through `end`, which writes the outcome exactly once and only then leaves; before
that, whatever can be saved has been saved or the outcome says why not.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from spot_trainer import cadence as cadences
from spot_trainer import farewell, handover
from spot_trainer import snapshot as snapshots
from spot_trainer.attendants import Attendants
from spot_trainer.cadence import Cadence, StepCost
from spot_trainer.checkpoints import CLAIMS, Checkpoints, Fenced, Final, Identity
from spot_trainer.clock import Clock
from spot_trainer.contract import (
    CheckpointRef,
    ExitCode,
    Metric,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    ProgressReport,
    clean_text,
    format_time,
)
from spot_trainer.events import Event, EventLog, jsonable
from spot_trainer.farewell import Farewell
from spot_trainer.handover import Waited
from spot_trainer.lineage import AttemptName, ClaimName
from spot_trainer.manifest import TooNew
from spot_trainer.notice import LISTENER
from spot_trainer.notice_endpoint import CloudNotice
from spot_trainer.outcome import OutcomeFile
from spot_trainer.report import Pace
from spot_trainer.saver import Save, Saved, Saver
from spot_trainer.settings import LOCAL_JOB_UID, Settings
from spot_trainer.state import RNG_PREFIX, Incompatible, State, describe_environment
from spot_trainer.store import Store, StoreError, StoreRefused, StoreUnavailable
from spot_trainer.store.probe import probe
from spot_trainer.tally import Reading, Tally
from spot_trainer.writer import Loaded

START_PATIENCE_SECONDS = 120.0
"""How long a store may be away at the start, or at the very end, before the process fails."""

LAST_SAVE_PATIENCE_SECONDS = 60.0
"""How long a program that failed is held for the save in flight, the last that anybody has of it."""

HANDOVER_LINE_SECONDS = 10.0
"""How often a wait for the predecessor is written down."""

T = TypeVar("T")


class Ended(SystemExit):
    """Leaves the training script; the outcome is written."""


@dataclass(frozen=True)
class Durable:
    """The last checkpoint that survives this process."""

    name: AttemptName
    time: datetime | None


class Session:
    """Everything but the user's loop."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        *,
        store: Callable[[], Store] | None,
        clock: Clock,
        log_seconds: float,
        record_metrics: bool,
        save_in_background: bool = True,
    ) -> None:
        self.settings, self._state, self._open_store, self._clock = settings, state, store, clock
        self.step = 0
        self.total_steps: int | None = None
        self.is_finished = False
        """The run was finished before this process; there are no steps to do."""
        self.durable: Durable | None = None
        self.metrics: dict[str, Any] = {}
        self.incarnation = settings.incarnation or 1
        self._checkpoints: Checkpoints | None = None
        self._outcome = OutcomeFile(settings.termination_log)
        self._log = EventLog(clock, incarnation=self.incarnation, capacity_type=settings.capacity_type)
        self._log_seconds, self._last_log = log_seconds, float("-inf")
        self._record_metrics, self._lines = record_metrics, list[str]()
        self._first_line_step = 0
        self._cadence = Cadence(settings.interval_seconds, clock.monotonic())
        self._saver, self._buffers = Saver(clock.monotonic), snapshots.Buffers()
        self._in_background = save_in_background
        self._tally, self._first_step = Tally(), 0
        self._trouble = ""
        """Why the newest save failed, until one succeeds."""
        self._step_cost, self._last_step_end = StepCost(), float("nan")
        self._longest_step_seconds, self._has_warned_of_grace = 0.0, False
        self._handled_request: str | None = None
        self._stop_reason: str | None = None
        self._notice: CloudNotice | None = None
        self._pace = Pace(clock.monotonic)
        self._attendants = Attendants(
            settings,
            progress=self.progress,
            reading=self._reading,
            on_notice=self._take_notice,
            warn=self.warn,
        )
        self._is_ending = False
        self._has_resumed = False
        """What there is to save is the run's state; before that, it is that of a fresh start."""
        self._is_waiting = False
        """For a predecessor: there is no step to report yet."""

    # ------------------------------------------------------------------ start

    def start(self) -> None:
        """Claim and resume; afterwards a notice is looked at between steps."""
        LISTENER.on_leave(self._leave_from_listener)
        LISTENER.install()
        self._attendants.start()
        if self._open_store is None:
            self._log.emit(Event.START, 0, checkpoint=None)
            self.warn("no place for checkpoints was given: this run keeps nothing and cannot be resumed")
        else:
            self._guarded(self._claim_and_resume)
        self._cadence = Cadence(self.settings.interval_seconds, self._clock.monotonic())
        LISTENER.start_polling(self.settings.grace_seconds)

    def _claim_and_resume(self) -> None:
        assert self._open_store is not None
        store = self._open_or_end(self._open_store)
        for caveat in self._patiently(lambda: probe(store)):
            self.warn(caveat)
        identity = self._patiently(lambda: self._identity(store))
        self._checkpoints = Checkpoints(
            store,
            identity,
            keep=self.settings.keep,
            keep_every_steps=self.settings.keep_every_steps,
            clock=self._clock,
            warn=self.warn,
        )
        self._log.emit(Event.START, 0, checkpoint=store.uri, claim=str(identity.claim), runID=identity.run_id)
        self._await_predecessor(identity.claim)
        self._patiently(lambda: self._required().claim(self.settings.if_exists))
        self._attendants.wake()
        began = self._clock.monotonic()
        loaded = self._patiently(lambda: self._required().find_base(self._captured()))
        if loaded is not None:
            seconds = self._clock.monotonic() - began
            self._tally = self._tally.after_restore(
                seconds, sum(f.size for f in loaded.manifest.files.values())
            )
            self._restore(loaded)
        self._has_resumed = True

    def _await_predecessor(self, own: ClaimName) -> None:
        """Let the one before us finish its last checkpoint; our claim would take it away."""
        seconds, began, told = self.settings.handover_seconds, self._clock.monotonic(), float("-inf")
        if seconds <= 0:
            return
        self._is_waiting = True

        def tell(predecessor: ClaimName) -> None:
            nonlocal told
            self._attendants.wake()  # what the operator knows of it comes with the answer
            waited = self._clock.monotonic() - began
            if waited - told >= HANDOVER_LINE_SECONDS:
                told = waited
                message = (
                    f"incarnation {predecessor.incarnation} may still save: waiting at most {seconds:g} s"
                )
                self._log.emit(Event.WAITING, self.step, waitedSeconds=round(waited), message=message)

        why = handover.wait(
            own,
            seconds=seconds,
            look=lambda: self._patiently(self._required().look_at_claims),
            dead_incarnation=lambda: self._attendants.directives.predecessor_dead,
            is_told_to_stop=lambda: LISTENER.received_at is not None,
            tell=tell,
            clock=self._clock,
        )
        self._is_waiting = False
        waited = round(self._clock.monotonic() - began, 3)
        self._log.emit(Event.WAITING, self.step, waitedSeconds=waited, message=f"the wait is over: {why}")
        if why is Waited.TOLD_TO_STOP:
            self.end(OutcomeKind.STOPPED, OutcomeReason.NOTICE, "stopped before it had claimed the store")

    def _open_or_end(self, open_store: Callable[[], Store]) -> Store:
        try:
            return open_store()
        except ValueError as error:  # of the place or of an option in the environment
            self.end(
                OutcomeKind.FAILED, OutcomeReason.INVALID_ENVIRONMENT, clean_text(str(error)), ExitCode.CONFIG
            )

    def _identity(self, store: Store) -> Identity:
        told = self.settings
        if told.incarnation is None:
            names = (
                ClaimName.parse(e.key.removeprefix(CLAIMS).removesuffix(".json")) for e in store.list(CLAIMS)
            )
            own = [n.incarnation for n in names if n is not None and n.job_uid == LOCAL_JOB_UID]
            self.incarnation = max(own, default=0) + 1
            self._log = EventLog(self._clock, incarnation=self.incarnation, capacity_type=told.capacity_type)
        return Identity(
            claim=ClaimName.make(told.job_created, told.job_uid, self.incarnation),
            nonce=secrets.token_hex(8),
            pod_uid=told.pod_uid,
            job=told.job,
            run_id=told.run_id,
        )

    def _restore(self, loaded: Loaded) -> None:
        saved = dict(loaded.state)
        self.step = self._first_step = saved.pop("run")["step"]
        self._state.restore(saved)
        self.durable = Durable(loaded.name, None)
        self._log.emit(
            Event.RESUME,
            self.step,
            checkpoint=str(loaded.name),
            bytes=self._tally.restore_bytes,
            seconds=round(self._tally.restore_seconds or 0.0, 4),
        )
        now = describe_environment()
        # Every checkpoint holds a generator for each device; the first ones did not say their number.
        there = {"device_count": len(saved[f"{RNG_PREFIX}cuda"]), **loaded.manifest.environment}
        for name, then in there.items():
            if now.get(name) != then:
                self.warn(f"{name} was {then} and is {now.get(name)}: the run goes on, but not bit for bit")

    def begin_steps(self, total_steps: int | None) -> None:
        """The user's loop is about to start, and the target is known."""
        self.total_steps = total_steps
        # A state that cannot be saved should be known now, not at the first notice. The buffers
        # come now as well: memory that is missing is missed before hours of training.
        snapshots.check(self._captured(), self._buffers if self._checkpoints is not None else None)
        self._guarded(self._end_if_finished)
        self._state.settle_generators()
        self._first_line_step = self.step + 1
        self._pace.begin(self.step)
        self._last_step_end = self._clock.monotonic()
        self._attendants.wake()
        self.poll()

    def _end_if_finished(self) -> None:
        """A finished run that is started again ends at once, unless its target grew."""
        if self._checkpoints is None or self.durable is None:
            return
        final = self._patiently(self._checkpoints.read_final)
        if final is None or final.step != self.durable.name.step:
            return
        if self.total_steps is not None and self.total_steps > (final.total_steps or final.step):
            return
        ours = self.settings.fingerprint
        if ours and final.fingerprint and ours != final.fingerprint:
            raise StoreRefused(
                OutcomeReason.CHECKPOINT_CONFLICT,
                f"{self._checkpoints.uri} holds a run of another template, finished at step {final.step}: "
                "raise its number of steps to continue it, or use another prefix to train anew",
            )
        self.is_finished = True

    # ------------------------------------------------------------------ step after step

    def after_step(self, metrics: dict[str, Any], extra: dict[str, Any]) -> None:
        """Count the step, write it down, and do what is due."""
        self.step += 1
        self.metrics = metrics
        if self._checkpoints is not None and self._record_metrics:
            line = {"step": self.step, "incarnation": self.incarnation} | {
                "capacityType": self.settings.capacity_type,
                "time": format_time(self._clock.wall()),
                "metrics": metrics,
                **extra,
            }
            self._lines.append(json.dumps(jsonable(line), separators=(",", ":")))
        now = self._clock.monotonic()
        if now - self._last_log >= self._log_seconds:
            self._last_log = now
            self._log.emit(Event.STEP, self.step, totalSteps=self.total_steps, **metrics)
        self.poll()

    def poll(self) -> None:
        """Between two steps: what the background has to say, notice, directives, cadence."""
        self._measure_step()
        if (saved := self._saver.poll()) is not None:
            self._take_result(saved)
        directives = self._attendants.directives
        if directives.stop is not None and LISTENER.received_at is None:
            self._stop_reason = directives.stop
            LISTENER.request()
        if LISTENER.received_at is not None:
            self._stop()
        if self._checkpoints is None or self._saver.in_flight is not None:
            return
        now = self._clock.monotonic()
        self._cadence = self._cadence.with_interval(self._interval_seconds())
        request = directives.checkpoint_now
        is_asked = request is not None and request != self._handled_request and self._cadence.may_retry(now)
        if is_asked and self._is_durable():
            self._handled_request = request
        elif is_asked or self._cadence.is_due(now):
            self._begin_save(request if is_asked else None)
            if not self._in_background:
                self._collect()
        self._last_step_end = self._clock.monotonic()

    def _measure_step(self) -> None:
        now = self._clock.monotonic()
        seconds, self._last_step_end = now - self._last_step_end, now
        if not seconds >= 0:  # there was no step before
            return
        self._longest_step_seconds = max(self._longest_step_seconds, seconds)
        if self._saver.in_flight is None:
            self._step_cost = self._step_cost.after_idle_step(seconds)
        else:
            self._step_cost = self._step_cost.after_step_beside_save(seconds)

    def _interval_seconds(self) -> float:
        last = self._tally.last
        measured = None
        if last is not None:
            extra_seconds = max(0.0, self._step_cost.extra_seconds)
            measured = cadences.SaveCost(last.save.stall_seconds + extra_seconds, last.seconds)
        return cadences.choose_interval(
            self.settings.interval_policy,
            self.settings.interval_seconds,
            self._attendants.directives,
            measured,
        )

    def try_save(self) -> bool:
        """Save now and wait until it is durable; a store that is away costs a warning."""
        self._collect()
        if not self._is_durable():
            self._begin_save()
            self._collect()
        return self._is_durable()

    def _is_durable(self) -> bool:
        return self.durable is not None and self.durable.name.step == self.step

    def _begin_save(self, request: str | None = None) -> None:
        """Take the snapshot and hand it over; TypeError if something in it cannot be kept."""
        checkpoints, began = self._required(), self._clock.monotonic()
        taken = snapshots.take(self._captured(), self._buffers)
        save = Save(
            step=self.step,
            began=began,
            stall_seconds=self._clock.monotonic() - began,
            num_bytes=taken.num_bytes,
            request=request,
            lines=tuple(self._lines),
            first_line_step=self._first_line_step,
        )
        self._lines, self._first_line_step = [], self.step + 1
        self._step_cost = self._step_cost.at_save()
        total_steps, environment = self.total_steps, describe_environment()

        def publish() -> AttemptName:
            if save.lines:
                checkpoints.write_metrics(save.first_line_step, list(save.lines))
            return checkpoints.save(taken, step=save.step, total_steps=total_steps, environment=environment)

        self._saver.begin(save, publish, in_background=self._in_background)

    def _collect(self, timeout_seconds: float | None = None) -> None:
        """Wait for the save in flight, if there is one, and deal with its result."""
        if (saved := self._saver.wait(timeout_seconds)) is not None:
            self._take_result(saved)

    def _take_result(self, saved: Saved) -> None:
        """On the training thread. Fencing ends the process; other trouble costs a warning."""
        now = self._clock.monotonic()
        self._tally = self._tally.after_save(saved)
        if saved.name is None:
            self._lines = [*saved.save.lines, *self._lines]
            self._first_line_step = saved.save.first_line_step
            if isinstance(saved.error, Fenced):
                self.end(OutcomeKind.FENCED, saved.error.reason, str(saved.error))
            # Anything else but a store's own error is a bug of ours, and still no reason to stop training.
            kind = "" if isinstance(saved.error, StoreError) else f"{type(saved.error).__name__}: "
            self._trouble = f"{kind}{saved.error}"
            self._cadence = self._cadence.after_failure(now)
            delay = self._cadence.not_before - now
            self.warn(
                f"checkpoint at step {saved.save.step} failed, training goes on, next try in {delay:.0f} s: "
                f"{self._trouble}"
            )
            return
        self._trouble = ""
        self._cadence = self._cadence.after_success(saved.save.began)
        self._handled_request = saved.save.request or self._handled_request
        self.durable = Durable(saved.name, self._clock.wall())
        self._log.emit(
            Event.CHECKPOINT,
            saved.save.step,
            checkpoint=str(saved.name),
            bytes=saved.save.num_bytes,
            seconds=round(saved.seconds, 4),
            stallSeconds=round(saved.save.stall_seconds, 4),
        )
        self._attendants.wake()
        self._warn_of_short_grace(saved)

    def _warn_of_short_grace(self, saved: Saved) -> None:
        needed = self._longest_step_seconds + saved.seconds * farewell.MARGIN
        if needed > self.settings.grace_seconds and not self._has_warned_of_grace:
            self._has_warned_of_grace = True
            self.warn(
                f"a notice leaves {self.settings.grace_seconds:.0f} s, but a step and a save take "
                f"{needed:.0f} s: an interruption will cost the steps since the checkpoint before; a longer "
                "terminationGracePeriodSeconds, a faster store or a shorter interval helps"
            )

    def _captured(self) -> dict[str, Any]:
        return {"run": {"step": self.step}, **self._state.capture()}

    # ------------------------------------------------------------------ the end

    def _stop(self) -> NoReturn:
        """A notice: save if it fits, and leave."""
        received = LISTENER.received_at
        assert received is not None
        deadline = LISTENER.deadline() or received + self.settings.grace_seconds
        cause = self._stop_reason or (self._notice.cause if self._notice is not None else "SIGTERM")
        self._log.emit(
            Event.NOTICE,
            self.step,
            cause=cause,
            ageSeconds=round(self._clock.monotonic() - received, 3),
            remainingSeconds=round(deadline - self._clock.monotonic(), 3),
        )
        reason = OutcomeReason.STOP_REQUESTED if self._stop_reason else OutcomeReason.NOTICE
        if self._checkpoints is None:
            self.end(OutcomeKind.STOPPED, OutcomeReason.NOTICE_WITHOUT_CHECKPOINT, "nowhere to save")
        if not self._has_resumed:
            message = f"stopped by {cause} before it had resumed: nothing of its own to save"
            self.end(OutcomeKind.STOPPED, OutcomeReason.NOTICE, message)
        while True:
            remaining = deadline - self._clock.monotonic()
            choice = self._choose_farewell(remaining)
            if choice is not Farewell.SAVE:
                break
            if self._saver.in_flight is None:
                self._begin_save()
            self._collect(max(0.0, remaining))
            if self._is_durable():
                self.end(OutcomeKind.STOPPED, reason, f"stopped by {cause}, saved at step {self.step}")
            if self._trouble:
                self._clock.sleep(0.5)
        why = farewell.explain(choice, remaining_seconds=remaining, save_seconds=self._expected_seconds())
        if choice is Farewell.FLUSH:
            self._collect(max(0.0, remaining))
        if self._is_durable():
            self.end(OutcomeKind.STOPPED, reason, f"stopped by {cause}, saved at step {self.step}")
        kept = f"kept step {self.durable.name.step}" if self.durable else "kept nothing"
        trouble = f"; the last save failed: {self._trouble}" if self._trouble else ""
        self.end(
            OutcomeKind.STOPPED,
            OutcomeReason.NOTICE_WITHOUT_CHECKPOINT,
            f"stopped by {cause}; {kept}, a save at step {self.step} did not fit: {why}{trouble}",
        )

    def _expected_seconds(self) -> float | None:
        return None if self._tally.last is None else self._tally.last.seconds

    def _choose_farewell(self, remaining_seconds: float) -> Farewell:
        in_flight, expected, left = self._saver.in_flight, self._expected_seconds(), None
        if in_flight is not None:
            left = max(0.0, in_flight.began + (expected or 0.0) - self._clock.monotonic())
        return farewell.choose(
            remaining_seconds=remaining_seconds, save_seconds=expected, left_in_flight_seconds=left
        )

    def complete(self) -> None:
        """The user's loop is over: save, mark as final, write the outcome, and return."""
        if self._checkpoints is not None and not self.is_finished:
            self._guarded(self._finish)
        reason = OutcomeReason.ALREADY_COMPLETE if self.is_finished else OutcomeReason.COMPLETED
        self._write_outcome(OutcomeKind.COMPLETE, reason, f"{self.step} steps")

    def _finish(self) -> None:
        self._collect()
        if not self._is_durable():
            self._patiently(self._save_or_raise)
        durable = self.durable
        assert durable is not None
        final = Final(
            step=self.step,
            total_steps=self.total_steps,
            fingerprint=self.settings.fingerprint,
            checkpoint=str(durable.name),
        )
        self._patiently(lambda: self._required().write_final(final))

    def _save_or_raise(self) -> None:
        self._begin_save()
        saved = self._saver.wait()
        assert saved is not None
        if isinstance(saved.error, StoreError):
            self._lines = [*saved.save.lines, *self._lines]
            self._first_line_step = saved.save.first_line_step
            raise saved.error
        self._take_result(saved)
        if saved.error is not None:
            raise saved.error

    def fail(self, kind: type[BaseException], code: object) -> None:
        """The user's code raised: say so in the outcome; the exception goes on its way."""
        if issubclass(kind, SystemExit):
            reason, text = OutcomeReason.EXITED, f"the program ended itself with code {code!r} inside the run"
        else:
            reason, text = OutcomeReason.UNCAUGHT_EXCEPTION, f"{kind.__module__}.{kind.__qualname__}"
        left = LISTENER.deadline()
        patience = LAST_SAVE_PATIENCE_SECONDS if left is None else max(0.0, left - self._clock.monotonic())
        self._collect(min(LAST_SAVE_PATIENCE_SECONDS, patience))
        if self._trouble:
            text = f"{text}; the last save failed: {self._trouble}"
        self._write_outcome(OutcomeKind.FAILED, reason, text)

    def end(
        self, kind: OutcomeKind, reason: OutcomeReason, message: str, code: int | None = None
    ) -> NoReturn:
        """Write the outcome and leave the script."""
        self._write_outcome(kind, reason, message, code)
        raise Ended(self._outcome.exit_code)

    def _write_outcome(
        self, kind: OutcomeKind, reason: OutcomeReason, message: str, code: int | None = None
    ) -> None:
        if not self._outcome.write(self._make_outcome(kind, reason, message), code):
            return
        self._is_ending = True
        if self._checkpoints is not None and kind is not OutcomeKind.FENCED and self._saver.in_flight is None:
            self._flush_metrics_quietly()
            self._checkpoints.close(str(kind), str(self.durable.name) if self.durable else "")
        self._log.emit(
            Event.OUTCOME,
            self.step,
            outcome=str(kind),
            reason=str(reason),
            exitCode=int(self._outcome.exit_code),
            saves=self._tally.totals.as_json(),
            checkpoint=str(self.durable.name) if self.durable else None,
            message=message,
        )
        self._attendants.close(timeout_seconds=2.0)
        LISTENER.stop_polling()

    def _flush_metrics_quietly(self) -> None:
        if not self._lines:
            return
        try:
            self._required().write_metrics(self._first_line_step, self._lines)
        except StoreError as error:
            self.warn(f"the metrics of the last steps are lost: {error}")

    def _make_outcome(self, kind: OutcomeKind, reason: OutcomeReason, message: str) -> Outcome:
        name = self.durable.name if self.durable else None
        checkpoint = CheckpointRef(name=str(name), step=name.step) if name else None
        return Outcome(
            kind=kind,
            reason=str(reason),
            incarnation=self.incarnation,
            step=self.step,
            checkpoint=checkpoint,
            saves=self._tally.totals,
            message=message,
        )

    def _leave_from_listener(self, message: str) -> int:
        """On the reader thread: the main thread does not come back in time."""
        reason = OutcomeReason.NOTICE if self.step == 0 else OutcomeReason.NOTICE_WITHOUT_CHECKPOINT
        self._outcome.write(self._make_outcome(OutcomeKind.STOPPED, reason, message))
        return self._outcome.exit_code

    # ------------------------------------------------------------------ shared

    def warn(self, message: str) -> None:
        self._log.emit(Event.WARNING, self.step, message=message)

    def _required(self) -> Checkpoints:
        assert self._checkpoints is not None
        return self._checkpoints

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run something outside the loop; what cannot be waited for ends the process with its reason."""
        try:
            action()
        except Fenced as error:
            self.end(OutcomeKind.FENCED, error.reason, str(error))
        except StoreRefused as error:
            self.end(OutcomeKind.FAILED, error.reason, str(error), ExitCode.CONFIG)
        except (Incompatible, TooNew) as error:
            reason = OutcomeReason.CHECKPOINT_INCOMPATIBLE
            self.end(OutcomeKind.FAILED, reason, str(error), ExitCode.CONFIG)
        except StoreError as error:
            self.end(OutcomeKind.FAILED, OutcomeReason.STORE_UNREACHABLE, str(error))

    def _patiently(self, action: Callable[[], T]) -> T:
        """Repeat while the store is away, for a bounded time, saying so."""
        began, delay = self._clock.monotonic(), 1.0
        while True:
            try:
                return action()
            except StoreUnavailable as error:
                waited = self._clock.monotonic() - began
                if waited + delay > START_PATIENCE_SECONDS:
                    raise
                self._log.emit(
                    Event.WAITING,
                    self.step,
                    waitedSeconds=round(waited),
                    message=f"the store is away: {error}",
                )
                if LISTENER.received_at is not None:
                    self._stop()
                self._clock.sleep(delay)
                delay = min(delay * 2, 10.0)

    def _take_notice(self, notice: CloudNotice) -> None:
        """On the thread that asks the cloud: the training thread looks between steps, as after SIGTERM."""
        self._notice = notice
        LISTENER.request(None if notice.at is None else (notice.at - self._clock.wall()).total_seconds())

    def progress(self) -> ProgressReport:
        """The report as of now; called on the reporter's thread."""
        done, total, durable = self.step, self.total_steps, self.durable
        is_complete = self._outcome.written is not None and self._outcome.written.kind is OutcomeKind.COMPLETE
        percentage = 100 if is_complete else (min(99, done * 100 // total) if total else None)
        return ProgressReport(
            progress_percentage=percentage,
            estimated_remaining_seconds=0 if is_complete else self._pace.remaining_seconds(done, total),
            metrics=self._report_metrics(done),
            last_updated_time=self._clock.wall(),
            step=None if self._is_waiting else done,
            total_steps=total,
            durable_step=durable.name.step if durable else None,
            durable_time=durable.time if durable else None,
            checkpoint_name=str(durable.name) if durable else None,
            incarnation=self.incarnation,
        )

    def _report_metrics(self, step: int) -> dict[str, str]:
        """Ours first and last: they are not crowded out by many of the script's own, nor hidden by one."""
        ours = self._tally.metrics
        if (rate := self._pace.steps_per_second(step)) is not None:
            ours[Metric.STEPS_PER_SECOND.value] = f"{rate:.6g}"
        return ours | {name: str(value) for name, value in self.metrics.items()} | ours

    def _reading(self) -> Reading:
        """What Prometheus is told; called on the exporter's thread."""
        durable, last = self.durable, self._tally.last
        return Reading(
            job=self.settings.job,
            incarnation=self.incarnation,
            capacity_type=self.settings.capacity_type,
            step=self.step,
            total_steps=self.total_steps,
            first_step=self._first_step,
            durable_step=durable.name.step if durable else None,
            durable_age_seconds=None if last is None else self._clock.monotonic() - last.save.began,
            tally=self._tally,
        )
