"""The pod book remembers how a pod looked last, so that its end can be judged when it is gone."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from spot_operator.names import LABEL_JOB_UID
from spot_operator.pod_book import LAST_SEEN_PODS, PodBook
from spot_operator.readings import Reading

KEY = ("team", "digits")
NOTHING = Reading(0)
"""A list while which nothing was heard."""


def make_book() -> PodBook:
    return PodBook(lambda: 7.0)


def pod(uid: str, *, job_uid: str = "job", phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {
            "name": uid,
            "namespace": "team",
            "uid": uid,
            "creationTimestamp": "2026-11-23T12:00:00Z",
            "annotations": {"big": "x"},
            "labels": {LABEL_JOB_UID: job_uid},
            "ownerReferences": [{"name": "digits", "uid": job_uid, "controller": True}],
        },
        "spec": {"nodeName": "spot-a", "containers": [{"name": "trainer", "image": "x"}]},
        "status": {"phase": phase},
    }


def test_only_the_end_of_a_live_pod_is_news() -> None:
    book, name = make_book(), "digits-aaaaa-1-0"
    assert book.hear(pod(name)) == (KEY, False)
    live = book.get(name)
    assert live is not None
    assert (live.key, live.job_uid, live.incarnation) == (KEY, "job", 1)
    assert book.hear(pod(name, phase="Failed")) == (KEY, True)
    assert book.hear(pod(name, phase="Failed"), deleted=True) == (KEY, False)
    assert book.get(name) is None


def test_pod_without_a_controller_is_nobodys() -> None:
    assert make_book().hear({"metadata": {"name": "x", "namespace": "n", "uid": "u"}}) == (None, False)


def test_a_deleted_pod_is_remembered_in_its_last_state() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.hear(pod("a", phase="Succeeded"), deleted=True)
    assert [seen["status"]["phase"] for seen in book.last_seen("job")] == ["Succeeded"]


def test_pods_of_other_jobs_are_not_mixed_in() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.hear(pod("b", job_uid="other"))
    assert [seen["metadata"]["name"] for seen in book.last_seen("other")] == ["b"]


def test_memory_is_bounded() -> None:
    book = make_book()
    for number in range(LAST_SEEN_PODS + 5):
        book.hear(pod(f"pod-{number}"))
    assert len(book.last_seen("job")) == LAST_SEEN_PODS


def test_only_what_a_view_needs_is_kept() -> None:
    book = make_book()
    book.hear(pod("a"))
    (seen,) = book.last_seen("job")
    assert "annotations" not in seen["metadata"]
    assert seen["spec"] == {"nodeName": "spot-a", "containers": [{"name": "trainer"}]}


def version(number: int, **changes: Any) -> dict[str, Any]:
    made = pod("a", **changes)
    made["metadata"]["resourceVersion"] = str(number)
    return made


def test_a_version_that_was_heard_wakes_nobody_again() -> None:
    book = make_book()
    assert book.hear(version(1))[0] == ("team", "digits")
    assert book.hear(version(1))[0] is None
    assert book.hear(version(2))[0] == ("team", "digits")


def test_a_listing_tells_whose_pods_differ_from_what_was_heard() -> None:
    book = make_book()
    book.hear(version(1))
    assert book.replace_all([version(1)], NOTHING) == frozenset()
    assert book.replace_all([version(2)], NOTHING) == {("team", "digits")}
    assert book.replace_all([], NOTHING) == {("team", "digits")}


def test_the_end_of_a_pod_heard_while_a_listing_was_under_way_is_not_taken_back() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as reading:
        book.hear(pod("a", phase="Succeeded"), deleted=True)
    book.replace_all([pod("a")], reading)
    assert [seen["status"]["phase"] for seen in book.last_seen("job")] == ["Succeeded"]
    assert book.get("a") is None


def test_a_pod_that_was_born_while_a_listing_was_under_way_stays() -> None:
    book = make_book()
    with book.readings.open() as reading:
        book.hear(pod("b"))
    book.replace_all([], reading)
    assert book.get("b") is not None


def test_what_a_look_has_read_since_a_listing_was_asked_for_is_newer_than_it() -> None:
    book = make_book()
    for uid in ("a", "b"):
        book.hear(pod(uid))
    with book.readings.open() as listing:
        with book.readings.open() as look:
            pass
        book.take_list("job", [pod("a", phase="Failed")], look)
    book.replace_all([pod("a"), pod("b")], listing)
    assert [seen["status"]["phase"] for seen in book.present("job")] == ["Failed"]


def test_what_a_look_asked_for_after_a_listing_stands_against_it_whichever_is_answered_first() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as listing, book.readings.open() as look:
        book.replace_all([pod("a")], listing)
    book.take_list("job", [], look)
    assert book.present("job") == ()


def test_a_listing_does_not_bring_back_a_pod_that_a_deletion_did_not_find_meanwhile() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as listing:
        book.note_absent("a")
    book.replace_all([pod("a")], listing)
    assert book.present("job") == ()


def test_what_a_look_asked_for_before_a_listing_is_not_newer_than_it() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as look, book.readings.open() as listing:
        book.take_list("job", [pod("a")], look)
    assert book.replace_all([], listing) == {("team", "digits")}
    assert book.present("job") == ()


def test_only_what_was_heard_while_a_list_was_read_is_newer_than_it() -> None:
    book = make_book()
    with book.readings.open() as earlier:
        pass
    book.hear(pod("a"))
    with book.readings.open() as first:
        with contextlib.suppress(TimeoutError), book.readings.open() as second:
            book.hear(pod("b"))
            raise TimeoutError
        book.hear(pod("c"))
    assert (earlier.newer, first.newer, second.newer) == (set(), {"b", "c"}, {"b"})


def test_a_pod_that_changes_its_owner_is_forgotten_with_the_others() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.hear(pod("a", job_uid="another"))
    for number in range(LAST_SEEN_PODS):
        book.hear(pod(str(number), job_uid="of-these"))
    assert (book.present("job"), book.present("another")) == ((), ())


def test_what_a_look_has_read_is_gone_by_until_more_is_heard() -> None:
    book = make_book()
    for uid in ("a", "b", "c"):
        book.hear(pod(uid))
    with book.readings.open() as reading:
        book.hear(pod("b"))
        book.hear(pod("c", phase="Failed"))
    book.take_list("job", [pod("c"), pod("d")], reading)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"b": "Running", "c": "Failed"}
    assert [seen["metadata"]["name"] for seen in book.last_seen("job")] == ["a", "b", "c"]


def test_what_a_look_has_read_is_newer_than_what_was_heard_before() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.take_list("job", [pod("a", phase="Failed"), pod("d")], NOTHING)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"a": "Failed"}


def test_an_end_that_a_look_has_read_is_news_when_the_watch_tells_of_it() -> None:
    """The look may have failed."""
    book = make_book()
    book.hear(version(1))
    book.take_list("job", [version(2, phase="Failed")], NOTHING)
    assert book.hear(version(2, phase="Failed")) == (("team", "digits"), True)
    assert book.hear(version(2, phase="Failed")) == (None, False)


def test_the_end_of_a_pod_that_a_deletion_did_not_find_is_news_when_the_watch_tells_of_it() -> None:
    book = make_book()
    book.hear(version(1))
    book.note_absent("a")
    assert book.hear(version(2), deleted=True) == (("team", "digits"), True)


def test_a_list_says_nothing_of_the_pods_of_others() -> None:
    book = make_book()
    book.hear(pod("a", job_uid="other"))
    book.take_list("job", [], NOTHING)
    assert len(book.present("other")) == 1


def test_a_pod_that_lost_its_label_since_is_not_taken_from_an_older_list() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as reading:
        book.hear(pod("a", job_uid="job") | {"metadata": pod("a")["metadata"] | {"labels": {}}})
    book.take_list("job", [pod("a")], reading)
    assert book.present("job") == ()


def test_a_pod_that_the_api_server_does_not_have_is_not_there() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.note_absent("a")
    book.note_absent("never-heard-of")
    assert (book.present("job"), len(book.last_seen("job"))) == ((), 1)


def goes(uid: str) -> dict[str, Any]:
    made = pod(uid)
    made["metadata"] |= {"deletionTimestamp": "2026-11-23T12:02:00Z", "deletionGracePeriodSeconds": 0}
    return made


def without_label(uid: str) -> dict[str, Any]:
    made = pod(uid)
    made["metadata"]["labels"] = {}
    return made


@pytest.mark.parametrize(
    ("learn", "is_end"),
    [
        (lambda book: book.hear(pod("a", phase="Failed")), True),
        (lambda book: book.hear(goes("a"), deleted=True), True),
        (lambda book: book.replace_all([pod("a", phase="Failed")], NOTHING), True),
        (lambda book: book.take_list("job", [pod("a", phase="Failed")], NOTHING), True),
        (lambda book: book.note_absent("a"), True),
        # These may have lost their label, and run on.
        (lambda book: book.hear(pod("a"), deleted=True), False),
        (lambda book: book.hear(without_label("a")), False),
        (lambda book: book.replace_all([], NOTHING), False),
        (lambda book: book.take_list("job", [], NOTHING), False),
    ],
)
def test_since_when_a_pod_is_known_to_have_ended_is_when_that_was_first_learned(
    learn: Callable[[PodBook], object], is_end: bool
) -> None:
    now = 7.0
    book = PodBook(lambda: now)
    book.hear(pod("a"))
    assert book.ended("a") is None
    learn(book)
    assert book.ended("a") == (7.0 if is_end else None)
    now = 9.0
    book.hear(goes("a"), deleted=True)
    assert book.ended("a") == (7.0 if is_end else 9.0)
