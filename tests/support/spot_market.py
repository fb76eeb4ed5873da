"""A job on a spot market that means harm, played with the policy `Auto`.

Continuous time. The market chooses when spot comes and goes, how late the operator looks, how long a
start on spot takes and whether checkpoints land; on-demand always takes the whole of what the policy plans
with. Only what the guarantee presumes is out of its hands.
"""

from dataclasses import dataclass, field
from math import inf

from spot_operator.policy import Action, Choice, Running, Situation, choose
from spot_operator.policy.auto import SOONEST_LOOK_SECONDS

ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Harm:
    """Every sequence is used round and round."""

    spells: tuple[tuple[float, bool], ...]
    """Seconds and whether spot is up; of a minute at least, since each end is a look."""
    lateness: tuple[float, ...] = (1.0,)
    """Of looks, as a share of the reaction time."""
    spot_startups: tuple[float, ...] = (1.0,)
    """As a share of what a launch usually takes."""
    checkpoints_land: bool = True
    planned_changes_save: bool = True
    kills_before_checkpoint: bool = False
    """Spot also goes whenever a checkpoint is about to become durable."""


@dataclass(frozen=True, kw_only=True)
class Job:
    work: float
    deadline: float
    launch: float
    on_demand: float
    reaction: float
    interval: float
    checkpoint_seconds: float | None = None
    price_ratio: float = 3.0


@dataclass
class Play:
    job: Job
    harm: Harm
    now: float = 0.0
    live: float = 0.0
    durable: float = 0.0
    running: Running = Running.NOTHING
    startup_left: float = 0.0
    since_launch: float = 0.0
    spell: int = 0
    spell_began: float = 0.0
    killed_until: float = -1.0
    num_looks: int = 0
    num_starts: int = 0
    choices: list[Choice] = field(default_factory=list)

    def finish(self) -> float:
        """When the job ends."""
        while self.num_looks < 20_000:
            choice = choose(self._situation())
            self.choices.append(choice)
            self._apply(choice)
            due = inf if choice.next_decision_seconds is None else self.now + choice.next_decision_seconds
            share = self.harm.lateness[self.num_looks % len(self.harm.lateness)]
            self.num_looks += 1
            end = self._advance(due, share * (self.job.reaction - SOONEST_LOOK_SECONDS))
            if end is not None:
                return end
        raise AssertionError("the policy looks for ever")

    def _up(self) -> bool:
        return self.harm.spells[self.spell % len(self.harm.spells)][1] and self.now >= self.killed_until

    def _spell_ends(self) -> float:
        return self.spell_began + self.harm.spells[self.spell % len(self.harm.spells)][0]

    def _situation(self) -> Situation:
        job = self.job
        return Situation(
            time_left=job.deadline - self.now,
            work_left=job.work - self.durable,
            at_risk=self.live - self.durable,
            running=self.running,
            startup_left=self.startup_left,
            spot_available=self._up(),
            spot_age=self.now - max(self.spell_began, self.killed_until if self._up() else 0.0),
            launch_seconds=job.launch,
            on_demand_seconds=job.on_demand,
            reaction_seconds=job.reaction,
            checkpoint_interval=job.interval,
            checkpoint_seconds=job.checkpoint_seconds,
            spot_price=1.0,
            on_demand_price=job.price_ratio,
        )

    def _apply(self, choice: Choice) -> None:
        wanted = {Action.SPOT: Running.SPOT, Action.ON_DEMAND: Running.ON_DEMAND}.get(choice.action)
        if wanted is self.running:
            if choice.checkpoint_first and self.harm.checkpoints_land:
                self.durable = self.live
            return
        if self.running is not Running.NOTHING:
            if self.harm.planned_changes_save:
                self.durable = self.live
            self.live = self.durable
        self.running = wanted or Running.NOTHING
        self.since_launch = 0.0
        startups = self.harm.spot_startups
        if wanted is Running.SPOT:
            self.startup_left = self.job.launch * startups[self.num_starts % len(startups)]
            self.num_starts += 1
        elif wanted is Running.ON_DEMAND:
            self.startup_left = self.job.on_demand

    def _advance(self, due: float, late: float) -> float | None:
        """To the next look: `late` after it is due, or after the first event; or to the job's end."""
        look = due + late
        while True:
            event, what = self._next_event()
            if event >= look:
                self._work(look - self.now)
                return self.now if self.live >= self.job.work - ROUNDING else None
            self._work(event - self.now)
            if what == "end":
                return self.now
            if what == "spell":
                self.spell, self.spell_began = self.spell + 1, self.now
            elif what == "kill":
                self.killed_until = self.now + self.job.launch
            if self.running is Running.SPOT and not self._up():
                self.running, self.startup_left, self.live = Running.NOTHING, 0.0, self.durable
            look = min(look, self.now + late)

    def _next_event(self) -> tuple[float, str]:
        events = [(max(self._spell_ends(), self.now), "spell")]
        if self.killed_until > self.now:
            events.append((self.killed_until, "back"))
        if self.running is not Running.NOTHING:
            events.append((self.now + self.startup_left + self.job.work - self.live, "end"))
        if self.running is Running.SPOT and self.harm.kills_before_checkpoint:
            to_checkpoint = self.job.interval - self.since_launch % max(self.job.interval, 1.0)
            events.append((self.now + self.startup_left + max(0.0, to_checkpoint - 0.5), "kill"))
        return min(events)

    def _work(self, seconds: float) -> None:
        self.now += seconds
        if self.running is Running.NOTHING:
            return
        useful = max(0.0, seconds - self.startup_left)
        self.startup_left = max(0.0, self.startup_left - seconds)
        before = self.since_launch
        self.since_launch += useful
        self.live += useful
        interval = self.job.interval
        if not self.harm.checkpoints_land:
            return
        if interval <= 0:
            self.durable = self.live
        elif self.since_launch // interval > before // interval:
            self.durable = self.live - self.since_launch % interval
