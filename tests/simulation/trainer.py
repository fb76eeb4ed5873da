"""The model of a training process: claims, steps, checkpoints, notices, reports, and how it may end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from spot_trainer.contract import (
    CheckpointRef,
    Directives,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    ProgressReport,
)

STEP_SECONDS = 1.0
REPORT_SECONDS = 10.0


@dataclass
class Store:
    """What a job keeps: claims, and checkpoints as (step, incarnation) in the order of publishing."""

    claims: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)
    """Claims whose process has ended in good order."""
    checkpoints: list[tuple[int, int]] = field(default_factory=list)

    reached: int = 0
    """The greatest step that any process has done."""

    @property
    def newest_step(self) -> int:
        return self.checkpoints[-1][0] if self.checkpoints else 0


@dataclass(frozen=True)
class End:
    """How a container ended, as its kubelet tells it."""

    exit_code: int
    reason: str
    message: str = ""


class TrainerProcess:
    """One container's program. `is_plain`: no library, so no claims, reports or outcomes."""

    def __init__(
        self,
        store: Store,
        *,
        incarnation: int,
        total_steps: int,
        save_every_seconds: float,
        save_cost_seconds: float,
        is_plain: bool,
        at_sigterm: str,
        crashes_after: tuple[float, End] | None,
        handover_seconds: float,
        rng: random.Random,
        report: Callable[[ProgressReport], Directives | None],
    ) -> None:
        self.store, self.incarnation, self.total_steps = store, incarnation, total_steps
        self.is_plain, self.handover_seconds = is_plain, handover_seconds
        self._at_sigterm, self._crashes_after = at_sigterm, crashes_after
        self._save_every, self._rng, self._report = save_every_seconds, rng, report
        self.save_cost_seconds = save_cost_seconds
        self.step = 0
        self.is_told_to_stop = False
        self._began = asyncio.get_running_loop().time()
        self._crash: End | None = None

    @property
    def seconds_running(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    def terminate(self) -> None:
        """SIGTERM."""
        self.is_told_to_stop = True

    def crash(self, end: End) -> None:
        self._crash = self._crash or end

    def _crashed(self) -> End | None:
        bug = self._crashes_after
        return bug[1] if self._crash is None and bug and self.seconds_running > bug[0] else self._crash

    async def run(self) -> End:
        await asyncio.sleep(self._rng.uniform(0.5, 2.0))
        if self.is_plain:
            return await self._run_plain()
        if self.is_told_to_stop:
            return self._end(75, OutcomeKind.STOPPED, OutcomeReason.NOTICE)
        if not await self._wait_for_predecessor():
            return self._crashed() or self._end(75, OutcomeKind.STOPPED, OutcomeReason.NOTICE)
        if any(claim > self.incarnation for claim in self.store.claims):
            return self._fenced()
        self.store.claims.add(self.incarnation)
        self.step = self.store.newest_step
        next_save = self._save_every
        since_save, since_report, handled = 0.0, REPORT_SECONDS, ""
        while self.step < self.total_steps:
            if (crash := self._crashed()) is not None:
                return crash
            if since_report >= REPORT_SECONDS:
                since_report = 0.0
                directives = self._tell()
                if directives is not None and directives.stop is not None:
                    self.is_told_to_stop = True
                asked = directives.checkpoint_now if directives is not None else None
                if asked is not None and asked != handled:
                    handled, since_save = asked, next_save
            if self.is_told_to_stop or since_save >= next_save:
                await asyncio.sleep(self._rng.uniform(0.2, self.save_cost_seconds))
                if (crash := self._crashed()) is not None:
                    return crash
                if not self._publish():
                    return self._fenced()
                since_save = 0.0
                self._tell()
                if self.is_told_to_stop:
                    return self._end(75, OutcomeKind.STOPPED, OutcomeReason.NOTICE)
            await asyncio.sleep(STEP_SECONDS)
            self.step += 1
            since_save += STEP_SECONDS
            since_report += STEP_SECONDS
        if not self._publish():
            return self._fenced()
        self._tell()
        return self._end(0, OutcomeKind.COMPLETE, OutcomeReason.COMPLETED)

    async def _wait_for_predecessor(self) -> bool:
        """As `spot_trainer.handover` does it; False: it has to end instead."""
        waited, since_report, dead = 0.0, 2.0, -1
        while waited < self.handover_seconds:
            if self.is_told_to_stop or self._crashed() is not None:
                return False
            predecessor = max((c for c in self.store.claims if c < self.incarnation), default=None)
            if predecessor is None or predecessor in self.store.closed or dead >= predecessor:
                break
            if since_report >= 2.0:
                since_report = 0.0
                directives = self._report(ProgressReport(incarnation=self.incarnation))
                if directives is not None and directives.predecessor_dead is not None:
                    dead = directives.predecessor_dead
            await asyncio.sleep(0.5)
            waited, since_report = waited + 0.5, since_report + 0.5
        return True

    async def _run_plain(self) -> End:
        self.step = self.store.newest_step
        since_save = 0.0
        while self.step < self.total_steps:
            if (crash := self._crashed()) is not None:
                return crash
            if self.is_told_to_stop and self._at_sigterm != "goes on":
                return End(143, "Error") if self._at_sigterm == "dies" else End(0, "Completed")
            await asyncio.sleep(STEP_SECONDS)
            self.step += 1
            self.store.reached = max(self.store.reached, self.step)
            since_save += STEP_SECONDS
            if since_save >= self._save_every:
                self.store.checkpoints.append((self.step, self.incarnation))
                since_save = 0.0
        return End(0, "Completed")

    def _publish(self) -> bool:
        """Whether it was published; False: a greater claim exists."""
        if any(claim > self.incarnation for claim in self.store.claims):
            return False
        self.store.checkpoints.append((self.step, self.incarnation))
        return True

    def _tell(self) -> Directives | None:
        durable = self.store.checkpoints[-1] if self.store.checkpoints else None
        return self._report(
            ProgressReport(
                step=self.step,
                total_steps=self.total_steps,
                progress_percentage=self.step * 100 // self.total_steps,
                durable_step=durable[0] if durable else None,
                checkpoint_name=f"{durable[0]:012d}-{durable[1]:08d}" if durable else None,
                incarnation=self.incarnation,
            )
        )

    def _fenced(self) -> End:
        return self._end(76, OutcomeKind.FENCED, OutcomeReason.SUPERSEDED)

    def _end(self, exit_code: int, kind: OutcomeKind, reason: OutcomeReason) -> End:
        if self.incarnation in self.store.claims and kind is not OutcomeKind.FENCED:
            self.store.closed.add(self.incarnation)
        checkpoint = None
        if self.store.checkpoints:
            step, incarnation = self.store.checkpoints[-1]
            checkpoint = CheckpointRef(name=f"{step:012d}-{incarnation:08d}", step=step)
        outcome = Outcome(
            kind=kind,
            reason=reason,
            incarnation=self.incarnation,
            step=self.step,
            checkpoint=checkpoint,
            message="model",
        )
        return End(exit_code, "Completed" if exit_code == 0 else "Error", outcome.to_json())
