"""What checkpoints have cost this process so far, for logs, reports, the outcome and Prometheus. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spot_trainer.contract import Metric, SaveTotals
from spot_trainer.saver import Saved


@dataclass(frozen=True)
class Tally:
    num_saves: int = 0
    """Saves that became durable."""
    num_failures: int = 0
    num_bytes: int = 0
    """Of the saves that became durable."""
    save_seconds: float = 0.0
    """From the beginning of the snapshots until they were durable."""
    stall_seconds: float = 0.0
    """Training stood still for snapshots, also for those of saves that failed."""
    last: Saved | None = None
    """The newest save that became durable."""
    restore_seconds: float | None = None
    """To find, read and verify the checkpoint that this process resumed."""
    restore_bytes: int = 0

    def after_save(self, saved: Saved) -> Tally:
        stalled = replace(self, stall_seconds=self.stall_seconds + saved.save.stall_seconds)
        if saved.name is None:
            return replace(stalled, num_failures=self.num_failures + 1)
        return replace(
            stalled,
            num_saves=self.num_saves + 1,
            num_bytes=self.num_bytes + saved.save.num_bytes,
            save_seconds=self.save_seconds + saved.seconds,
            last=saved,
        )

    def after_restore(self, seconds: float, num_bytes: int) -> Tally:
        return replace(self, restore_seconds=seconds, restore_bytes=num_bytes)

    @property
    def totals(self) -> SaveTotals:
        """As the outcome says it."""
        return SaveTotals(
            count=self.num_saves,
            failed=self.num_failures,
            num_bytes=self.num_bytes,
            seconds=round(self.save_seconds, 3),
            stall_seconds=round(self.stall_seconds, 3),
        )

    @property
    def metrics(self) -> dict[str, str]:
        """What a progress report says besides the script's own metrics: the newest save, the restore."""
        found = {}
        if self.last is not None:
            found[Metric.CHECKPOINT_BYTES.value] = str(self.last.save.num_bytes)
            found[Metric.CHECKPOINT_SECONDS.value] = f"{self.last.seconds:.3f}"
            found[Metric.CHECKPOINT_STALL_SECONDS.value] = f"{self.last.save.stall_seconds:.4f}"
        if self.restore_seconds is not None:
            found[Metric.RESTORE_SECONDS.value] = f"{self.restore_seconds:.3f}"
        return found


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The run as it is now."""

    job: str
    incarnation: int
    capacity_type: str
    step: int
    total_steps: int | None
    first_step: int
    """Where this process began: the step of the checkpoint that it resumed, else 0."""
    durable_step: int | None
    durable_age_seconds: float | None
    """Since the newest durable checkpoint was taken; None: this process has made none."""
    tally: Tally
