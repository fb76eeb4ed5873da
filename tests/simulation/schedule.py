"""What goes wrong in a run: a list of disturbances, drawn from a seed, shrunk by leaving some out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LAST_DISTURBANCE_SECONDS = 420.0


FALLBACKS: tuple[dict[str, Any] | None, ...] = (
    None,
    None,
    {"policy": "SpotOnly"},
    {"policy": "Auto"},
    {"policy": "Auto", "returnToSpot": "Never"},
    {"policy": "Rules", "afterInterruptions": {"count": 2, "windowSeconds": 3600}},
    {"policy": "Rules", "afterPendingSeconds": 60},
)


class Kind(StrEnum):
    RECLAIM_KARPENTER = "reclaim: taint, node deletionTimestamp, drain blocked"
    RECLAIM_NTH = "reclaim: spot taint, cordon, eviction"
    RECLAIM_SHUTDOWN = "reclaim: the node shuts down gracefully"
    POWER_OFF = "power off without notice"
    PARTITION = "network partition"
    WITHDRAWN = "a stop taint that is withdrawn"
    CORDON = "cordon"
    REBOOT = "the machine reboots: its containers are lost, its pods are still bound to it"
    PREEMPTION = "the scheduler makes room for a higher priority"
    PRESSURE = "the kubelet evicts under memory pressure"
    ADMISSION = "kubelets refuse pods"
    NODE_REUSED = "the node comes back with another UID"
    EVICT = "eviction by somebody"
    USER_DELETES_POD = "somebody deletes the pod"
    CRASH = "the program crashes"
    CRASH_LOOP = "the program has a bug: it crashes soon after each of its next starts"
    OUT_OF_MEMORY_LOOP = "the program needs more memory than it has, at each of its next starts"
    SEVERED = "a partition, and the Node object is deleted while the machine goes on"
    NODE_READS_FAIL = "nodes cannot be read"
    OUT_OF_MEMORY = "the program runs out of memory"
    STALE_CONDITION = "an eviction is announced on the pod and does not come"
    FORCE_DELETE = "somebody deletes the pod by force"
    STOP_LOOP = "the program stops itself with 75 soon after each of its next starts"
    COPIED_LABELS = "somebody makes a pod of their own with the labels of one of the job's"
    POD_READS_FAIL = "pods cannot be listed"
    WRITES_REFUSED = "the API server refuses writes of pods: too many requests"
    OPERATOR_STALLS = "the leader's calls hang"
    SUSPEND = "suspend, and resume later"
    DELETE_JOB = "the job is deleted"
    DELETE_JOB_IN_FOREGROUND = "the job is deleted, and stays until its pods are gone"
    OPERATOR_DIES_NOW = "the operator dies"
    OPERATOR_DIES_AT_CALL = "the operator dies around one of its next calls"
    API_DOWN = "the API server is away"
    LOST_ANSWERS = "answers of writes get lost"
    WATCH_BREAKS = "watches break and come back"
    SLOW_WATCHES = "watches are slow"
    DROUGHT = "no spot capacity"
    QUOTA = "pods are refused by a quota"


WEIGHTS = {
    Kind.DELETE_JOB: 0.2,
    Kind.DELETE_JOB_IN_FOREGROUND: 0.3,
    Kind.OPERATOR_DIES_AT_CALL: 3.0,
    Kind.RECLAIM_NTH: 2.0,
    Kind.RECLAIM_KARPENTER: 1.5,
    Kind.PARTITION: 1.5,
    Kind.CRASH: 1.5,
}


WATCHED = ("nodes", "nodes", "pods", "spottrainingjobs")
LAG_PROBABILITY = 0.2


SILENCING = {
    Kind.OPERATOR_DIES_NOW,
    Kind.OPERATOR_DIES_AT_CALL,
    Kind.OPERATOR_STALLS,
    Kind.API_DOWN,
    Kind.POD_READS_FAIL,
    Kind.SUSPEND,
}
"""While one of these lasts the operator may be unable to say what it should; a suspension is the user's."""


@dataclass(frozen=True)
class Disturbance:
    at: float
    kind: Kind
    job: int
    """Which job it hits, where it hits one."""
    number: int
    """Seconds, or a count of calls, whatever the kind needs."""
    where: str = ""
    """Of a death at a call: `before` or `after` the server has done it; else as the number has it."""

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  job {self.job}  {self.kind} ({self.number})"


@dataclass(frozen=True)
class Job:
    steps: int
    save_seconds: float
    """Between two checkpoints."""
    cost_seconds: float
    """What a checkpoint takes at most."""
    is_plain: bool
    fallback: dict[str, Any] | None
    backoff_limit: int
    window_seconds: int
    """Of the failure policy."""
    deadline_seconds: int | None
    """After creation; far enough away, or not."""
    has_volume: bool
    """Checkpoints go to a volume claim instead of S3."""
    fails_on_sigterm_code: bool
    """failurePolicy.rules: FailJob at exit code 143, which a program that dies of SIGTERM has."""
    at_sigterm: str
    """What a plain program does: `dies`, `goes on`, or `exits with 0` although it is not done."""


@dataclass(frozen=True)
class Schedule:
    seed: int
    jobs: tuple[Job, ...]
    disturbances: tuple[Disturbance, ...]
    num_operators: int
    num_spot_nodes: int
    skew_seconds: tuple[float, ...]
    lagging: str = ""
    """The kind, in plural, whose watches are slow all the time while the others are not."""

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.num_operators} operators, clocks off by {self.skew_seconds} s, "
            f"{self.num_spot_nodes} spot nodes"
        ]
        lines += [f"  the watches of {self.lagging} are slow all the time"] if self.lagging else []
        lines += [f"  job {n}: {job}" for n, job in enumerate(self.jobs)]
        return "\n".join(lines + [f"  {each}" for each in self.disturbances])


def draw(seed: int) -> Schedule:
    rng = random.Random(seed)
    jobs = tuple(
        Job(
            steps=rng.randint(40, 260),
            save_seconds=rng.choice([10.0, 20.0, 45.0]),
            cost_seconds=rng.choice([1.5, 1.5, 6.0, 18.0]),
            is_plain=rng.random() < 0.35,
            fallback=rng.choice(FALLBACKS),
            backoff_limit=rng.choice([1, 2, 6]),
            window_seconds=rng.choice([3600, 3600, 60]),
            deadline_seconds=rng.choice([None, None, 400, 600, 1500]),
            has_volume=rng.random() < 0.2,
            fails_on_sigterm_code=rng.random() < 0.2,
            at_sigterm=rng.choice(["dies", "goes on", "exits with 0"]),
        )
        for _ in range(rng.choice([1, 1, 2]))
    )
    kinds = list(Kind)
    weights = [WEIGHTS.get(kind, 1.0) for kind in kinds]
    # Trouble seldom comes alone: half of the schedules have theirs within a short time.
    begin, end = 0.0, LAST_DISTURBANCE_SECONDS * rng.choice([0.3, 1.0])
    if rng.random() < 0.5:
        begin = rng.uniform(20.0, LAST_DISTURBANCE_SECONDS / 2)
        end = begin + rng.choice([5.0, 30.0, 90.0])
    disturbances = sorted(
        (
            Disturbance(
                at=round(rng.uniform(begin, end), 1),
                kind=rng.choices(kinds, weights)[0],
                job=rng.randrange(len(jobs)),
                number=rng.choice([1, 2, 3, 5, 8, 13, 30, 60, 100, 250]),
            )
            for _ in range(rng.choice([1, 2, 3, 5, 8, 12]))
        ),
        key=lambda each: each.at,
    )
    num_operators = rng.choice([1, 1, 2])
    skew = tuple(
        round(rng.uniform(-2.0, 2.0), 2) if rng.random() < 0.3 else 0.0 for _ in range(num_operators)
    )
    num_spot_nodes = rng.choice([1, 1, 2, 3])
    # By dice of its own: all else about a seed stays as it is.
    lags = random.Random(f"{seed} lags")
    lagging = lags.choice(WATCHED) if lags.random() < LAG_PROBABILITY else ""
    return Schedule(seed, jobs, tuple(disturbances), num_operators, num_spot_nodes, skew, lagging)


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The same failure with as few disturbances, operators and jobs as leaving out can reach."""
    changed = True
    while changed:
        changed = False
        for number in range(len(schedule.disturbances)):
            left = schedule.disturbances[:number] + schedule.disturbances[number + 1 :]
            smaller = _with(schedule, disturbances=left)
            if fails(smaller):
                schedule, changed = smaller, True
                break
        if schedule.num_operators > 1:
            smaller = _with(schedule, num_operators=1)
            if fails(smaller):
                schedule, changed = smaller, True
        if schedule.lagging and fails(smaller := _with(schedule, lagging="")):
            schedule, changed = smaller, True
    return schedule


def _with(schedule: Schedule, **changes: Any) -> Schedule:
    return Schedule(**(vars(schedule) | changes))
