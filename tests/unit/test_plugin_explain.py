"""What `status` and `explain` print for jobs in all their situations."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spot_plugin import explain, status
from spot_plugin.job import Job

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def condition(type_: str, value: str, reason: str, message: str = "", since: float = -60) -> dict[str, Any]:
    return {
        "type": type_, "status": value, "reason": reason, "message": message, "lastTransitionTime": at(since)
    }  # fmt: skip


def job(spec: dict[str, Any] | None = None, **status_: Any) -> Job:
    body = {"metadata": {"name": "digits", "namespace": "team-a"}, "spec": spec or {}, "status": status_}
    return Job(body)


RUNNING = job(
    {
        "deadline": {"finishBy": at(36000), "action": "Fail"},
        "fallback": {"afterInterruptions": {"count": 3, "windowSeconds": 7200}},
    },
    phase="Running",
    message="on node-a (spot), step 400/1000, safe up to 380",
    capacity={
        "type": "spot", "since": at(-7200), "reason": "SpotFirst", "message": "no fallback rule has fired",
        "nextDecisionTime": at(29000),
    },
    deadline=at(36000),
    gang={"incarnation": 2, "pods": [{"name": "digits-2", "nodeName": "node-a"}]},
    progress={
        "percentage": 40, "step": 400, "totalSteps": 1000, "durableStep": 380, "stepsPerSecond": 0.1,
        "reportedTime": at(-10),
    },
    restarts={"interruptions": 2, "failures": 1},
    recentRestarts=[
        {
            "time": at(-9000), "incarnation": 1, "capacityType": "spot", "cause": "Interruption", "row": "5",
            "evidence": "taint a on a spot node", "lostSeconds": 75.0, "nodeName": "node-b",
        },
        {
            "time": at(-3600), "incarnation": 2, "capacityType": "spot", "cause": "NodeLost", "row": "8",
            "evidence": "its node is gone", "charged": False,
        },
    ],
    conditions=[condition("Accepted", "True", "Accepted"), condition("PodsReady", "True", "AllPodsReady")],
    cost={
        "spotNodeSeconds": 15000.0, "spent": "4.1200", "onDemandOnly": "12.7500", "saved": "8.6300",
        "projected": "5.9000", "spotPrice": "0.97", "onDemandPrice": "3.06",
    },
    overheads={
        "spot": {"count": 4, "totalSeconds": 840.0, "shortestSeconds": 180.0, "longestSeconds": 240.0},
        "onDemand": {"count": 1, "totalSeconds": 300.0, "shortestSeconds": 300.0, "longestSeconds": 300.0},
        "spotPhases": {
            "count": 2, "schedulingSeconds": 120.0, "startingSeconds": 240.0, "restoringSeconds": 60.0,
        },
        "onDemandPhases": {"count": 0},
    },
    interruptionRate={
        "nodeHoursPerInterruption": 2.48,
        "zones": [
            {"zone": "zone-a", "interruptions": 2, "nodeSeconds": 12600.0}, {"nodeSeconds": 2400.0},
        ],
    },
)  # fmt: skip


def test_status_is_one_line_for_each_job() -> None:
    new = Job({"metadata": {"name": "new", "namespace": "team-b"}, "spec": {}})
    assert status.as_table([RUNNING, new], NOW, with_namespace=True) == [
        "NAMESPACE  NAME    PHASE    CAPACITY  PROGRESS      STEP  SAFE    ETA  DEADLINE  SLACK  "
        "INTERRUPTED  FAILED    COST  PROJECTED",
        "team-a     digits  Running  spot           40%  400/1000   380  1h40m       10h  8h20m  "
        "          2       1  4.1200     5.9000",
        "team-b     new     New      -                -         -     -      -         -      -  "
        "          0       0       -          -",
    ]
    assert status.as_table([], NOW) == ["No jobs here."]


def test_status_as_json_has_what_was_derived() -> None:
    found = status.as_json(RUNNING, NOW)
    assert (found["remainingSeconds"], found["slackSeconds"]) == (5990, 30010)
    assert found["estimatedFinishTime"] == "2026-11-25T13:39:50+00:00"
    for told in (found, explain.as_json(RUNNING, NOW)):
        assert (told["cost"]["projected"], told["interruptionRate"]["nodeHoursPerInterruption"]) == (
            "5.9000",
            2.48,
        )


def test_a_running_job_is_explained() -> None:
    assert (
        explain.as_text(RUNNING, NOW)
        == """\
team-a/digits: Running, spot since 2026-11-25 10:00:00Z (2h ago)
  on node-a (spot), step 400/1000, safe up to 380

Why
  Capacity spot (SpotFirst): no fallback rule has fired
  10h to the deadline, 1h40m of work left: slack 8h20m
  One interruption in 2h29m of a node on spot is expected (this job: 2 in 3h30m in zone-a, 0 in 40m)
  A launch on spot took 3m30s (mean of 4): 1m until it had a node, 2m until its container ran, 30s until \
its first step
  A launch on on-demand took 5m (mean of 1)
  A node-hour costs 0.97 on spot, 3.06 on on-demand
  Cost: 4.1200 spent, 5.9000 projected, 8.6300 saved against on-demand alone

What would change it
  in 8h3m (2026-11-25 20:03:20Z): the choice between spot and on-demand could change by itself
  in 10h (2026-11-25 22:00:00Z): the deadline; if the work is not done, the job fails
  at any time: 2 more interruptions within 2h: on-demand (afterInterruptions: 1 of 3)
  at any time: the spot node is taken away: it saves if there is a notice, and is launched anew

Conditions
  TYPE       STATUS  REASON        SINCE
  Accepted   True    Accepted      1m ago
  PodsReady  True    AllPodsReady  1m ago

Last endings, newest first
  WHEN       INCARNATION  ON           CAUSE         ROW  LOST   EVIDENCE
  1h ago     2            spot         NodeLost      8    -      its node is gone
  2h30m ago  1            spot node-b  Interruption  5    1m15s  taint a on a spot node

What you can do
  kubectl spottraining checkpoint digits -n team-a: save now
  kubectl spottraining suspend digits -n team-a: save, stop and hold it""".splitlines()
    )


def said(found: Job) -> str:
    return "\n".join(explain.as_text(found, NOW))


@pytest.mark.parametrize(
    ("cost", "lines"),
    [
        ({"spent": "1.0000"}, ["Cost: 1.0000 spent"]),
        (
            {"spent": "1.0000", "onDemandPrice": "3.06"},
            ["A node-hour costs 3.06 on on-demand", "Cost: 1.0000 spent"],
        ),
        ({"spent": "1.0000", "projected": "2.0000"}, ["Cost: 1.0000 spent, 2.0000 projected"]),
        ({}, []),
    ],
)
def test_of_the_cost_is_said_what_is_known(cost: dict[str, str], lines: list[str]) -> None:
    found = explain.explain(job(phase="Running", cost=cost), NOW)
    assert [each for each in found.why if "ost" in each] == lines


def test_time_without_a_price_is_said_and_what_would_help() -> None:
    cost = {"unpricedSpotNodeSeconds": 3600.0, "unpricedOnDemandNodeSeconds": 1800.0, "onDemandPrice": "3.06"}
    found = explain.explain(job(phase="Running", cost=cost), NOW)
    assert found.why == [
        "A node-hour costs 3.06 on on-demand",
        "What it has cost is not known: 1h30m of node time have no price",
    ]
    assert any("pricePerNodeHour" in option for option in found.options)
    ended = job(phase="Complete", cost=cost, conditions=[condition("Complete", "True", "Completed")])
    assert explain.explain(ended, NOW).options == []


def test_what_a_run_has_cost_is_told_when_it_is_over() -> None:
    ended = job(
        phase="Complete",
        cost={"spent": "1.0000", "projected": "1.0000", "saved": "2.0000"},
        conditions=[condition("Complete", "True", "Completed", "completed after 1 incarnations")],
    )
    assert explain.explain(ended, NOW).why[-1] == "Cost: 1.0000 spent, 2.0000 saved against on-demand alone"


def test_a_job_that_waits_for_spot_says_until_when() -> None:
    text = said(
        job(
            {"fallback": {"afterPendingSeconds": 900}},
            phase="Pending",
            capacity={"type": "spot", "reason": "SpotFirst"},
            gang={"createdTime": at(-400), "pods": [{"name": "digits-1"}]},
            conditions=[
                condition("PodsReady", "False", "Unschedulable", "0/3 nodes fit", since=-300),
                condition("CapacityAvailable", "False", "Unschedulable", "0/3 nodes fit", since=-300),
                condition("CheckpointReady", "False", "NoCheckpointYet", "no checkpoint is published yet"),
            ],
        )
    )
    assert "CapacityAvailable is false (Unschedulable): 0/3 nodes fit" in text
    assert text.count("0/3 nodes fit") == 1
    assert "no checkpoint is published yet" not in text
    assert "in 10m (2026-11-25 12:10:00Z): on-demand, if no spot node comes within 15m" in text
    assert "set spec.fallback.policy to OnDemandOnly: start on on-demand now" in text


def test_a_job_that_would_wait_for_ever_says_so() -> None:
    waiting: dict[str, Any] = {
        "phase": "Pending",
        "capacity": {"type": "spot", "reason": "SpotFirst"},
        "gang": {"pods": [{"name": "digits-1"}]},
        "conditions": [condition("CapacityAvailable", "False", "Unschedulable")],
    }
    assert "set spec.fallback.afterPendingSeconds: without it" in said(job(**waiting))
    assert "SpotOnly waits for spot" in said(job({"fallback": {"policy": "SpotOnly"}}, **waiting))


def test_back_off_stop_and_hand_over_are_explained_with_their_ends() -> None:
    text = said(
        job(
            phase="Waiting",
            nextLaunchTime=at(40),
            lastFailure={
                "pod": "digits-3", "container": "trainer", "exitCode": 1, "reason": "Error", "message": "boom"
            },
        )
    )  # fmt: skip
    assert "in 40s (2026-11-25 12:00:40Z): the next launch (back-off ends)" in text
    assert "digits-3, container trainer, exit code 1: Error boom" in text
    assert "kubectl logs digits-3 -n team-a: why it failed" in text
    text = said(
        job(
            {"template": {"spec": {"terminationGracePeriodSeconds": 60}}},
            phase="Stopping",
            gang={"stop": {"reason": "NodeSignal", "time": at(-20), "message": "taint x"}, "pods": []},
            predecessor={"incarnation": 4, "stop": {"message": "taint y"}},
        )
    )
    assert "It is being stopped (NodeSignal, 20s ago): taint x" in text
    assert "in 40s (2026-11-25 12:00:40Z): the pod has saved and ended" in text
    assert "Hand-over: incarnation 4 still saves (taint y)" in text


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            Job({"metadata": {"name": "digits", "namespace": "team-a"}, "spec": {}}),
            ["No operator has looked at it yet", "see whether the operator runs"],
        ),
        (
            Job({"metadata": {"name": "d"}, "spec": {"managedBy": "example.com/other"}}),
            ["spec.managedBy is example.com/other"],
        ),
        (
            job(conditions=[condition("Accepted", "False", "InvalidSpec", "spec.checkpoint: name a place")]),
            ["Not accepted (InvalidSpec): spec.checkpoint: name a place", "change the field"],
        ),
        (
            job(conditions=[condition("Failed", "True", "BackoffLimitExceeded", "7 failures")]),
            ["Failed (BackoffLimitExceeded): 7 failures", "create it again"],
        ),
        (job(conditions=[condition("Complete", "True", "Completed", "steps")]), ["Complete (Completed)"]),
        (
            job({"suspend": True}, conditions=[condition("Suspended", "True", "Suspended", "held")]),
            ["Suspended (Suspended): held", "resume digits -n team-a"],
        ),
        (
            job(capacity={"type": "on-demand", "reason": "DeadlineNear", "message": "600 s to the deadline"}),
            ["Capacity on-demand (DeadlineNear): 600 s to the deadline", "it stays on on-demand"],
        ),
    ],
)  # fmt: skip
def test_every_situation_has_its_reason_and_its_remedy(found: Job, words: list[str]) -> None:
    text = said(found)
    for word in words:
        assert word in text
    assert explain.as_json(found, NOW)["why"]


def test_nothing_that_a_pod_wrote_steers_the_terminal() -> None:
    text = said(
        job(
            phase="Pend\x1b[1ming",
            message="\x1b[2J",
            conditions=[condition("PodsReady", "False", "Bad\x07", "x\x1b]0;t\x07")],
            lastFailure={"pod": "p", "container": "c", "reason": "r", "message": "\x1b[31mred"},
        )
    )
    assert text.isprintable() or not [c for c in text if not c.isprintable() and c != "\n"]
