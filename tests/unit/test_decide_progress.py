"""What other clients say of progress, what is made of it, and what is said when nothing is told."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from spot_operator.decide import decide
from spot_operator.decide.progress import (
    BY_DURABLE_STEPS,
    BY_EXPECTED_DURATION,
    BY_PERCENTAGE,
    BY_REPORTED_STEPS,
    UNKNOWN_WORK,
    merge_report,
    remaining_work,
)
from spot_operator.model import (
    CheckpointSpec,
    CheckpointStatus,
    Condition,
    ContainerView,
    DeadlineSpec,
    JobSpec,
    JobStatus,
    Observation,
    PolicySettings,
    Progress,
    Report,
    S3Location,
)
from spot_operator.names import ConditionType, Phase
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_observation,
    make_pod,
    make_spec,
    make_status,
    seconds,
)

SETTINGS = PolicySettings()


def told(at: float, launch: int = 1, **changes: Any) -> Report:
    """A report of a client that speaks the plain protocol."""
    return Report(pod_uid=POD_UID, received=NOW + seconds(at), launch=launch, **changes)


def after(*reports: Report) -> Progress:
    progress = Progress()
    for report in reports:
        progress = merge_report(progress, report)
    return progress


# ---------------------------------------------------------------- Hugging Face transformers


HALF = (
    told(0, percentage=0, total_steps=100),
    told(10, percentage=20, step=20, total_steps=100, estimated_remaining_seconds=40),
    told(20, percentage=50, step=50, total_steps=100, estimated_remaining_seconds=20),
)


def test_steps_and_rate_come_from_successive_reports() -> None:
    progress = after(*HALF)
    assert (progress.percentage, progress.step, progress.total_steps) == (50, 50, 100)
    assert progress.steps_per_second == 3.0
    assert progress.estimated_completion_time == NOW + seconds(36)  # 50 steps at 3 a second, rounded down


def test_zero_percent_at_the_start_of_a_resumed_run_lowers_nothing() -> None:
    progress = after(*HALF, told(60, launch=2, percentage=0, total_steps=100))
    assert (progress.percentage, progress.step) == (50, 50)
    assert progress.reported_time == NOW + seconds(60)


def test_a_run_that_begins_again_says_so_with_its_first_step() -> None:
    resumed = after(*HALF, told(60, 2, percentage=0, total_steps=100), told(65, 2, step=41, total_steps=100))
    assert (resumed.percentage, resumed.step) == (41, 41)
    anew = after(*HALF, told(60, 2, percentage=0, total_steps=100), told(65, 2, step=1, total_steps=100))
    assert (anew.percentage, anew.step) == (1, 1)


def test_time_between_two_pods_is_no_part_of_the_rate() -> None:
    progress = after(
        *HALF, told(600, 2, percentage=0, total_steps=100), told(605, 2, step=51, total_steps=100)
    )
    assert progress.steps_per_second == 3.0
    assert merge_report(progress, told(615, 2, step=81, total_steps=100)).steps_per_second == 3.0


def test_remaining_time_of_a_resumed_process_is_not_believed() -> None:
    """It took 5 s for steps 90 and 91, and says that a hundredth of that is left."""
    progress = after(told(0, 2, step=91, total_steps=1000, estimated_remaining_seconds=50))
    assert progress.estimated_completion_time is None
    ours = told(0, 2, step=91, total_steps=1000, estimated_remaining_seconds=50, incarnation=2)
    assert after(ours).estimated_completion_time == NOW + seconds(50)


def test_client_without_steps_is_taken_at_its_word_for_the_time_left() -> None:
    progress = after(told(0, percentage=10, estimated_remaining_seconds=50))
    assert progress.estimated_completion_time == NOW + seconds(50)


def test_hundred_percent_of_a_run_that_was_stopped_early_is_less() -> None:
    last = told(25, percentage=100, step=50, total_steps=100, estimated_remaining_seconds=0)
    progress = after(*HALF, last)
    assert progress.percentage == 50
    assert progress.steps_per_second == 3.0
    assert progress.estimated_completion_time == NOW + seconds(25 + 16)


def test_hundred_percent_completes_nothing() -> None:
    observation = make_observation(report=told(1, percentage=100), pods=(make_pod(),))
    status = decide(observation, NOW + seconds(1), SETTINGS).status
    assert status.phase is Phase.RUNNING
    assert status.progress.percentage == 100


def test_slow_steps_are_measured_from_one_to_the_next() -> None:
    progress = after(*(told(at, step=at // 60, total_steps=100) for at in range(0, 601, 10)))
    assert progress.steps_per_second == round(1 / 60, 3)
    assert progress.step_time == NOW + seconds(600)


def test_plain_client_that_ended_between_two_reports_is_done_if_its_exit_code_says_so() -> None:
    """Its last step is up to 5 s old, and its 100 % names none."""
    progress = after(*HALF, told(25, percentage=100, step=50, total_steps=100))
    status = make_status(claims=False, gang=make_gang(), progress=progress)
    observation = make_observation(status=status, pods=(make_ended_pod(0),))
    held = decide(observation, NOW + seconds(30), SETTINGS).status
    ended = decide(replace(observation, status=held), NOW + seconds(41), SETTINGS).status
    assert ended.phase is Phase.COMPLETE


def test_late_report_of_an_earlier_pod_changes_no_step() -> None:
    progress = after(
        told(0, 2, step=41, total_steps=100), told(5, 1, percentage=100, step=60, total_steps=100)
    )
    assert progress.step == 41


def test_rate_that_our_trainer_measured_goes_before_the_operators() -> None:
    progress = after(
        told(0, step=10, total_steps=100), told(10, step=20, total_steps=100, steps_per_second=4.0)
    )
    assert progress.steps_per_second == 4.0


@pytest.mark.parametrize(("claims", "lost"), [(True, 50), (False, None)])
def test_what_a_restart_costs_a_client_that_tells_of_no_checkpoint_is_unknown(
    claims: bool, lost: int | None
) -> None:
    status = make_status(claims=claims, gang=make_gang(), progress=after(*HALF))
    observation = make_observation(status=status, pods=(make_ended_pod(1),))
    (restart,) = decide(observation, NOW + seconds(30), SETTINGS).status.recent_restarts
    assert restart.lost_steps == lost


# ---------------------------------------------------------------- the work that is left


def job(interval: int = 100, expected: int | None = 1000) -> JobSpec:
    location = S3Location(bucket="b", prefix="p")
    return make_spec(
        checkpoint=CheckpointSpec(location=location, run_id="r", interval_seconds=interval),
        deadline=DeadlineSpec(finish_by=NOW + timedelta(hours=9), expected_duration_seconds=expected),
    )


PLAIN = {"claims": False}


@pytest.mark.parametrize(
    ("status", "spec", "left", "basis"),
    [
        ({}, job(), 1000, BY_EXPECTED_DURATION),
        (PLAIN, job(expected=None), None, UNKNOWN_WORK),
        (PLAIN | {"progress": Progress(percentage=50)}, job(), 600, BY_PERCENTAGE),
        (PLAIN | {"progress": Progress(percentage=5)}, job(), 1000, BY_PERCENTAGE),
        (PLAIN | {"progress": Progress(percentage=100)}, job(), 100, BY_PERCENTAGE),
        (PLAIN | {"progress": Progress(percentage=50)}, job(expected=None), None, UNKNOWN_WORK),
        (
            PLAIN | {"progress": Progress(percentage=50, step=500, total_steps=1000, steps_per_second=2.0)},
            job(),
            350,
            BY_REPORTED_STEPS,
        ),
        (
            {"progress": Progress(percentage=50, step=500, total_steps=1000, steps_per_second=2.0)},
            job(),
            500,
            BY_DURABLE_STEPS,
        ),
        (
            {"progress": Progress(step=500, durable_step=400, total_steps=1000, steps_per_second=2.0)},
            job(),
            300,
            BY_DURABLE_STEPS,
        ),
        ({"progress": Progress(total_steps=1000, durable_step=400)}, job(), 600, BY_DURABLE_STEPS),
        ({"progress": Progress(percentage=50, total_steps=1000)}, job(), 1000, BY_EXPECTED_DURATION),
    ],
    ids=[
        "no report",
        "no report, no expectation",
        "percentage less one interval",
        "percentage of less than one interval",
        "all of it less one interval",
        "percentage of an unknown duration",
        "steps less one interval",
        "our trainer without a checkpoint",
        "our trainer with one",
        "durable steps without a rate",
        "our trainer without a checkpoint or a rate",
    ],
)
def test_work_left_and_what_it_is_known_from(
    status: dict[str, Any], spec: JobSpec, left: float | None, basis: str
) -> None:
    work = remaining_work(make_status(**status), spec)
    assert (work.seconds, work.basis) == (left, basis)


def message_of(observation: Observation, at: datetime = NOW) -> str:
    conditions = decide(observation, at, SETTINGS).status.conditions
    return next(c.message for c in conditions if c.type is ConditionType.DEADLINE_AT_RISK)


def test_condition_says_what_the_work_is_known_from_and_says_it_anew_when_that_changes() -> None:
    observation = make_observation(spec=job(), status=make_status(claims=False))
    assert message_of(observation).startswith("by the expected duration alone: work left 1000 s, reserve ")
    status = decide(observation, NOW, SETTINGS).status
    later = replace(observation, status=replace(status, progress=Progress(percentage=50)))
    assert message_of(later).startswith(
        "by the reported percentage less one checkpoint interval: work left 600 s"
    )
    status = decide(later, NOW, SETTINGS).status
    still = replace(observation, status=replace(status, progress=Progress(percentage=70)))
    assert message_of(still) == message_of(later)  # numbers alone do not change it


# ---------------------------------------------------------------- what saving and restoring take


def test_checkpoint_shows_what_the_trainer_measured_of_it() -> None:
    first = told(1, incarnation=1, durable_step=10, checkpoint_name="a", save_seconds=2.0, checkpoint_bytes=9)
    second = told(9, incarnation=1, durable_step=20, checkpoint_name="b", save_seconds=3.0, stall_seconds=0.1)
    status = decide(make_observation(report=first), NOW + seconds(1), SETTINGS).status
    assert status.checkpoint is not None
    assert (status.checkpoint.name, status.checkpoint.save_seconds, status.checkpoint.size_bytes) == (
        "a",
        2,
        9,
    )
    status = decide(make_observation(status=status, report=second), NOW + seconds(9), SETTINGS).status
    assert status.checkpoint == CheckpointStatus(
        name="b",
        step=20,
        time=NOW + seconds(9),
        location=status.checkpoint.location if status.checkpoint else "",
        size_bytes=9,
        save_seconds=3.0,
        stall_seconds=0.1,
    )


# ---------------------------------------------------------------- silence


def running(progress: Progress, **changes: Any) -> Observation:
    pod = make_pod(trainer=ContainerView(running_since=NOW))
    return make_observation(pods=(pod,), status=make_status(gang=make_gang(), progress=progress), **changes)


def stale_condition(status: JobStatus) -> Condition | None:
    return next((c for c in status.conditions if c.type is ConditionType.PROGRESS_STALE), None)


REPORTED = Progress(step=40, total_steps=100, percentage=40, incarnation=1, reported_time=NOW + seconds(10))


def test_progress_of_a_pod_that_fell_silent_is_shown_as_stale() -> None:
    observation = running(REPORTED)
    before = decide(observation, NOW + seconds(129), SETTINGS)
    assert stale_condition(before.status) is None
    assert before.next_look is not None
    assert before.next_look <= seconds(1)
    after_it = decide(observation, NOW + seconds(131), SETTINGS).status
    found = stale_condition(after_it)
    assert found is not None
    assert (found.status, found.reason) == (True, "NoReports")
    assert after_it.message.endswith("step 40/100, no report since 12:00:10Z")


def test_silence_changes_the_status_once() -> None:
    status = decide(running(REPORTED), NOW + seconds(131), SETTINGS).status
    again = decide(replace(running(REPORTED), status=status), NOW + seconds(9999), SETTINGS).status
    assert (again.conditions, again.message, again.progress) == (
        status.conditions,
        status.message,
        status.progress,
    )


def test_next_report_ends_it() -> None:
    status = decide(running(REPORTED), NOW + seconds(131), SETTINGS).status
    observation = replace(running(REPORTED), status=status, report=told(200, step=41, total_steps=100))
    status = decide(observation, NOW + seconds(200), SETTINGS).status
    found = stale_condition(status)
    assert found is not None
    assert (found.status, found.reason) == (False, "Reporting")
    assert "no report" not in status.message


def test_plain_container_that_never_reports_is_not_silent() -> None:
    decision = decide(running(Progress()), NOW + timedelta(days=1), SETTINGS)
    assert stale_condition(decision.status) is None
    moved = decide(running(Progress(reported_time=NOW)), NOW + timedelta(days=1), SETTINGS)
    assert stale_condition(moved.status) is None


def test_silence_counts_from_when_there_was_somebody_to_speak_or_to_listen() -> None:
    long_ago = replace(REPORTED, reported_time=NOW - timedelta(hours=1))
    assert stale_condition(decide(running(long_ago), NOW + seconds(119), SETTINGS).status) is None
    assert stale_condition(decide(running(long_ago), NOW + seconds(121), SETTINGS).status) is not None
    restarted = running(long_ago, reports_since=NOW + seconds(100))
    assert stale_condition(decide(restarted, NOW + seconds(219), SETTINGS).status) is None
    assert stale_condition(decide(restarted, NOW + seconds(221), SETTINGS).status) is not None


def test_job_without_a_running_pod_is_not_silent_but_waiting() -> None:
    status = decide(running(REPORTED), NOW + seconds(131), SETTINGS).status
    pending = replace(running(REPORTED), status=status, pods=(make_pod(trainer=ContainerView()),))
    found = stale_condition(decide(pending, NOW + seconds(140), SETTINGS).status)
    assert found is not None
    assert (found.status, found.reason) == (False, "NotRunning")
