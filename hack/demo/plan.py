"""What the demo is going to do, in numbers and in words. Pure."""

from dataclasses import dataclass
from pathlib import Path

from demo.manifests import JobPlan

NAMESPACE = "demo"
REFERENCE, MAIN, DEADLINE = "digits-reference", "digits", "digits-deadline"
SPOT_NODES = ("spot-a", "spot-b")
ON_DEMAND_NODE = "ondemand-a"

EPOCHS = 9
STEPS_PER_EPOCH = 29
"""1797 images in batches of 64, the last one smaller."""
STEP_SECONDS = 0.35
INTERVAL_SECONDS = 5
EXPOSED_STEPS = 5
"""The hard kill comes this many steps after a checkpoint, or it would cost nothing."""

DEADLINE_EPOCHS = 3
DEADLINE_STEP_SECONDS = 0.3
DEADLINE_SECONDS = 90
"""Of the second run, counted from its creation; its work takes about 30 s."""
DEADLINE_RESERVE_SECONDS = 35

WARM_GOAL_SECONDS = 8 * 60
COLD_GOAL_SECONDS = 35 * 60


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    volume: bool = False
    keep: bool = False
    plain: bool = False
    out: Path = Path("demo-out")
    name: str = "demo"
    """Of the cluster; two demos of different names do not disturb each other."""


@dataclass(frozen=True)
class Act:
    """When each scene of the main job begins: the share of the steps that are done by then."""

    reclaim: float = 0.12
    hard_kill: float = 0.28
    crash: float = 0.44
    suspend: float = 0.58
    last_reclaim: float = 0.72

    def step(self, share: float) -> int:
        return int(share * EPOCHS * STEPS_PER_EPOCH)


ACT = Act()


def reference_job(options: Options) -> JobPlan:
    """The same training, never interrupted: on-demand, at full speed."""
    return JobPlan(
        name=REFERENCE,
        epochs=EPOCHS,
        volume=options.volume,
        interval_seconds=INTERVAL_SECONDS,
        fallback={"policy": "OnDemandOnly"},
    )


def main_job(options: Options) -> JobPlan:
    return JobPlan(
        name=MAIN,
        epochs=EPOCHS,
        step_seconds=STEP_SECONDS,
        volume=options.volume,
        interval_seconds=INTERVAL_SECONDS,
        fallback={"policy": "Rules", "afterInterruptions": {"count": 3, "windowSeconds": 3600}},
    )


def deadline_job(options: Options) -> JobPlan:
    return JobPlan(
        name=DEADLINE,
        epochs=DEADLINE_EPOCHS,
        step_seconds=DEADLINE_STEP_SECONDS,
        volume=options.volume,
        interval_seconds=INTERVAL_SECONDS,
        fallback={"policy": "Rules", "beforeDeadlineSeconds": DEADLINE_RESERVE_SECONDS},
        deadline={"secondsAfterCreation": DEADLINE_SECONDS, "expectedDurationSeconds": 35},
    )


def describe(options: Options) -> str:
    """What is about to happen, before anything does."""
    place = "a persistent volume" if options.volume else "S3"
    steps = EPOCHS * STEPS_PER_EPOCH
    return f"""\
What is going to happen, on this machine, touching nothing outside {options.out}/ and the cache:

  1. A real Kubernetes cluster starts: two spot nodes, one on-demand node, an S3 server; the operator is
     installed with Helm. The first time everything is downloaded and compiled (10 to 30 minutes), later
     it takes about half a minute.
  2. A small PyTorch model learns handwritten digits twice, {steps} steps each, with checkpoints on {place}:
     once undisturbed on on-demand, and once on spot nodes that are taken away:
     a reclaim with notice, a power cut, a crash, a suspension, another reclaim; after the third
     interruption the operator moves the run to on-demand (about 4 minutes).
  3. A second job loses all spot capacity; the operator moves it to on-demand because its deadline
     comes near (about 1 minute).
  4. The interrupted run is compared with the undisturbed one, bit for bit; then a summary, and everything
     is taken down. Ctrl-C does that at any time.
"""
