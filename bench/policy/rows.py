"""What is played: the tables of the referee's RESULTS.md, and which rules stand beside ours."""

from __future__ import annotations

from typing import Any, Final

from policy.market import Row

MAIN_SUITES: Final = ("v100", "multi-instance")

GREEDY, UNIFORM, NO_HYSTERESIS, RC_VDT = "greedy", "uniform progress", "up, no hysteresis", "rc_vdt"
SLACK, NO_DWELL = "slack .15 + dwell 2D", "slack .20, no dwell"
GUARDS: Final = ("uniform progress, guard", "slack .15 + 2D, guard")
REFERENCES: Final = (GREEDY, UNIFORM, NO_HYSTERESIS, RC_VDT, SLACK, NO_DWELL)


def lost(tau: float, **more: Any) -> tuple[tuple[str, Any], ...]:
    return tuple({"mode": "lost", "tau": tau, **more}.items())


STRESS: Final = lost(900.0, p_notice=0.5, jitter=1.0, od_refuse=0.1)

ROWS: Final = (
    *(
        Row(suite, "no loss")
        for suite in ("v100", "v100-small-overhead", "v100-other-jobs", "multi-instance")
    ),
    Row("v100", "no loss, zone prices", prices="trace"),
    *(Row(suite, "loss 15 min", lost(900.0)) for suite in MAIN_SUITES),
    *(Row(suite, "loss 60 min", lost(3600.0)) for suite in MAIN_SUITES),
    *(Row(suite, "loss 60 min, notice .8", lost(3600.0, p_notice=0.8)) for suite in MAIN_SUITES),
    *(Row(suite, "no loss, 30 min probes", (("probe_s", 1800.0),)) for suite in MAIN_SUITES),
    *(Row(suite, "stress", STRESS) for suite in MAIN_SUITES),
)


def peers(row: Row) -> list[tuple[str, str, bool]]:
    """(label, rule, plans with the interval too) of every rule that RESULTS.md has for this row."""
    plain = [(name, name, False) for name in REFERENCES]
    if not row.loses_work:
        return plain
    wary = [(f"{name}, d + tau", name, True) for name in REFERENCES]
    guards = [(name, name, False) for name in GUARDS]
    options = dict(row.options)
    told_both = options.get("p_notice", 0.0) == 0.0 and "jitter" not in options
    return [*(plain if told_both else []), *wary, *guards]
