"""What a simulated run is played with, and what a policy sees and says at each look.

Invariant: a `MarketView` holds only what the operator could know at that time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf

from spot_operator.policy import Action, Running


@dataclass(frozen=True, kw_only=True)
class Overheads:
    """From the decision to useful work, in seconds; together about six minutes, as in the literature."""

    detect: float = 10.0
    """From the loss of a node to the decision about the next one."""
    provision_spot: float = 120.0
    """From the pod to a ready node."""
    provision_on_demand: float = 120.0
    pull: float = 150.0
    """Pull the image and start the container."""
    restore: float = 80.0
    """Start the program and load the last checkpoint."""
    spread: float = 0.3
    """Standard deviation of the logarithm of a startup; 0: each takes the mean."""

    def mean(self, running: Running) -> float:
        spot = running is Running.SPOT
        return (
            self.detect
            + (self.provision_spot if spot else self.provision_on_demand)
            + self.pull
            + self.restore
        )

    def high(self, running: Running) -> float:
        """What one startup in a hundred exceeds."""
        return self.mean(running) * exp(2.326 * self.spread - self.spread**2 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A job and its circumstances; times in seconds since the creation of the job."""

    work_seconds: float
    """Of an uninterrupted run, without startup."""
    deadline_seconds: float = inf
    ends_at_deadline: bool = False
    """The job is failed or suspended when its deadline is missed."""
    overheads: Overheads = Overheads()
    checkpoint_interval: float = 300.0
    checkpoint_seconds: float = 30.0
    """From the beginning of a checkpoint to its being durable."""
    checkpoint_stall: float = 0.5
    """For how long a checkpoint holds training up."""
    notice_reliability: float = 0.5
    """Share of interruptions whose notice is enough for a last checkpoint."""
    reaction_seconds: float = 15.0
    """The longest time until the operator looks at what happened."""
    probe_seconds: float = 0.0
    """On on-demand: how often it is known whether spot is to be had; 0: at once."""
    spot_price: float | None = None
    """Per node-hour; None: as recorded with the market."""
    on_demand_price: float = 1.0
    num_nodes: int = 1
    limit_seconds: float = inf
    """Where an endless run is cut off."""

    @property
    def seconds_per_work(self) -> float:
        """How long a second of work takes, with the pauses for checkpoints: what the operator measures."""
        return 1 + self.checkpoint_stall / self.checkpoint_interval if self.checkpoint_interval > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketView:
    """What a policy may look at, in seconds since the creation of the job."""

    now: float
    deadline: float
    work_total: float
    work_done: float
    work_durable: float
    running: Running
    startup_left: float
    """Until what is running does useful work, as far as can be told."""
    spot_available: bool
    spot_since: float
    """Since when it has been so."""
    pending_since: float | None
    """Since when a pod has been waiting for a spot node."""
    interruptions: Sequence[float]
    """When spot nodes were taken away."""
    startups: Sequence[tuple[Running, float]]
    """How long startups took that came to their end."""
    notices: Sequence[bool]
    """Whether the last checkpoint landed, of interruptions where work was at stake."""
    spot_price: float
    on_demand_price: float


@dataclass(frozen=True, slots=True)
class Move:
    """What a policy wants."""

    action: Action
    next_look_seconds: float | None = None
    """When the answer could change by itself; None: only by an event."""
    checkpoint: bool = False
    """Ask the running program for a checkpoint."""


Decider = Callable[[MarketView], Move]
"""One object for one run: it may remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one run went."""

    finish_seconds: float | None
    """None: it was cut off, by its deadline or by the limit."""
    on_time: bool
    cost: float
    interruptions: int
    launches: int
    lost_seconds: float
    """Work that was done twice."""
    spot_seconds: float
    on_demand_seconds: float
    waiting_seconds: float
