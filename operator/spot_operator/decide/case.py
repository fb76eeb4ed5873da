"""What the classification looks at, and what it says: one ended pod, with everything that was seen of it.

Invariant: facts and their readings only; which of them counts for more is the table's business (`verdicts`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from spot_operator.decide.fates import PodFate
from spot_operator.model import (
    ContainerTermination,
    Gang,
    JobSpec,
    PodCondition,
    PolicySettings,
    Progress,
    Restart,
)
from spot_operator.names import CapacityType, Cause, Reason
from spot_trainer.contract import ExitCode, Outcome, OutcomeKind, parse_outcome

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""The kubelet's and the API server's clocks may differ by this much."""

STOPPED_BY_KUBELET: Final = frozenset({"Evicted", "Preempting", "DeadlineExceeded", "NodeLost"})
"""Reasons of a pod whose container did not end by itself, whatever its exit code."""


class Ending(Enum):
    COMPLETE = auto()
    RELAUNCH = auto()
    FAIL = auto()
    HOLD = auto()
    """Not decided yet: look again when the hold is over."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    ending: Ending
    row: str
    evidence: str
    cause: Cause = Cause.FAILURE
    charged: bool = False
    reason: Reason | str | None = None
    """For FAIL: the reason of the Failed condition."""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that the rows look at."""

    fate: PodFate
    gang: Gang
    spec: JobSpec
    history: tuple[Restart, ...]
    progress: Progress
    now: datetime
    settings: PolicySettings

    @property
    def durable_step(self) -> int | None:
        return self.progress.durable_step

    @property
    def reported_unfinished(self) -> str | None:
        """What the trainer library in this very pod said last, if that was not the end."""
        said = self.progress
        if said.incarnation != self.gang.incarnation or said.step is None or said.total_steps is None:
            return None
        return f"step {said.step} of {said.total_steps}" if said.step < said.total_steps else None

    @property
    def on_spot(self) -> bool:
        return self.gang.capacity_type is CapacityType.SPOT

    @property
    def termination(self) -> ContainerTermination | None:
        seen = self.fate.pod.trainer.terminated if self.fate.pod is not None else None
        record = self.fate.record
        if seen is None and record.exit_time is not None:
            # An exit 0 was seen, and the pod has gone before anything followed from it.
            return ContainerTermination(exit_code=0, finished_at=record.finished_time or record.exit_time)
        return seen

    @property
    def has_started(self) -> bool:
        """Whether the program was ever seen to run, or to have run."""
        return self.fate.record.started_time is not None or self.termination is not None

    @property
    def outcome(self) -> Outcome | None:
        termination = self.termination
        return parse_outcome(termination.message) if termination is not None else None

    @property
    def exit_code(self) -> int | None:
        return self.termination.exit_code if self.termination is not None else None

    @property
    def disruption(self) -> PodCondition | None:
        """A stale DisruptionTarget is set back to False by Kubernetes, so only True counts."""
        condition = self.fate.pod.condition("DisruptionTarget") if self.fate.pod is not None else None
        return condition if condition is not None and condition.status == "True" else None

    @property
    def deletion_requested_time(self) -> datetime | None:
        return self.fate.record.deletion_requested_time

    @property
    def first_stop_evidence_time(self) -> datetime | None:
        """When something first told the pod to stop."""
        times = [
            self.gang.stop.time if self.gang.stop is not None else None,
            self.fate.record.notice.first_seen_time if self.fate.record.notice is not None else None,
            self.disruption.last_transition_time if self.disruption is not None else None,
            self.deletion_requested_time,
        ]
        return min((time for time in times if time is not None), default=None)

    @property
    def ended_by_itself(self) -> bool:
        """The exit code is the program's own, not that of whoever stopped it or took its machine."""
        termination = self.termination
        return (
            termination is not None
            and termination.reason != "ContainerStatusUnknown"
            and self.fate.node is not None
            and self.ended_before_stop()
        )

    @property
    def outcome_is_a_stop(self) -> bool:
        """The trainer library has said itself why it ends, and that is no failure."""
        outcome = self.outcome
        is_kind = outcome is not None and outcome.kind is not OutcomeKind.FAILED
        return is_kind or self.exit_code in (ExitCode.STOPPED, ExitCode.FENCED)

    @property
    def without_progress(self) -> tuple[Restart, ...]:
        """The newest restarts, back to the last durable progress."""
        found = []
        for restart in reversed(self.history):
            if restart.durable_step != self.durable_step:
                break
            found.append(restart)
        return tuple(found)

    @property
    def says_node_shutdown(self) -> bool:
        """The kubelet wrote on the pod that it ended it because its node shuts down."""
        pod = self.fate.pod
        return (
            pod is not None
            and pod.status_reason in ("Terminated", "NodeShutdown", "Shutdown")
            and "shut" in pod.status_message.lower()
        )

    def ended_before_stop(self) -> bool:
        """The container ended by itself, clearly before anything told it to."""
        pod = self.fate.pod
        if self.says_node_shutdown or (pod is not None and pod.status_reason in STOPPED_BY_KUBELET):
            return False
        if self.disruption is not None and self.disruption.last_transition_time is None:
            return False
        finished = self.termination.finished_at if self.termination is not None else None
        stop = self.first_stop_evidence_time
        if stop is None:
            return True
        return finished is not None and finished < stop - CLOCK_TOLERANCE
