"""`explain`: why a job is where it is, what would change that and when, and what its user can do.

Read from the job's own status, where the operator wrote down its reasons. Invariant: pure, and no statement
without something in spec or status behind it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from spot_operator.decide.capacity import STICKY_REASONS
from spot_operator.model import FallbackPolicy
from spot_operator.names import CONTROLLER_NAME, CapacityType, ConditionType, Reason
from spot_plugin.job import Job
from spot_plugin.words import clean, duration, moment, parse_time, relative, table

MAX_RESTARTS = 5
WHAT = "kubectl spottraining"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that would change where the job is."""

    what: str
    time: datetime | None = None
    """None: at any time."""


@dataclass
class Explanation:
    headline: str
    why: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


def explain(job: Job, now: datetime) -> Explanation:
    found = Explanation(headline=_headline(job, now))
    if not job.get("status"):
        _explain_new(job, found)
        return found
    _explain_conditions(job, found)
    if not job.is_finished:
        _explain_gang(job, now, found)
        _explain_capacity(job, now, found)
        _explain_deadline(job, now, found)
        _explain_rate(job, found)
    _explain_launches(job, found)
    _explain_cost(job, found)
    _offer(job, found)
    found.changes.sort(key=lambda change: (change.time is None, change.time or now))
    return found


def _headline(job: Job, now: datetime) -> str:
    line = f"{job.namespace}/{job.name}: {clean(job.phase)}"
    if (capacity := job.get("status.capacity.type")) and not job.is_finished:
        since = job.time("status.capacity.since")
        line += f", {clean(capacity)}" + (f" since {moment(since)} ({relative(since, now)})" if since else "")
    return line


def _explain_new(job: Job, found: Explanation) -> None:
    manager = job.get("spec.managedBy")
    if manager not in (None, CONTROLLER_NAME):
        found.why.append(
            f"spec.managedBy is {clean(manager)}: that controller runs it, and this operator does not."
        )
        return
    found.why.append("No operator has looked at it yet: it has no status.")
    found.options.append(
        "see whether the operator runs and serves this namespace: "
        "kubectl get pods -A -l app.kubernetes.io/name=spot-training-operator"
    )


def _explain_conditions(job: Job, found: Explanation) -> None:
    for type_ in (ConditionType.FAILED, ConditionType.COMPLETE):
        if job.is_true(type_):
            found.why.append(_said(type_, job.condition(type_)))
            return
    if job.is_false(ConditionType.ACCEPTED):
        found.why.append(_said("Not accepted", job.condition(ConditionType.ACCEPTED)))
    if job.get("spec.suspend") or job.is_true(ConditionType.SUSPENDED):
        found.why.append(
            _said("Suspended", job.condition(ConditionType.SUSPENDED))
            if job.is_true(ConditionType.SUSPENDED)
            else "spec.suspend is true: it saves and stops."
        )
    heard = set()
    for type_ in (ConditionType.CAPACITY_AVAILABLE, ConditionType.PODS_READY, ConditionType.CHECKPOINT_READY):
        condition = job.condition(type_)
        word = (condition.get("reason"), condition.get("message"))
        # The first checkpoint is yet to come: no reason for anything.
        is_news = word not in heard and condition.get("reason") != Reason.NO_CHECKPOINT_YET
        if job.is_false(type_) and is_news and not job.is_true(ConditionType.SUSPENDED):
            heard.add(word)
            found.why.append(_said(f"{type_} is false", condition))
    for type_ in (ConditionType.STALLED, ConditionType.DEADLINE_AT_RISK):
        if job.is_true(type_):
            found.why.append(_said(type_, job.condition(type_)))


def _said(what: str, condition: Any) -> str:
    reason, message = clean(condition.get("reason", "")), clean(condition.get("message", ""))
    return f"{what} ({reason}): {message}" if message else f"{what} ({reason})"


def _explain_gang(job: Job, now: datetime, found: Explanation) -> None:
    if (before := job.get("status.predecessor")) is not None:
        stop = before.get("stop") or {}
        found.why.append(
            f"Hand-over: incarnation {before.get('incarnation')} still saves"
            + (f" ({clean(stop.get('message', stop.get('reason', '')))})" if stop else "")
            + ", and its successor is being prepared."
        )
        found.changes.append(Change("the old pod ends, and the new one takes over"))
    if stop := job.get("status.gang.stop"):
        since = parse_time(stop.get("time"))
        found.why.append(
            f"It is being stopped ({clean(stop.get('reason', ''))}"
            + (f", {relative(since, now)}" if since else "")
            + f"): {clean(stop.get('message', ''))}"
        )
        grace = job.get("spec.template.spec.terminationGracePeriodSeconds", 120)
        end = None if since is None else since + timedelta(seconds=grace)
        found.changes.append(
            Change(f"the pod has saved and ended, at the latest after its grace of {grace} s", end)
        )
    for pod in job.get("status.gang.pods", []):
        for mark, word in (("notice", "told to go"), ("hint", "may go")):
            if signal := (pod.get(mark) or {}).get("signal"):
                found.why.append(f"Its node {clean(pod.get('nodeName'))} is {word}: {clean(signal)}")
    if (launch := job.time("status.nextLaunchTime")) is not None and job.get("status.gang") is None:
        found.why.append(f"Back-off after failures: the next launch is {relative(launch, now)}.")
        found.changes.append(Change("the next launch (back-off ends)", launch))
    for place in job.get("status.avoid", []):
        until = parse_time(place.get("until"))
        if until is not None and until > now:
            what = f"{clean(place.get('kind', '')).lower()} {clean(place.get('value', ''))}"
            found.why.append(f"It would rather not run on {what}, where a pod was taken away.")
            found.changes.append(Change(f"{what} is no longer avoided", until))


def _explain_capacity(job: Job, now: datetime, found: Explanation) -> None:
    capacity = job.get("status.capacity")
    if capacity is not None:
        line = f"Capacity {clean(capacity.get('type'))} ({clean(capacity.get('reason', ''))})"
        found.why.append(line + (f": {clean(capacity['message'])}" if capacity.get("message") else ""))
    decides = job.time("status.capacity.nextDecisionTime")
    if decides is not None:
        found.changes.append(Change("the choice between spot and on-demand could change by itself", decides))
    on_spot = job.get("status.capacity.type") == CapacityType.SPOT
    if job.policy == FallbackPolicy.RULES and on_spot:
        _explain_rules(job, now, found)
    if on_spot and job.nodes:
        found.changes.append(
            Change("the spot node is taken away: it saves if there is a notice, and is launched anew")
        )


def _explain_rules(job: Job, now: datetime, found: Explanation) -> None:
    if (limit := job.get("spec.fallback.afterInterruptions.count")) is not None:
        window = job.get("spec.fallback.afterInterruptions.windowSeconds", 3600)
        losses = job.losses_within(window, now)
        more = max(0, limit - len(losses))
        found.changes.append(
            Change(
                f"{more} more interruption{'s' if more != 1 else ''} within {duration(window)}: on-demand "
                f"(afterInterruptions: {len(losses)} of {limit})"
            )
        )
    since = parse_time(job.condition(ConditionType.CAPACITY_AVAILABLE).get("lastTransitionTime"))
    waiting = job.waits_for_a_node
    limit = job.get("spec.fallback.afterPendingSeconds")
    if limit is not None and waiting and since is not None:
        created = job.time("status.gang.createdTime")
        start = since if created is None else max(since, created)
        found.changes.append(
            Change(
                f"on-demand, if no spot node comes within {duration(limit)} (afterPendingSeconds)",
                start + timedelta(seconds=limit),
            )
        )
    elif waiting and limit is None:
        found.changes.append(Change("a spot node becomes available"))


def _explain_deadline(job: Job, now: datetime, found: Explanation) -> None:
    if (deadline := job.deadline) is None:
        return
    action = job.get("spec.deadline.action", "Continue")
    left, slack = (deadline - now).total_seconds(), job.slack_seconds(now)
    if left > 0:
        then = {"Fail": "the job fails", "Suspend": "the job is suspended"}.get(action, "it goes on, late")
        found.changes.append(Change(f"the deadline; if the work is not done, {then}", deadline))
    if slack is not None:
        remaining = job.remaining_seconds(now)
        line = (
            f"{duration(left)} to the deadline, {duration(remaining)} of work left: slack {duration(slack)}"
        )
        found.why.append(line if left > 0 else f"The deadline was {relative(deadline, now)}.")


def _explain_rate(job: Job, found: Explanation) -> None:
    hours = job.get("status.interruptionRate.nodeHoursPerInterruption")
    if hours is None:
        return
    zones = [
        f"{each.get('interruptions', 0)} in {duration(each.get('nodeSeconds', 0.0))}"
        + (f" in {clean(each['zone'])}" if each.get("zone") else "")
        for each in job.get("status.interruptionRate.zones", [])
    ]
    own = f" (this job: {', '.join(zones)})" if zones else ""
    found.why.append(f"One interruption in {duration(hours * 3600)} of a node on spot is expected{own}")


def _explain_launches(job: Job, found: Explanation) -> None:
    for word, key in (("spot", "spot"), ("on-demand", "onDemand")):
        seen = job.get(f"status.overheads.{key}", {})
        if not (count := seen.get("count", 0)):
            continue
        line = f"A launch on {word} took {duration(seen.get('totalSeconds', 0.0) / count)} (mean of {count})"
        phases = job.get(f"status.overheads.{key}Phases", {})
        if counted := phases.get("count", 0):
            parts = (
                ("schedulingSeconds", "until it had a node"),
                ("startingSeconds", "until its container ran"),
                ("restoringSeconds", "until its first step"),
            )
            took = [f"{duration(phases.get(part, 0.0) / counted)} {until}" for part, until in parts]
            line += ": " + ", ".join(took)
        found.why.append(line)


def _explain_cost(job: Job, found: Explanation) -> None:
    cost = job.get("status.cost", {})
    prices = [
        f"{clean(cost[key])} on {word}"
        for key, word in (("spotPrice", "spot"), ("onDemandPrice", "on-demand"))
        if cost.get(key) is not None
    ]
    if prices:
        found.why.append(f"A node-hour costs {', '.join(prices)}")
    if (unpriced := job.unpriced_seconds) > 0:
        time = duration(unpriced)
        found.why.append(f"What it has cost is not known: {time} of node time have no price")
        if not job.is_finished:
            found.options.append(
                "set pricePerNodeHour in spec.capacity.spot and onDemand: it counts for that time, too"
            )
        return
    if (spent := cost.get("spent")) is None:
        return
    line = f"Cost: {clean(spent)} spent"
    if not job.is_finished:
        projected = cost.get("projected")
        line += f", {clean(projected)} projected" if projected is not None else ""
    if (saved := cost.get("saved")) is not None:
        line += f", {clean(saved)} saved against on-demand alone"
    found.why.append(line)


def _offer(job: Job, found: Explanation) -> None:
    name = job.name if job.namespace in ("", "default") else f"{job.name} -n {job.namespace}"
    add = found.options.append
    if job.is_true(ConditionType.COMPLETE):
        return
    if job.is_true(ConditionType.FAILED):
        if last := job.get("status.lastFailure.pod"):
            add(f"kubectl logs {clean(last)} -n {job.namespace}: what the program said last")
        add("mend the cause, delete the job and create it again: it resumes from its last checkpoint")
        return
    if job.is_false(ConditionType.ACCEPTED):
        add("change the field that is named above and apply the manifest again")
        return
    if job.get("spec.suspend"):
        add(f"{WHAT} resume {name}: go on from the last checkpoint")
        return
    if job.get("status.gang") is None and job.get("status.nextLaunchTime"):
        if last := job.get("status.lastFailure.pod"):
            add(f"kubectl logs {clean(last)} -n {job.namespace}: why it failed")
        add(f"{WHAT} suspend {name}: stop trying while you mend it")
    waiting = job.waits_for_a_node
    if waiting and job.get("status.capacity.type") == CapacityType.SPOT:
        if job.policy == FallbackPolicy.SPOT_ONLY:
            add("set spec.fallback.policy to Rules: SpotOnly waits for spot for as long as it takes")
        elif job.get("spec.fallback.afterPendingSeconds") is None:
            add("set spec.fallback.afterPendingSeconds: without it the job waits until another rule fires")
        add("set spec.fallback.policy to OnDemandOnly: start on on-demand now")
    reason, may_return = job.get("status.capacity.reason"), job.get("spec.fallback.returnToSpot") == "Auto"
    if job.policy == FallbackPolicy.RULES and reason in STICKY_REASONS and not may_return:
        add("it stays on on-demand (returnToSpot: Never); set spec.fallback.policy to SpotOnly to go back")
    if job.is_true(ConditionType.DEADLINE_AT_RISK):
        add("a later spec.deadline.finishBy, faster nodes or fewer steps would keep the deadline")
    if job.nodes and job.get("status.gang.stop") is None:
        add(f"{WHAT} checkpoint {name}: save now")
        add(f"{WHAT} suspend {name}: save, stop and hold it")


def as_text(job: Job, now: datetime) -> list[str]:
    found = explain(job, now)
    lines = [found.headline]
    if message := job.get("status.message"):
        lines.append(f"  {clean(message)}")
    lines += _section("Why", found.why)
    lines += _section("What would change it", [_change(change, now) for change in found.changes])
    if conditions := job.get("status.conditions"):
        rows = [
            (
                clean(c.get("type", "")),
                clean(c.get("status", "")),
                clean(c.get("reason", "")),
                "-" if (at := parse_time(c.get("lastTransitionTime"))) is None else relative(at, now),
            )
            for c in conditions
        ]
        lines += _section("Conditions", table(("TYPE", "STATUS", "REASON", "SINCE"), rows))
    if job.restarts:
        rows_of = [_restart(restart, now) for restart in reversed(job.restarts[-MAX_RESTARTS:])]
        header = ("WHEN", "INCARNATION", "ON", "CAUSE", "ROW", "LOST", "EVIDENCE")
        lines += _section("Last endings, newest first", table(header, rows_of))
    if failure := job.get("status.lastFailure"):
        lines += _section("Last failure", [_failure(failure)])
    return lines + _section("What you can do", found.options)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _change(change: Change, now: datetime) -> str:
    if change.time is None:
        return f"at any time: {change.what}"
    return f"{relative(change.time, now)} ({moment(change.time)}): {change.what}"


def _restart(restart: Any, now: datetime) -> tuple[str, ...]:
    at, lost = parse_time(restart.get("time")), restart.get("lostSeconds")
    node = restart.get("nodeName")
    return (
        "-" if at is None else relative(at, now),
        str(restart.get("incarnation", "-")),
        clean(restart.get("capacityType", "-")) + (f" {clean(node)}" if node else ""),
        clean(restart.get("cause", "-")) + (", charged" if restart.get("charged") else ""),
        clean(restart.get("row") or "-"),
        duration(lost),
        clean(restart.get("evidence", "")),
    )


def _failure(failure: Any) -> str:
    code = failure.get("exitCode")
    return (
        f"{clean(failure.get('pod'))}, container {clean(failure.get('container'))}"
        + ("" if code is None else f", exit code {code}")
        + f": {clean(failure.get('reason', ''))} {clean(failure.get('message', ''))}".rstrip()
    )


def as_json(job: Job, now: datetime) -> dict[str, Any]:
    found = explain(job, now)
    return {
        "namespace": job.namespace,
        "name": job.name,
        "phase": job.phase,
        "message": job.get("status.message", ""),
        "why": found.why,
        "changes": [
            {
                "time": None if each.time is None else each.time.isoformat(timespec="seconds"),
                "what": each.what,
            }
            for each in found.changes
        ],
        "options": found.options,
        "conditions": job.get("status.conditions", []),
        "cost": job.get("status.cost"),
        "interruptionRate": job.get("status.interruptionRate"),
        "recentRestarts": job.restarts[-MAX_RESTARTS:],
        "lastFailure": job.get("status.lastFailure"),
    }
