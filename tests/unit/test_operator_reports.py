"""Progress is merged by lineage: durable work never goes back, identity is the pod's."""

from datetime import UTC, datetime, timedelta

import pytest

from spot_operator.pod_book import JobPod
from spot_operator.reports import ReportBook
from spot_trainer.contract import ProgressReport

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
FIRST = JobPod(("team-a", "digits"), "job", 1)
SECOND = JobPod(("team-a", "digits"), "job", 2)


def accept(book: ReportBook, pod: JobPod, **body: object) -> bool:
    return book.accept(pod, f"pod-{pod.incarnation}", ProgressReport(**body), NOW)


def test_late_report_of_an_earlier_incarnation_proves_only_durable_progress() -> None:
    book = ReportBook()
    accept(book, SECOND, incarnation=2, step=100)
    accept(book, FIRST, incarnation=1, step=500, durable_step=95, checkpoint_name="a", progress_percentage=99)
    report = book.get("job")
    assert report is not None
    assert (report.step, report.percentage, report.incarnation) == (100, None, 2)
    assert (report.durable_step, report.checkpoint_name, report.pod_uid) == (95, "a", "pod-2")


def test_what_is_published_beside_a_named_base_is_not_of_the_lineage() -> None:
    book = ReportBook()
    accept(book, SECOND, incarnation=2, step=100, durable_step=90, checkpoint_name="b")
    assert not accept(book, FIRST, incarnation=1, step=500, durable_step=95, checkpoint_name="a")
    report = book.get("job")
    assert report is not None
    assert (report.step, report.durable_step, report.checkpoint_name) == (100, 90, "b")


def test_a_third_incarnation_has_to_name_its_own_base() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, step=100, durable_step=90, checkpoint_name="a")
    accept(book, SECOND, incarnation=2, step=0)
    accept(book, FIRST, incarnation=1, step=105, durable_step=105, checkpoint_name="last")
    report = book.get("job")
    assert report is not None
    assert (report.durable_step, report.checkpoint_name) == (105, "last")


MEASURED = {
    "steps_per_second": "2.5",
    "checkpoint_bytes": "1000",
    "checkpoint_seconds": "1.25",
    "checkpoint_stall_seconds": "0.0042",
    "restore_seconds": "3.5",
}


def test_what_our_trainer_measured_is_taken_from_its_metrics() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, metrics=MEASURED)
    accept(book, FIRST, progress_percentage=5)  # of a callback beside it
    report = book.get("job")
    assert report is not None
    assert (report.steps_per_second, report.checkpoint_bytes) == (2.5, 1000)
    assert (report.save_seconds, report.stall_seconds, report.restore_seconds) == (1.25, 0.0042, 3.5)


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "1e300", "fast", "٣"])
def test_measure_that_is_no_number_of_seconds_is_none(value: str) -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, metrics=dict.fromkeys(MEASURED, value))
    report = book.get("job")
    assert report is not None
    assert (report.save_seconds, report.checkpoint_bytes) == (None, None)


def test_metrics_of_another_client_are_not_taken_for_our_measures() -> None:
    book = ReportBook()
    accept(book, FIRST, metrics=MEASURED)
    report = book.get("job")
    assert report is not None
    assert (report.steps_per_second, report.save_seconds, report.restore_seconds) == (None, None, None)


def test_durable_progress_survives_a_new_incarnation_that_has_none_yet() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, step=100, durable_step=90, checkpoint_name="a")
    accept(book, SECOND, incarnation=2, step=91)
    report = book.get("job")
    assert report is not None
    assert (report.step, report.durable_step, report.checkpoint_name) == (91, 90, "a")


def test_durable_step_never_goes_back_within_an_incarnation() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, durable_step=90, checkpoint_name="new")
    accept(book, FIRST, incarnation=1, durable_step=50, checkpoint_name="old")
    report = book.get("job")
    assert report is not None
    assert (report.durable_step, report.checkpoint_name) == (90, "new")


def test_claimed_incarnation_is_replaced_by_that_of_the_pod() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=999, step=1)
    report = book.get("job")
    assert report is not None
    assert report.incarnation == 1


def test_plain_kubeflow_body_counts_by_its_metrics_and_does_not_claim() -> None:
    book = ReportBook()
    accept(book, FIRST, progress_percentage=10, metrics={"current_step": "50", "total_steps": "500"})
    report = book.get("job")
    assert report is not None
    assert (report.step, report.total_steps, report.incarnation) == (50, 500, None)


def test_plain_callback_beside_ours_does_not_take_the_claim_away() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, step=40, total_steps=500)
    accept(book, FIRST, progress_percentage=10)
    report = book.get("job")
    assert report is not None
    assert (report.incarnation, report.step, report.total_steps, report.percentage) == (1, 40, 500, 10)


def test_metric_that_is_no_count_is_no_step() -> None:
    book = ReportBook()
    accept(book, FIRST, metrics={"current_step": "1e9", "total_steps": "-4"})
    report = book.get("job")
    assert report is not None
    assert (report.step, report.total_steps) == (None, None)


def test_checkpoint_from_the_future_is_dated_now() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1, durable_step=1, durable_time=NOW + timedelta(days=1))
    report = book.get("job")
    assert report is not None
    assert report.durable_time == NOW


def test_only_news_that_a_decision_needs_is_urgent() -> None:
    book = ReportBook()
    assert accept(book, FIRST, incarnation=1, step=1)
    assert not accept(book, FIRST, incarnation=1, step=2)
    assert accept(book, FIRST, incarnation=1, step=3, durable_step=3)
    assert accept(book, SECOND, incarnation=2, step=3)


def test_forgotten_job_has_no_report() -> None:
    book = ReportBook()
    accept(book, FIRST, incarnation=1)
    book.forget("job")
    assert book.get("job") is None


def test_late_durable_progress_of_a_predecessor_is_news() -> None:
    book = ReportBook()
    later = NOW + timedelta(seconds=5)
    book.accept(JobPod(("team", "digits"), "job", 2), "pod-2", ProgressReport(step=1, incarnation=2), NOW)
    late = ProgressReport(step=90, durable_step=90, checkpoint_name="c", incarnation=1)
    assert book.accept(JobPod(("team", "digits"), "job", 1), "pod-1", late, later)
    report = book.get("job")
    assert report is not None
    assert (report.durable_step, report.step, report.received) == (90, 1, later)
