"""One run of a job on a market, from event to event.

Between two events nothing is decided and everything follows from the time: a run goes on to the next change
of its market, the next look that its policy asked for, or its end, whichever is first. Accounting: every
launch is paid from the launch on, startup included; a change that the policy chose loses nothing, because
the old node saves first, and that node is paid while it does; an interruption loses what is not durable,
unless the checkpoint on its notice lands. Invariant: the same market, offset, policy and draws make the
same run, and the k-th launch and the k-th interruption draw the same under every policy.
"""

from math import inf
from random import Random

from spot_operator.market.market import Cursor, Market
from spot_operator.market.scenario import Decider, MarketView, Move, Outcome, Scenario
from spot_operator.market.work import Work
from spot_operator.policy import Action, Running

SOONEST_LOOK_SECONDS = 1.0
ROUNDING = 1e-6
_WANTED = {Action.SPOT: Running.SPOT, Action.ON_DEMAND: Running.ON_DEMAND, Action.WAIT: Running.NOTHING}


def play(scenario: Scenario, market: Market, *, offset: float, decide: Decider, seed: str) -> Outcome:
    """One run that begins at `offset` of the market."""
    return _Run(scenario, market, offset, seed).play(decide)


class _Run:
    def __init__(self, scenario: Scenario, market: Market, offset: float, seed: str) -> None:
        self._scenario = scenario
        self._cursor = Cursor(market, offset)
        self._startup_dice, self._notice_dice = Random(f"{seed}/startups"), Random(f"{seed}/notices")
        self._work = Work(
            scenario.work_seconds,
            interval=scenario.checkpoint_interval,
            stall=scenario.checkpoint_stall,
            save=scenario.checkpoint_seconds,
        )
        self._now = 0.0
        self._running = Running.NOTHING
        self._launched_at, self._ready_at = 0.0, 0.0
        self._measured = True
        """Whether the current startup is among `_startups`."""
        self._seen, self._seen_since, self._next_probe = self._cursor.available, 0.0, inf
        self._pending_since: float | None = None
        self._interruptions: list[float] = []
        self._startups: list[tuple[Running, float]] = []
        self._notices: list[bool] = []
        self._cost = self._lost = 0.0
        self._launches = 0
        self._seconds = dict.fromkeys(Running, 0.0)

    def play(self, decide: Decider) -> Outcome:
        scenario, cursor = self._scenario, self._cursor
        end = scenario.limit_seconds
        if scenario.ends_at_deadline:
            end = min(end, scenario.deadline_seconds)
        while True:
            move = decide(self._view())
            self._obey(move)
            look = (
                inf
                if move.next_look_seconds is None
                else self._now + max(move.next_look_seconds, SOONEST_LOOK_SECONDS)
            )
            until = min(look, cursor.next_change, self._next_probe, end)
            if self._running is not Running.NOTHING and self._work.finish_time() <= until + ROUNDING:
                self._pass(self._work.finish_time())
                return self._outcome(self._now)
            if until == inf:
                return self._outcome(None)  # nothing will ever happen
            self._pass(until)
            if until >= end:
                return self._outcome(None)
            self._see()

    def _price(self, running: Running) -> float:
        scenario = self._scenario
        if running is Running.ON_DEMAND:
            return scenario.on_demand_price
        price = scenario.spot_price if scenario.spot_price is not None else self._cursor.recorded_price
        return scenario.on_demand_price if price is None else price

    def _pass(self, until: float) -> None:
        """Time goes by, and is paid for."""
        self._seconds[self._running] += until - self._now
        if self._running is not Running.NOTHING:
            self._pay(self._running, until - self._now)
        self._now = until

    def _pay(self, running: Running, seconds: float) -> None:
        self._cost += seconds / 3600 * self._price(running) * self._scenario.num_nodes

    def _see(self) -> None:
        """What has happened by now: the market changed, the node went, a startup came to its end."""
        now, cursor = self._now, self._cursor
        if not self._measured and now >= self._ready_at:
            self._measured = True
            self._startups.append((self._running, self._ready_at - self._launched_at))
        while cursor.next_change <= now + ROUNDING:
            cursor.step()
        if self._running is Running.SPOT and not cursor.available:
            self._interrupt()
        blind = self._running is Running.ON_DEMAND and self._scenario.probe_seconds > 0
        if not blind or now >= self._next_probe:
            self._notice_availability(cursor.available)
            self._next_probe = now + self._scenario.probe_seconds if blind else inf

    def _notice_availability(self, available: bool) -> None:
        if available is not self._seen:
            self._seen, self._seen_since = available, self._now

    def _interrupt(self) -> None:
        work, now = self._work, self._now
        self._interruptions.append(now)
        at_stake = work.done(now) > work.durable(now)
        landed = self._notice_dice.random() < self._scenario.notice_reliability
        if at_stake:
            self._notices.append(landed)
        if landed:
            work.keep(now)
        else:
            self._lost += work.lose(now)
        self._running, self._measured = Running.NOTHING, True

    def _obey(self, move: Move) -> None:
        wanted, now = _WANTED[move.action], self._now
        if wanted is self._running:
            if move.checkpoint:
                self._work.ask_for_checkpoint(now)
            if wanted is Running.NOTHING:
                self._pending_since = None
        elif wanted is Running.SPOT and not self._cursor.available:
            # Refused: what is running goes on, and where nothing is, a pod waits for its node.
            self._notice_availability(False)
            if self._running is Running.NOTHING and self._pending_since is None:
                self._pending_since = now
        else:
            self._leave()
            if wanted is not Running.NOTHING:
                self._launch(wanted)

    def _leave(self) -> None:
        if self._running is not Running.NOTHING:
            if self._work.keep(self._now) > 0:
                self._pay(self._running, self._scenario.checkpoint_seconds)
            self._running, self._measured = Running.NOTHING, True

    def _launch(self, wanted: Running) -> None:
        overheads = self._scenario.overheads
        seconds = overheads.mean(wanted)
        if overheads.spread > 0:
            seconds *= self._startup_dice.lognormvariate(-(overheads.spread**2) / 2, overheads.spread)
        self._running, self._measured = wanted, False
        self._launched_at, self._ready_at = self._now, self._now + seconds
        self._launches += 1
        self._pending_since = None
        self._work.begin(self._ready_at)
        blind = wanted is Running.ON_DEMAND and self._scenario.probe_seconds > 0
        self._next_probe = self._now + self._scenario.probe_seconds if blind else inf

    def _view(self) -> MarketView:
        scenario, now, work = self._scenario, self._now, self._work
        startup_left = 0.0
        if self._running is not Running.NOTHING and now < self._ready_at:
            expected = self._launched_at + scenario.overheads.mean(self._running)
            startup_left = max(0.0, expected - now)
        return MarketView(
            now=now,
            deadline=scenario.deadline_seconds,
            work_total=work.total,
            work_done=work.done(now),
            work_durable=work.durable(now),
            running=self._running,
            startup_left=startup_left,
            spot_available=self._seen,
            spot_since=self._seen_since,
            pending_since=self._pending_since,
            interruptions=self._interruptions,
            startups=self._startups,
            notices=self._notices,
            spot_price=self._price(Running.SPOT),
            on_demand_price=self._price(Running.ON_DEMAND),
        )

    def _outcome(self, finish: float | None) -> Outcome:
        deadline = self._scenario.deadline_seconds
        return Outcome(
            finish_seconds=finish,
            on_time=finish is not None and finish <= deadline + ROUNDING,
            cost=self._cost,
            interruptions=len(self._interruptions),
            launches=self._launches,
            lost_seconds=self._lost,
            spot_seconds=self._seconds[Running.SPOT],
            on_demand_seconds=self._seconds[Running.ON_DEMAND],
            waiting_seconds=self._seconds[Running.NOTHING],
        )
