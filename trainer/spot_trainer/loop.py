"""The one page that a user reads: a training loop that survives losing its machine.

    import spot_trainer as spot

    run = spot.Run(model=model, optimizer=optimizer, scheduler=scheduler, sampler=sampler)
    with run:
        for batch in run.batches(loader, epochs=10):
            loss = train_step(batch)
            run.step_done(loss=loss.item())

Entering the run claims it and resumes the latest valid checkpoint, or starts afresh.
`step_done` is the only place where anything is saved and where the run may stop: it is
called when a step is complete (after `optimizer.step()`). Invariant: a run that is
stopped or killed anywhere and started again is, bit for bit, the run that never was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from torch.utils.data import DataLoader

from spot_trainer import workers
from spot_trainer.clock import Clock
from spot_trainer.contract import ContractError, ExitCode, Outcome, OutcomeKind, OutcomeReason
from spot_trainer.data import ShuffledSampler
from spot_trainer.notice import LISTENER
from spot_trainer.outcome import OutcomeFile, is_writer
from spot_trainer.session import Ended, Session
from spot_trainer.settings import Settings, read_settings
from spot_trainer.state import State
from spot_trainer.store import Store, open_store

Batch = TypeVar("Batch")

_LINE_KEYS = frozenset({"time", "event", "step", "incarnation", "capacityType", "totalSteps"})


class Run:
    """One training run, resumed as often as it takes. Use it on the main thread.

    Everything given by name is part of each checkpoint and needs `state_dict()` and
    `load_state_dict()`; wrap plain values in `spot_trainer.Values`. The generators of
    Python, NumPy and PyTorch are always part of it.

    In a pod of the operator the environment says where checkpoints go and how often.
    Elsewhere `checkpoint` (a directory, `file://`, `s3://` or a Store), `interval_seconds`
    and `keep` do; without `checkpoint` nothing is kept.
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path | Store | None = None,
        interval_seconds: float | Literal["auto"] = 300.0,
        keep: int = 3,
        keep_every_steps: int | None = None,
        save_in_background: bool = True,
        log_seconds: float = 5.0,
        record_metrics: bool = True,
        record_samples: bool = False,
        clock: Clock | None = None,
        **state: Any,
    ) -> None:
        """Say what belongs to the run; nothing is read or written before `with run:`.

        `interval_seconds` "auto" saves as often as is worth it, for at most 1 % of the time.
        `save_in_background` False stops training until each checkpoint is durable.
        `keep_every_steps` keeps, besides the newest, the first checkpoint at or after each multiple of it.
        `log_seconds` is the least time between two step lines on stdout (0: every step).
        `record_metrics` keeps the metrics of every step beside the checkpoints, and
        `record_samples` the indices of its samples. Raises TypeError for state that
        cannot be saved, and exits with 78 if the operator's environment is not usable.
        """
        if "run" in state:
            raise TypeError("the name 'run' is taken by the run itself: choose another")
        place = checkpoint if isinstance(checkpoint, str | Path | None) else checkpoint.uri
        self._settings = _settings_or_exit(place, interval_seconds, keep, keep_every_steps)
        self._record_samples = record_samples
        self._sampler = next((s for s in state.values() if isinstance(s, ShuffledSampler)), None)
        self.state = State(state)
        uri = self._settings.uri
        opener: Callable[[], Store] | None = None if uri is None else lambda: open_store(uri)
        if checkpoint is not None and not isinstance(checkpoint, str | Path) and uri == place:
            opener = lambda: checkpoint  # noqa: E731
        self._session = Session(
            self._settings,
            self.state,
            store=opener,
            clock=clock or Clock(),
            log_seconds=log_seconds if self._settings.log_seconds is None else self._settings.log_seconds,
            record_metrics=record_metrics,
            save_in_background=save_in_background,
        )
        self._is_stepping = False
        self._batch_size = 0
        self._drops_last = False
        self._step_at_yield: int | None = None

    @property
    def step(self) -> int:
        """Steps done since the beginning of the run, over all incarnations."""
        return self._session.step

    @property
    def epoch(self) -> int:
        """The current epoch of the sampler, from 0."""
        return self._sampler.epoch if self._sampler is not None else 0

    @property
    def total_steps(self) -> int | None:
        """The target, once the loop has begun."""
        return self._session.total_steps

    @property
    def incarnation(self) -> int:
        """How many times the run has been started."""
        return self._session.incarnation

    def __enter__(self) -> Self:
        """Claim the run and resume it. Leaves the script if it must not or cannot be continued."""
        self._session.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """A block that ends normally is a finished run; what must succeed belongs inside."""
        if kind is None:
            self._session.complete()
        elif not issubclass(kind, Ended):
            self._session.fail(kind, getattr(error, "code", None))

    def batches(self, loader: DataLoader[Batch], *, epochs: int) -> Iterator[Batch]:
        """The batches that are still to do, up to `epochs` epochs. Call `step_done` after each.

        The loader needs a `ShuffledSampler` that was given to the Run. Raises ValueError
        otherwise, because a resume could not find the position again.
        """
        sampler = self._check_loader(loader)
        self._begin(epochs * len(loader))
        while sampler.epoch < epochs and not self._session.is_finished:
            # Otherwise iter() draws from the global generator, once more after each resume.
            loader.generator = sampler.generator()
            if loader.num_workers:
                loader.worker_init_fn = workers.SeededBySample(
                    sampler.seed, sampler.epoch, loader.worker_init_fn
                )
            epoch = sampler.epoch
            for batch in iter(loader):
                self._batch_size, self._drops_last = loader.batch_size or 1, loader.drop_last
                yield self._handed_out(batch)
                self._check_step_done()
            if sampler.epoch == epoch:  # the epoch was too short for a single batch
                sampler.start_epoch(epoch + 1)

    def steps(self, total_steps: int) -> Iterator[int]:
        """The numbers of the steps that are still to do, below `total_steps`. Call `step_done` after each."""
        self._begin(total_steps)
        while self.step < total_steps and not self._session.is_finished:
            yield self._handed_out(self.step)
            self._check_step_done()

    def step_done(self, **metrics: Any) -> None:
        """The step is complete: count it, and save or stop if it is time to.

        Metrics are plain numbers for logs and progress. Does not return if the run has
        to stop; the script is left through SystemExit, so that `finally` blocks run.
        """
        if taken := sorted(_LINE_KEYS & metrics.keys()):
            raise ValueError(
                f"step_done() got metrics named {taken}, which every line has already: rename them"
            )
        if self._step_at_yield is not None and self.step != self._step_at_yield:
            raise RuntimeError(
                "step_done() was called twice for one step: call it once, after optimizer.step(); with "
                "gradient accumulation let one step of the loop be all its micro-batches"
            )
        extra: dict[str, Any] = {}
        if self._sampler is not None and self._batch_size:
            extra = {"epoch": self._sampler.epoch}
            samples = self._sampler.consume(self._batch_size, drop_last=self._drops_last)
            if self._record_samples:
                extra["samples"] = samples
        self._batch_size = 0
        self._session.after_step(metrics, extra)

    def save(self) -> bool:
        """Save now, between two steps; False if the store is away.

        Raises RuntimeError within a step, whose changes would be saved under the number of the step before.
        """
        if self._step_at_yield is not None and self.step == self._step_at_yield:
            raise RuntimeError("run.save() was called within a step: call it after run.step_done()")
        return self._settings.uri is not None and self._session.try_save()

    def _begin(self, total_steps: int) -> None:
        if self._is_stepping:
            # A second loop (a curriculum) has its own target and goes on from here.
            self._session.total_steps = total_steps
            return
        self._is_stepping = True
        self._session.begin_steps(total_steps)

    def _handed_out(self, value: Batch) -> Batch:
        self._step_at_yield = self.step
        return value

    def _check_step_done(self) -> None:
        if self.step == self._step_at_yield:
            raise RuntimeError("call run.step_done() after each step: without it nothing is ever saved")

    def _check_loader(self, loader: DataLoader[Any]) -> ShuffledSampler:
        sampler = loader.sampler
        if not isinstance(sampler, ShuffledSampler) or loader.batch_size is None:
            raise ValueError(
                "run.batches needs DataLoader(dataset, batch_size=..., sampler=ShuffledSampler(dataset)), "
                "so that a resume finds its position again; for any other loader use run.steps"
            )
        if loader.num_workers and loader.persistent_workers:
            raise ValueError(
                "DataLoader(persistent_workers=True) carries random numbers from one epoch into the next, "
                "which no resume can repeat: leave it out"
            )
        if sampler is not self._sampler:
            raise ValueError("give the loader's sampler to the run: spot_trainer.Run(sampler=sampler, ...)")
        return sampler


def _settings_or_exit(
    checkpoint: str | Path | None,
    interval_seconds: float | Literal["auto"],
    keep: int,
    keep_every_steps: int | None,
) -> Settings:
    try:
        return read_settings(
            os.environ,
            checkpoint=checkpoint,
            interval_seconds=interval_seconds,
            keep=keep,
            keep_every_steps=keep_every_steps,
        )
    except ContractError as error:
        if "SPOT_CONTRACT_VERSION" not in os.environ:
            raise
        return _exit_for_environment(error)


def _exit_for_environment(error: ContractError) -> Settings:
    """The operator and this library do not understand each other: no restart changes that."""
    path = os.environ.get("SPOT_TERMINATION_LOG") or "/dev/termination-log"
    incarnation = os.environ.get("SPOT_INCARNATION", "")
    outcome = Outcome(
        kind=OutcomeKind.FAILED,
        reason=OutcomeReason.INVALID_ENVIRONMENT,
        incarnation=int(incarnation) if incarnation.isdecimal() and int(incarnation) else 1,
        step=0,
        message=str(error),
    )
    OutcomeFile(path if is_writer(os.environ.get("LOCAL_RANK", "")) else None).write(outcome)
    LISTENER.remove()
    raise SystemExit(ExitCode.CONFIG) from error
