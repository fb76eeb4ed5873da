"""Simulated runs of a job on recorded or synthetic spot markets, played by the operator's own policies."""

from spot_operator.market.formats import InvalidMarket, market_from_table, market_from_trace
from spot_operator.market.market import Market
from spot_operator.market.plan import Plan
from spot_operator.market.policies import Policy, decider
from spot_operator.market.run import play
from spot_operator.market.scenario import Decider, MarketView, Move, Outcome, Overheads, Scenario
from spot_operator.market.summary import Advice, Summary, advise, summaries
from spot_operator.market.synthetic import Climate, synthetic_market

__all__ = [
    "Advice",
    "Climate",
    "Decider",
    "InvalidMarket",
    "Market",
    "MarketView",
    "Move",
    "Outcome",
    "Overheads",
    "Plan",
    "Policy",
    "Scenario",
    "Summary",
    "advise",
    "decider",
    "market_from_table",
    "market_from_trace",
    "play",
    "summaries",
    "synthetic_market",
]
