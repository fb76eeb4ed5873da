"""The summary for people."""

import sys

from rich.console import Console
from rich.table import Table

from demo.summary import JobSummary, Summary

PLAIN_WIDTH = 130
"""Where there is no terminal to ask."""


def make_console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def print_summary(summary: Summary, console: Console) -> None:
    for job in summary.jobs:
        console.print(_interruptions(job))
    console.print(_cost(summary))
    console.print(_measures(summary))
    equality = summary.equality
    words = "equals" if equality.holds else "DOES NOT EQUAL"
    console.print(f"\nThe interrupted run {words} the one that was never interrupted, bit for bit:")
    console.print(
        f"  {equality.num_losses} losses: {_yes(equality.losses_equal)}, also where steps were repeated"
    )
    console.print(f"  samples of every step: {_yes(equality.samples_equal)}")
    console.print(f"  final checkpoints: {equality.checkpoints}", soft_wrap=True)
    for problem in equality.problems:
        console.print(f"\n{problem}", style="bold red", soft_wrap=True)


def _yes(equal: bool) -> str:
    return "equal" if equal else "DIFFERENT"


def _interruptions(job: JobSummary) -> Table:
    table = Table(title=f"{job.name}: {job.outcome}; ended on {job.capacity}", title_justify="left")
    for name in ("#", "node", "cause", "evidence"):
        table.add_column(name, overflow="fold")
    for name in ("steps lost", "seconds to training"):
        table.add_column(name, justify="right")
    for each in job.interruptions:
        again = "" if each.seconds_to_training is None else f"{each.seconds_to_training:.1f}"
        table.add_row(
            str(each.incarnation), each.node, each.cause, each.evidence, str(each.steps_lost), again
        )
    return table


def _cost(summary: Summary) -> Table:
    table = Table(title="what it cost", title_justify="left")
    table.add_column("job")
    for name in ("spot node-seconds", "on-demand node-seconds", "spent", "all on-demand", "saved"):
        table.add_column(name, justify="right")
    rows = [(job.name, job.cost) for job in summary.jobs] + [("together", summary.cost)]
    for name, cost in rows:
        table.add_row(
            name,
            f"{cost.spot_node_seconds:.0f}",
            f"{cost.on_demand_node_seconds:.0f}",
            f"{cost.spent:.4f}",
            f"{cost.on_demand_only:.4f}",
            f"{cost.saved_share:.0%}",
        )
    return table


def _measures(summary: Summary) -> Table:
    table = Table(title="measured", title_justify="left")
    table.add_column("what")
    for name in ("value", "goal"):
        table.add_column(name, justify="right")
    table.add_column("met")
    for each in summary.measures:
        value = "unknown" if each.value is None else f"{each.value:g} {each.unit}"
        table.add_row(each.name, value, each.goal, "yes" if each.met else "[bold red]NO[/]")
    return table
