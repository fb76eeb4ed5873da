"""The pod book remembers how a pod looked last, so that its end can be judged when it is gone."""

from collections.abc import Callable
from typing import Any

import pytest

from spot_operator.cluster import LAST_SEEN_PODS, PodBook
from spot_operator.names import LABEL_JOB_UID

NOTHING: frozenset[str] = frozenset()


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
    with book.readings.open() as newer:
        book.hear(pod("a", phase="Succeeded"), deleted=True)
    book.replace_all([pod("a")], newer)
    assert [seen["status"]["phase"] for seen in book.last_seen("job")] == ["Succeeded"]
    assert book.get("a") is None


def test_a_pod_that_was_born_while_a_listing_was_under_way_stays() -> None:
    book = make_book()
    with book.readings.open() as newer:
        book.hear(pod("b"))
    book.replace_all([], newer)
    assert book.get("b") is not None


def test_what_a_look_has_read_while_a_listing_was_under_way_is_newer_than_it() -> None:
    book = make_book()
    for uid in ("a", "b", "c"):
        book.hear(pod(uid))
    with book.readings.open() as newer:
        book.take_list("job", [pod("a", phase="Failed"), pod("c")], NOTHING)
        book.note_absent("c")
    book.replace_all([pod("a"), pod("b"), pod("c")], newer)
    assert [seen["metadata"]["name"] for seen in book.present("job")] == ["a"]
    assert [book.get(uid) for uid in "abc"] == [None] * 3


def test_what_was_heard_before_a_list_was_asked_for_is_no_newer_than_it() -> None:
    book = make_book()
    with book.readings.open() as earlier, book.readings.open() as newer:
        pass
    book.hear(pod("a"))
    assert (set(earlier), set(newer)) == (set(), set())
    with book.readings.open() as first:
        with book.readings.open() as second:
            book.hear(pod("b"))
        book.hear(pod("c"))
    assert (set(first), set(second)) == ({"b", "c"}, {"b"})


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
    with book.readings.open() as newer:
        book.hear(pod("b"))
        book.hear(pod("c", phase="Failed"))
    book.take_list("job", [pod("c"), pod("d")], newer)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"b": "Running", "c": "Failed"}
    assert (book.get("a"), book.get("c")) == (None, None)
    assert [seen["metadata"]["name"] for seen in book.last_seen("job")] == ["a", "b", "c"]


def test_what_a_look_has_read_is_newer_than_what_was_heard_before() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.take_list("job", [pod("a", phase="Failed"), pod("d")], NOTHING)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"a": "Failed"}
    assert book.get("a") is None


def test_a_list_says_nothing_of_the_pods_of_others() -> None:
    book = make_book()
    book.hear(pod("a", job_uid="other"))
    book.take_list("job", [], NOTHING)
    assert len(book.present("other")) == 1


def test_a_pod_that_lost_its_label_since_is_not_taken_from_an_older_list() -> None:
    book = make_book()
    book.hear(pod("a"))
    with book.readings.open() as newer:
        book.hear(pod("a", job_uid="job") | {"metadata": pod("a")["metadata"] | {"labels": {}}})
    book.take_list("job", [pod("a")], newer)
    assert book.present("job") == ()


def test_a_pod_that_the_api_server_does_not_have_is_not_there() -> None:
    book = make_book()
    book.hear(pod("a"))
    book.note_absent("a")
    book.note_absent("never-heard-of")
    assert (book.present("job"), book.get("a"), len(book.last_seen("job"))) == ((), None, 1)


def is_heard_to_end(book: PodBook) -> None:
    book.hear(pod("a", phase="Failed"))


def is_listed_as_ended(book: PodBook) -> None:
    book.replace_all([pod("a", phase="Failed")], NOTHING)


def is_not_listed(book: PodBook) -> None:
    book.replace_all([], NOTHING)


def is_read_to_have_ended(book: PodBook) -> None:
    book.take_list("job", [pod("a", phase="Failed")], NOTHING)


def is_not_read(book: PodBook) -> None:
    book.take_list("job", [], NOTHING)


@pytest.mark.parametrize(
    "end", [is_heard_to_end, is_listed_as_ended, is_not_listed, is_read_to_have_ended, is_not_read]
)
def test_since_when_a_replacement_is_due_is_known_however_the_end_was_learned(
    end: Callable[[PodBook], None],
) -> None:
    now, key = 7.0, ("team", "digits")
    book = PodBook(lambda: now)
    book.hear(pod("a"))
    assert book.end_heard(key) is None
    end(book)
    now = 9.0
    book.hear(pod("a", phase="Failed"), deleted=True)
    assert book.end_heard(key) == 7.0
    book.forget_end(key)
    assert book.end_heard(key) is None
