"""What every status that is written has to say, whatever led to it.

Each check takes a job as the API server shows it, and what the model knows; it returns what is
wrong, or nothing. Invariant: as in `checks`, the operator's memory is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from simulation.api import Object
from simulation.world import PRICES, World
from spot_operator.views import time_of

AT_ONCE = {"Interruption", "NodeLost", "CapacityChange"}
"""Causes after which a launch is never put off."""
CHARGED = {"Failure", "OutOfMemory"}
MAX_FREE_STOPS = 2
"""A program may stop itself so often in a row without progress, and not be charged."""
RESERVE_SECONDS = 60.0
CLOCKS_SECONDS = 5.0
LOSSES = {"Interruption", "NodeLost"}
MAX_REMEMBERED = 50
ROUNDING = 0.0001

Check = Callable[[Object, World], str]


def no_launch_is_put_off_without_a_reason(job: Object, _: World) -> str:
    status = job["status"]
    if not status.get("nextLaunchTime"):
        return ""
    newest = (status.get("recentRestarts") or [{}])[-1]
    if newest.get("cause") in AT_ONCE and newest.get("ran", True):
        return f"the next launch waits although the last incarnation ended by {newest['cause']}"
    return ""


def who_is_suspended_has_nothing_under_way(job: Object, _: World) -> str:
    status = job["status"]
    if not _is_true(status, "Suspended"):
        return ""
    left = [key for key in ("gang", "predecessor", "nextLaunchTime") if status.get(key)]
    return f"it is Suspended and has a {left[0]}" if left else ""


def only_the_programs_fault_is_charged(job: Object, _: World) -> str:
    for each in job["status"].get("recentRestarts") or ():
        if each.get("charged") and each["cause"] not in CHARGED:
            return f"incarnation {each['incarnation']} is charged for {each['cause']}"
    return ""


def a_final_checkpoint_is_progress(job: Object, world: World) -> str:
    for each in job["status"].get("recentRestarts") or ():
        final = world.final_step.get(each["podUID"])
        if each.get("exitCode") == 75 and final is not None and (each.get("durableStep") or 0) < final:
            return (
                f"incarnation {each['incarnation']} saved step {final}, and {each.get('durableStep')} counts"
            )
    return ""


def endless_stops_are_charged(job: Object, world: World) -> str:
    in_a_row, step = 0, None
    for each in job["status"].get("recentRestarts") or ():
        is_stop = "stops itself" in world.truth.get(each["podUID"], set()) and each.get("row") == "17"
        is_same = each.get("durableStep") == step
        in_a_row = (in_a_row + 1 if is_same else 1) if is_stop and not each.get("charged") else 0
        step = each.get("durableStep")
        if in_a_row > MAX_FREE_STOPS:
            return f"it stopped itself {in_a_row} times in a row without progress, and nothing was charged"
    return ""


def failures_at_one_step_have_a_limit(job: Object, _: World) -> str:
    """However far apart they are, and whatever was taken away in between."""
    restarts = job["status"].get("recentRestarts") or ()
    if not restarts or restarts[-1].get("durableStep") is None:
        return ""
    failures = 0
    for each in reversed(restarts):
        if each.get("durableStep") != restarts[-1]["durableStep"]:
            break
        failures += bool(each.get("charged"))
    limit = job["model"]["backoffLimit"] + 1
    return f"it failed {failures} times at one durable step and goes on" if failures > limit else ""


def patience_with_spot_is_counted_from_the_pod(job: Object, world: World) -> str:
    """afterPendingSeconds counts while a pod waits, not while the job is suspended."""
    capacity = job["status"].get("capacity") or {}
    limit = (job["spec"].get("fallback") or {}).get("afterPendingSeconds")
    if capacity.get("reason") != "AfterPending" or limit is None:
        return ""
    gangs = [job["status"].get(key) or {} for key in ("predecessor", "gang")]
    spot = [gang for gang in gangs if gang.get("capacityType") == "spot"]
    since, decided = [time_of(gang["createdTime"]) for gang in spot], time_of(capacity["since"])
    if not since or since[-1] is None or decided is None:
        return ""
    waited = (decided - since[-1]).total_seconds()
    return f"spot was given up after {waited:.0f} s of {limit} s" if waited < limit - CLOCKS_SECONDS else ""


def spot_is_left_in_time(job: Object, world: World) -> str:
    """Deadline less what is not saved yet and the reserve: later the deadline cannot be kept."""
    status = job["status"]
    deadline, progress = time_of(status.get("deadline")), status.get("progress") or {}
    capacity = status.get("capacity") or {}
    rate, total = progress.get("stepsPerSecond"), progress.get("totalSteps")
    decides = time_of(capacity.get("nextDecisionTime"))
    if deadline is None or not rate or total is None or decides is None or _is_over(status):
        return ""
    if capacity.get("reason") != "SpotFirst":
        return ""
    left = (total - (progress.get("durableStep") or 0)) / rate
    latest = deadline - timedelta(seconds=left + RESERVE_SECONDS - CLOCKS_SECONDS)
    return f"spot is left at {decides}, and {latest} would be too late" if decides > latest else ""


def a_lost_spot_node_is_counted_once(job: Object, _: World) -> str:
    """In the rate, as in what is remembered of the endings; also where the verdict came late."""
    status = job["status"]
    restarts = status.get("recentRestarts") or ()
    if len(restarts) >= MAX_REMEMBERED:
        return ""
    lost = [each for each in restarts if each["cause"] in LOSSES and each["capacityType"] == "spot"]
    want = sum(1 for each in lost if each.get("nodeName"))
    counted = sum(each["interruptions"] for each in status.get("interruptionRate", {}).get("zones", ()))
    return f"{want} spot nodes were lost and {counted} are counted" if want != counted else ""


def node_time_costs_what_its_nodes_say(job: Object, _: World) -> str:
    """All of it, at a price that some node had; and nothing is said where some of it has no price."""
    cost = job["status"].get("cost", {})
    spot, on_demand = cost.get("spotNodeSeconds", 0.0), cost.get("onDemandNodeSeconds", 0.0)
    is_priced = not cost.get("unpricedSpotNodeSeconds") and not cost.get("unpricedOnDemandNodeSeconds")
    if "spent" not in cost:
        return "what it has cost is not said" if is_priced and job["status"].get("conditions") else ""
    if not is_priced:
        return f"it is said to have cost {cost['spent']}, and some of it has no price"
    (cheap, dear), (each, _same) = (
        [float(price) for price in PRICES[pool]] for pool in ("spot", "on-demand")
    )
    least, most = ((spot * price + on_demand * each) / 3600 for price in (cheap, dear))
    if not least - ROUNDING <= float(cost["spent"]) <= most + ROUNDING:
        return f"{spot} s on spot and {on_demand} s on on-demand have cost {cost['spent']}"
    return ""


CHECKS: tuple[Check, ...] = (
    a_lost_spot_node_is_counted_once,
    node_time_costs_what_its_nodes_say,
    no_launch_is_put_off_without_a_reason,
    who_is_suspended_has_nothing_under_way,
    only_the_programs_fault_is_charged,
    a_final_checkpoint_is_progress,
    endless_stops_are_charged,
    failures_at_one_step_have_a_limit,
    patience_with_spot_is_counted_from_the_pod,
    spot_is_left_in_time,
)


def complaint(job: Object, world: World) -> str:
    """The first thing that is wrong with the job's status; empty: nothing is."""
    found = (check(job, world) for check in CHECKS)
    return next((f"{job['metadata']['name']}: {text}" for text in found if text), "")


def _is_true(status: dict[str, Any], type_: str) -> bool:
    return any(c["type"] == type_ and c["status"] == "True" for c in status.get("conditions", ()))


def _is_over(status: dict[str, Any]) -> bool:
    return bool(status.get("completionTime"))
