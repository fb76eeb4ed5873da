"""The capacity policy `Auto`: a pure function of seconds and prices, and what it plans with.

Knows neither Kubernetes nor the job's status, so that the operator, the simulators and the benchmark
run the same code.
"""

from spot_operator.policy.auto import TUNING, Tuning, choose
from spot_operator.policy.measured import Interruptions, Launches, Notices
from spot_operator.policy.terms import Action, Choice, Running, Situation, Why
from spot_operator.policy.words import explain

__all__ = [
    "TUNING",
    "Action",
    "Choice",
    "Interruptions",
    "Launches",
    "Notices",
    "Running",
    "Situation",
    "Tuning",
    "Why",
    "choose",
    "explain",
]
