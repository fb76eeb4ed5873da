"""Spot, on-demand or wait: the cheapest way that still keeps the deadline.

    W = work left by durable progress          R = time left           K = price on-demand / price spot
    D = from the decision for on-demand to useful work, at worst       d = what a launch usually takes
    e = by how much a look may be late, + 1 s   L = work that an interruption usually loses
    S = R - W - D, the slack: what may still be wasted before only on-demand, at once, will do

**Guarantee.** A job with S >= e when it is accepted ends in time, whatever the spot market does, if
(1) somebody looks at every event and at `next_decision_seconds`, late by at most e; (2) on-demand works
within D and stays; (3) W is not understated and durable progress is kept. For off on-demand, S falls by at
most a second per second, an interruption included: it throws away only what W never credited. Every choice
but on-demand needs S >= e and is looked at again, at the latest, when S = e; so S >= 0 whenever on-demand
is chosen, which is R >= W + D, what on-demand needs. Where work is at risk the guard thus leaves spot, or
first asks for a checkpoint, which raises S, before a loss could put the deadline out of reach.

**Cost.** Within the guarantee three rules spend the slack, each with one constant:

1. *Wait or buy* (no spot). All outages together can be waited out only if S lasts; waiting is worth it
   while a share of what is left remains in hand: wait iff S > waiting_share W + (d + L). The last term pays
   for one more interruption; a share rather than a constant keeps slack for later spells of spot, which a
   job that waited too long must let pass.
2. *Take spot* whenever it is there and its startup fits into S. Nothing is cheaper than a try.
3. *Return* from on-demand to spot. The round trip costs a startup at each price and what is lost:
   it breaks even after u = (d (K + 1) + L K) / (K - 1) on spot. Up-times are heavy-tailed: what has lasted
   for t lasts about as long again, so spot must have been up for

       t >= patience u sqrt((waiting_share W + d + L) / S) - young_seconds

   The root makes the job choosier where slack is scarce, since a round trip costs slack as well as money.
   Spot that could not be used for u (work or slack ends before) is let pass: nothing moves near the end.

Invariant: while the deadline can be reached, more time left never turns spot or wait into on-demand.
Where the constants come from and what else was tried: docs/decisions/0008-capacity-policy.md.
"""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Final

from spot_operator.policy.terms import Action, Choice, Running, Situation, Why


@dataclass(frozen=True, slots=True)
class Tuning:
    """Picked on recorded markets with whole zones left out; flat around these values."""

    waiting_share: float = 0.16
    patience: float = 1.25
    young_seconds: float = 1080.0
    """The age that a spell of spot is credited with when it begins."""


TUNING: Final = Tuning()

SOONEST_LOOK_SECONDS: Final = 1.0
"""`next_decision_seconds` is never below, lest rounding make looks chase each other; e has room for it."""

_KEEP: Final = {
    Running.SPOT: Action.SPOT,
    Running.ON_DEMAND: Action.ON_DEMAND,
    Running.NOTHING: Action.WAIT,
}


def choose(now: Situation, tuning: Tuning = TUNING) -> Choice:
    work_live = now.work_left - now.at_risk
    if work_live <= 0:
        return Choice(_KEEP[now.running], Why.FINISHED, None, False, now, inf, 0.0)
    slack = now.time_left - now.work_left - now.on_demand_seconds
    if now.running is Running.SPOT:
        return _on_spot(now, slack, work_live)
    loss = now.checkpoint_interval / 2 * (1 - now.notice_reliability)
    in_hand = tuning.waiting_share * now.work_left + now.launch_seconds + loss
    if now.running is Running.ON_DEMAND:
        return _on_demand(now, slack, work_live, loss, in_hand, tuning)
    return _on_nothing(now, slack, in_hand)


def _on_spot(now: Situation, slack: float, work_live: float) -> Choice:
    e = now.reaction_seconds
    # Without a checkpoint interval every second is durable as soon as it is done.
    durable_by_next_look = max(0.0, e - now.startup_left) if now.checkpoint_interval <= 0 else 0.0
    if slack + durable_by_next_look >= e:
        if now.checkpoint_seconds is not None and now.at_risk > now.checkpoint_seconds:
            ask_below = 2 * e + now.checkpoint_seconds
            if slack < ask_below:
                look = max(slack - e, SOONEST_LOOK_SECONDS)
                return Choice(Action.SPOT, Why.ON_SPOT, look, True, now, slack, ask_below)
            return Choice(Action.SPOT, Why.ON_SPOT, _look(slack - ask_below), False, now, slack, e)
        return Choice(Action.SPOT, Why.ON_SPOT, _look(slack - e), False, now, slack, e)
    alone = now.startup_left + work_live
    if alone <= now.time_left < work_live + now.launch_seconds:
        # On-demand would be late for certain, this node only if it is taken away.
        return Choice(Action.SPOT, Why.ONLY_SPOT_CAN, None, now.at_risk > 0, now, slack, e)
    return Choice(Action.ON_DEMAND, Why.GUARD, None, now.at_risk > 0, now, slack, e)


def _on_nothing(now: Situation, slack: float, in_hand: float) -> Choice:
    e = now.reaction_seconds
    if slack < 0:
        return Choice(Action.ON_DEMAND, Why.INFEASIBLE, None, False, now, slack, 0.0)
    if now.on_demand_price <= now.spot_price:
        return Choice(Action.ON_DEMAND, Why.NOT_CHEAPER, None, False, now, slack, 0.0)
    if now.spot_available:
        threshold = _slack_to_try(now)
        if slack >= threshold:
            return Choice(Action.SPOT, Why.SPOT_THERE, _look(slack - e), False, now, slack, threshold)
        return Choice(Action.ON_DEMAND, Why.SLACK_USED, None, False, now, slack, threshold)
    threshold = max(in_hand, e)
    if slack > threshold:
        return Choice(Action.WAIT, Why.SLACK_LEFT, _look(slack - threshold), False, now, slack, threshold)
    return Choice(Action.ON_DEMAND, Why.SLACK_USED, None, False, now, slack, threshold)


def _on_demand(
    now: Situation, slack: float, work_live: float, loss: float, in_hand: float, tuning: Tuning
) -> Choice:
    e, d = now.reaction_seconds, now.launch_seconds
    if now.startup_left + work_live > now.time_left:
        return Choice(Action.ON_DEMAND, Why.INFEASIBLE, None, False, now, slack, 0.0)
    if now.on_demand_price <= now.spot_price:
        return Choice(Action.ON_DEMAND, Why.NOT_CHEAPER, None, False, now, slack, 0.0)
    if not now.spot_available:
        return Choice(Action.ON_DEMAND, Why.NO_SPOT, None, False, now, slack, 0.0)
    saved_per_hour = now.on_demand_price - now.spot_price
    startups = d * (now.on_demand_price + now.spot_price) / saved_per_hour
    # Spot is left again by the guard before its first checkpoint is durable if that needs more slack.
    usable = work_live
    if now.checkpoint_interval > 0 and slack < d + now.checkpoint_interval + e:
        usable = min(work_live, slack - d - e)
    if slack < _slack_to_try(now) or usable < startups:
        return Choice(Action.ON_DEMAND, Why.NOT_WORTH_IT, None, False, now, slack, startups)
    break_even = startups + loss * now.on_demand_price / saved_per_hour
    age = tuning.patience * break_even * sqrt(in_hand / max(slack, 1.0)) - tuning.young_seconds
    if now.spot_age >= age:
        return Choice(Action.SPOT, Why.SPOT_LASTS, _look(slack - e), now.at_risk > 0, now, slack, age)
    return Choice(Action.ON_DEMAND, Why.SPOT_TOO_YOUNG, _look(age - now.spot_age), False, now, slack, age)


def _slack_to_try(now: Situation) -> float:
    """What a start on spot may burn before it pays, and in any case before the next look."""
    unpaid = now.reaction_seconds
    if now.checkpoint_interval <= 0:
        unpaid = min(unpaid, now.on_demand_seconds)
    return max(now.launch_seconds, unpaid)


def _look(seconds: float) -> float | None:
    return None if seconds == inf else max(seconds, SOONEST_LOOK_SECONDS)
