"""The pod book remembers how a pod looked last, so that its end can be judged when it is gone."""

from typing import Any

from spot_operator.cluster import LAST_SEEN_PODS, PodBook
from spot_operator.names import LABEL_JOB_UID


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
    book = PodBook()
    book.hear(pod("a"))
    book.hear(pod("a", phase="Succeeded"), deleted=True)
    assert [seen["status"]["phase"] for seen in book.last_seen("job")] == ["Succeeded"]


def test_pods_of_other_jobs_are_not_mixed_in() -> None:
    book = PodBook()
    book.hear(pod("a"))
    book.hear(pod("b", job_uid="other"))
    assert [seen["metadata"]["name"] for seen in book.last_seen("other")] == ["b"]


def test_memory_is_bounded() -> None:
    book = PodBook()
    for number in range(LAST_SEEN_PODS + 5):
        book.hear(pod(f"pod-{number}"))
    assert len(book.last_seen("job")) == LAST_SEEN_PODS


def test_only_what_a_view_needs_is_kept() -> None:
    book = PodBook()
    book.hear(pod("a"))
    (seen,) = book.last_seen("job")
    assert "annotations" not in seen["metadata"]
    assert seen["spec"] == {"nodeName": "spot-a", "containers": [{"name": "trainer"}]}


def version(number: int, **changes: Any) -> dict[str, Any]:
    made = pod("a", **changes)
    made["metadata"]["resourceVersion"] = str(number)
    return made


def test_a_version_that_was_heard_wakes_nobody_again() -> None:
    book = PodBook()
    assert book.hear(version(1))[0] == ("team", "digits")
    assert book.hear(version(1))[0] is None
    assert book.hear(version(2))[0] == ("team", "digits")


def test_a_listing_tells_whose_pods_differ_from_what_was_heard() -> None:
    book = PodBook()
    book.hear(version(1))
    assert book.replace_all([version(1)]) == frozenset()
    assert book.replace_all([version(2)]) == {("team", "digits")}
    assert book.replace_all([]) == {("team", "digits")}


def test_the_end_of_a_pod_heard_while_a_listing_was_under_way_is_not_taken_back() -> None:
    book = PodBook()
    book.hear(pod("a"))
    book.begin_listing()
    book.hear(pod("a", phase="Succeeded"), deleted=True)
    book.replace_all([pod("a")])
    assert [seen["status"]["phase"] for seen in book.last_seen("job")] == ["Succeeded"]
    assert book.get("a") is None


def test_a_pod_that_was_born_while_a_listing_was_under_way_stays() -> None:
    book = PodBook()
    book.begin_listing()
    book.hear(pod("b"))
    book.replace_all([])
    assert book.get("b") is not None


def test_a_pod_that_changes_its_owner_is_forgotten_with_the_others() -> None:
    book = PodBook()
    book.hear(pod("a"))
    book.hear(pod("a", job_uid="another"))
    for number in range(LAST_SEEN_PODS):
        book.hear(pod(str(number), job_uid="of-these"))
    assert (book.present("job"), book.present("another")) == ((), ())


def test_what_a_look_has_read_is_gone_by_until_more_is_heard() -> None:
    book = PodBook()
    for uid in ("a", "b", "c"):
        book.hear(pod(uid))
    since = book.num_heard
    book.hear(pod("b"))
    book.hear(pod("c", phase="Failed"))
    book.take_list("job", [pod("c"), pod("d")], since=since)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"b": "Running", "c": "Failed"}
    assert (book.get("a"), book.get("c")) == (None, None)
    assert [seen["metadata"]["name"] for seen in book.last_seen("job")] == ["a", "b", "c"]


def test_what_a_look_has_read_is_newer_than_what_was_heard_before() -> None:
    book = PodBook()
    book.hear(pod("a"))
    book.take_list("job", [pod("a", phase="Failed"), pod("d")], since=book.num_heard)
    phases = {seen["metadata"]["name"]: seen["status"]["phase"] for seen in book.present("job")}
    assert phases == {"a": "Failed"}
    assert book.get("a") is None


def test_a_list_says_nothing_of_the_pods_of_others() -> None:
    book = PodBook()
    book.hear(pod("a", job_uid="other"))
    book.take_list("job", [], since=book.num_heard)
    assert len(book.present("other")) == 1


def test_a_pod_that_lost_its_label_since_is_not_taken_from_an_older_list() -> None:
    book = PodBook()
    book.hear(pod("a"))
    since = book.num_heard
    book.hear(pod("a", job_uid="job") | {"metadata": pod("a")["metadata"] | {"labels": {}}})
    book.take_list("job", [pod("a")], since=since)
    assert book.present("job") == ()


def test_a_pod_that_the_api_server_does_not_have_is_not_there() -> None:
    book = PodBook()
    book.hear(pod("a"))
    book.note_absent("a")
    book.note_absent("never-heard-of")
    assert (book.present("job"), book.get("a"), len(book.last_seen("job"))) == ((), None, 1)
