"""A choice in one sentence for people: what, why, and the numbers behind it."""

from math import inf

from spot_operator.policy.terms import Action, Choice, Why


def explain(choice: Choice) -> str:
    now, slack, threshold = choice.situation, choice.slack, choice.threshold
    if choice.why is Why.FINISHED:
        return "no work is left"
    if choice.shortfall > 0:
        head = "only this spot node can still make it: " if choice.action is Action.SPOT else ""
        return (
            f"{head}the deadline is out of reach by {choice.shortfall:.0f} s: {now.work_left:.0f} s of work, "
            f"{now.time_left:.0f} s left, {now.on_demand_seconds:.0f} s to start on on-demand; "
            f"a later deadline, more nodes or faster starts would help"
        )
    time = (
        "no deadline"
        if now.time_left == inf
        else f"{now.time_left:.0f} s left for {now.work_left:.0f} s of work, {slack:.0f} s of slack"
    )
    match choice.why:
        case Why.ON_SPOT if choice.checkpoint_first:
            what = f"a checkpoint is asked for: {now.at_risk:.0f} s of work are at risk"
        case Why.ON_SPOT:
            what = "spot goes on"
        case Why.SPOT_THERE:
            what = "spot is available"
        case Why.SPOT_LASTS:
            what = f"spot has been up for {now.spot_age:.0f} s, long enough to pay for the change"
        case Why.SLACK_LEFT:
            what = f"waiting for spot until {threshold:.0f} s of slack are left"
        case Why.SLACK_USED:
            what = f"on-demand: less than the {threshold:.0f} s of slack to be kept"
        case Why.GUARD:
            what = (
                f"spot is left: its loss would cost {now.at_risk:.0f} s of work and "
                f"{now.on_demand_seconds:.0f} s to start on on-demand"
            )
        case Why.NO_SPOT:
            what = "on-demand goes on, spot is not available"
        case Why.SPOT_TOO_YOUNG:
            what = f"on-demand goes on until spot has been up for {threshold:.0f} s"
        case Why.NOT_WORTH_IT:
            what = "on-demand goes on, too near the end for a change to pay"
        case Why.NOT_CHEAPER:
            what = "on-demand: spot is not cheaper"
        case _:
            what = "on-demand now" if choice.action is Action.ON_DEMAND else "spot goes on"
    return f"{what}; {time}"
