"""Builders of observations for tests: small, typed, with one working job as the default.

Shipped with the package so that every test, and every user who writes one, builds the same
snapshot and changes only what the test is about.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from spot_operator.model import (
    CapacityStatus,
    CheckpointSpec,
    ContainerTermination,
    ContainerView,
    Gang,
    JobSpec,
    JobStatus,
    NodeCondition,
    NodeView,
    Observation,
    PodCondition,
    PodRecord,
    PodView,
    Pool,
    S3Location,
    Taint,
)
from spot_operator.names import CapacityType, Reason
from spot_trainer.contract import CheckpointRef, Outcome, OutcomeKind

NOW: Final = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
JOB_UID: Final = "0c5e1fd2-6f0b-4b0e-9f4e-0d5b2f0c0a11"
POD_UID: Final = "pod-uid-1"
NODE_UID: Final = "node-uid-a"


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


A_SECOND_AGO: Final = NOW - seconds(1)


def make_spec(**changes: Any) -> JobSpec:
    spec = JobSpec(
        suspend=False,
        trainer_container="trainer",
        template={"spec": {"containers": [{"name": "trainer", "image": "example.com/train:1"}]}},
        template_fingerprint="0123456789abcdef",
        grace_seconds=120,
        spot_notice_seconds=100,
        spot=Pool(node_selector={"karpenter.sh/capacity-type": "spot"}, price_per_node_hour=Decimal("0.97")),
        on_demand=Pool(
            node_selector={"karpenter.sh/capacity-type": "on-demand"}, price_per_node_hour=Decimal("3.06")
        ),
        checkpoint=CheckpointSpec(location=S3Location(bucket="runs", prefix="digits"), run_id="team/digits"),
    )
    return replace(spec, **changes)


def make_pod(**changes: Any) -> PodView:
    """A running pod of incarnation 1 on node spot-a."""
    pod = PodView(
        name="digits-0c5e1-1-0",
        uid=POD_UID,
        incarnation=1,
        rank=0,
        created=NOW - seconds(100),
        phase="Running",
        node_name="spot-a",
        conditions=(
            PodCondition(type="PodScheduled", status="True", last_transition_time=NOW - seconds(99)),
        ),
        trainer=ContainerView(running_since=NOW - seconds(95)),
        started_any_container=True,
    )
    return replace(pod, **changes)


def make_ended_pod(
    exit_code: int,
    *,
    outcome: Outcome | None = None,
    reason: str = "",
    finished_at: datetime | None = A_SECOND_AGO,
    **changes: Any,
) -> PodView:
    termination = ContainerTermination(
        exit_code=exit_code,
        reason=reason or ("Completed" if exit_code == 0 else "Error"),
        message=outcome.to_json() if outcome is not None else "",
        finished_at=finished_at,
    )
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return make_pod(**{"phase": phase, "trainer": ContainerView(terminated=termination), **changes})


def make_outcome(
    kind: OutcomeKind, reason: str, *, step: int = 100, checkpoint: int | None = None
) -> Outcome:
    reference = (
        CheckpointRef(name=f"attempt-{checkpoint}", step=checkpoint) if checkpoint is not None else None
    )
    return Outcome(kind=kind, reason=reason, incarnation=1, step=step, checkpoint=reference)


def make_node(
    name: str = "spot-a", *, ready: str = "True", taints: tuple[Taint, ...] = (), **changes: Any
) -> NodeView:
    node = NodeView(
        name=name,
        uid=NODE_UID,
        boot_id="boot-1",
        zone="zone-a",
        taints=taints,
        conditions=(NodeCondition(type="Ready", status=ready),),
    )
    return replace(node, **changes)


def make_gang(capacity_type: CapacityType = CapacityType.SPOT, **changes: Any) -> Gang:
    record = PodRecord(
        name="digits-0c5e1-1-0",
        rank=0,
        uid=POD_UID,
        node_name="spot-a",
        node_uid=NODE_UID,
        boot_id="boot-1",
        zone="zone-a",
        scheduled_time=NOW - seconds(99),
        started_time=NOW - seconds(95),
    )
    gang = Gang(
        incarnation=1,
        capacity_type=capacity_type,
        created_time=NOW - seconds(100),
        pods=(record,),
        accounted_until=NOW,
    )
    return replace(gang, **changes)


def make_status(**changes: Any) -> JobStatus:
    """A job whose first incarnation runs on spot."""
    status = JobStatus(
        observed_generation=1,
        incarnation=1,
        start_time=NOW - seconds(100),
        claims=True,
        gang=make_gang(),
        capacity=CapacityStatus(
            type=CapacityType.SPOT,
            since=NOW - seconds(100),
            reason=Reason.SPOT_FIRST,
            message="no fallback rule has fired",
        ),
    )
    return replace(status, **changes)


def make_observation(**changes: Any) -> Observation:
    """A job that runs on spot-a and about which there is nothing to do."""
    observation = Observation(
        namespace="team",
        name="digits",
        uid=JOB_UID,
        generation=1,
        created=NOW - seconds(200),
        spec=make_spec(),
        status=make_status(),
        pods=(make_pod(),),
        nodes={"spot-a": make_node()},
    )
    return replace(observation, **changes)
