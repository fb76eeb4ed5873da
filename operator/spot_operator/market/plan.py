"""Many runs: which market each meets, and when in it the job begins.

Run number n is the same run under every policy, on every machine and in any order, so that policies are
compared pair by pair and runs can be shared out. Invariant: everything follows from the seed and n.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from random import Random

from spot_operator.market.market import Market
from spot_operator.market.policies import Policy, decider
from spot_operator.market.run import play
from spot_operator.market.scenario import Outcome, Scenario
from spot_operator.market.synthetic import Climate, synthetic_market
from spot_operator.model import JobSpec, PolicySettings


@dataclass(frozen=True, kw_only=True)
class Plan:
    scenario: Scenario
    spec: JobSpec
    settings: PolicySettings
    markets: tuple[Market, ...] | Climate
    """Recorded markets, met in turn, or what synthetic ones are like."""
    policies: tuple[Policy, ...] = tuple(Policy)
    seed: int = 1

    @property
    def window_seconds(self) -> float:
        """How much of a market a run usually needs; a far deadline is not waited for."""
        return min(self.scenario.deadline_seconds, 5 * self.scenario.work_seconds)

    def play(self, numbers: Iterable[int]) -> dict[Policy, list[Outcome]]:
        """These runs under every policy."""
        outcomes: dict[Policy, list[Outcome]] = {policy: [] for policy in self.policies}
        for number in numbers:
            market, offset = self.market_of(number)
            for policy in self.policies:
                decide = decider(policy, self.spec, self.scenario, self.settings)
                seed = f"{self.seed}/{number}"
                outcomes[policy].append(play(self.scenario, market, offset=offset, decide=decide, seed=seed))
        return outcomes

    def market_of(self, number: int) -> tuple[Market, float]:
        """The market of a run, and where in it the job begins."""
        dice = Random(f"{self.seed}/{number}/market")
        window = self.window_seconds
        if isinstance(self.markets, Climate):
            # The offset: a job does not begin when a spell does, and is likelier to begin in a long one.
            market = synthetic_market(self.markets, dice, length_seconds=4 * window)
        else:
            market = self.markets[number % len(self.markets)]
        if market.length_seconds == inf:
            return market, 0.0
        room = market.length_seconds - window
        return market, dice.random() * (room if room > 0 else market.length_seconds)
