"""What the capacity policy is asked and what it answers, in seconds and prices."""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    SPOT = "spot"
    ON_DEMAND = "on-demand"
    WAIT = "wait"
    """Nothing runs; a pending spot pod may go on asking."""


class Running(StrEnum):
    """What the job has, be it still starting; what was asked for and refused is nothing."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"
    NOTHING = "nothing"


class Why(StrEnum):
    """Which line of the policy spoke."""

    FINISHED = "Finished"
    ON_SPOT = "OnSpot"
    SPOT_THERE = "SpotThere"
    SPOT_LASTS = "SpotLasts"
    SLACK_LEFT = "SlackLeft"
    ONLY_SPOT_CAN = "OnlySpotCan"
    SLACK_USED = "SlackUsed"
    GUARD = "Guard"
    NO_SPOT = "NoSpot"
    SPOT_TOO_YOUNG = "SpotTooYoung"
    NOT_WORTH_IT = "NotWorthIt"
    NOT_CHEAPER = "NotCheaper"
    INFEASIBLE = "Infeasible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the operator knows, in seconds; ages, not dates."""

    time_left: float
    """Until the deadline; `inf` without one."""
    work_left: float
    """By durable progress, at the measured rate; an upper bound."""
    at_risk: float = 0.0
    """Done since the last durable checkpoint: part of `work_left` until it is saved."""
    running: Running
    startup_left: float = 0.0
    """Until what is running does useful work."""
    spot_available: bool
    """As far as the job's own pods and probes have shown; before the first try: true."""
    spot_age: float
    """For how long it has been so."""
    launch_seconds: float
    """d: detect, provision, pull, restore, as measured on average."""
    on_demand_seconds: float
    """D: the same for on-demand as a high percentile, with a reserve for refused requests."""
    reaction_seconds: float
    """e: by how much a look may come late, after an event or a due time, and one second more."""
    checkpoint_interval: float
    """0: nothing is ever lost."""
    checkpoint_seconds: float | None = None
    """From asking for a checkpoint to its being durable; None: it cannot be asked for."""
    notice_reliability: float = 0.0
    """Share of interruptions whose notice was enough for a last checkpoint."""
    spot_price: float
    on_demand_price: float
    """Per hour; only their ratio matters."""


@dataclass(frozen=True, slots=True)
class Choice:
    action: Action
    why: Why
    next_decision_seconds: float | None
    """When the answer could change by itself; None: only by an event."""
    checkpoint_first: bool
    """With spot: ask for a checkpoint and go on. With a change: have one before the old pod stops."""
    situation: Situation
    slack: float
    threshold: float
    """What the slack, or the age of spot, was compared with."""

    @property
    def shortfall(self) -> float:
        """By how many seconds the deadline cannot be reached even on on-demand; 0: it can."""
        if self.action is Action.WAIT or self.why is Why.FINISHED:
            return 0.0
        now = self.situation
        if now.running is Running.ON_DEMAND:
            return max(0.0, now.startup_left + now.work_left - now.at_risk - now.time_left)
        saved = now.at_risk if now.running is Running.SPOT else 0.0
        return max(0.0, -self.slack - saved)
