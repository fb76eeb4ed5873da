"""The watch caches wake the right jobs, and a full listing heals what a watch has lost."""

from typing import Any

from spot_operator.cluster import NodeCache, PodBook

KEY = ("team-a", "digits")


def make_node(name: str = "spot-1", uid: str = "uid-1", taint: str = "") -> dict[str, Any]:
    taints = [{"key": taint, "effect": "NoSchedule"}] if taint else []
    return {"metadata": {"name": name, "uid": uid}, "spec": {"taints": taints}, "status": {}}


def make_cache() -> NodeCache:
    cache = NodeCache(lambda: 7.0)
    cache.hear(make_node())
    cache.place(KEY, ["spot-1"])
    return cache


def test_change_of_a_node_wakes_the_jobs_on_it_and_a_heartbeat_does_not() -> None:
    cache = make_cache()
    assert cache.hear(make_node()) == frozenset()
    assert cache.hear(make_node(taint="karpenter.sh/disrupted")) == {KEY}
    assert cache.signal_heard("spot-1") == 7.0
    assert cache.hear(make_node()) == {KEY}
    assert cache.signal_heard("spot-1") is None


def test_late_deletion_of_an_earlier_node_does_not_hide_its_successor() -> None:
    cache = make_cache()
    cache.hear(make_node(uid="uid-2"))
    assert cache.hear(make_node(uid="uid-1"), deleted=True) == {KEY}
    node = cache.get("spot-1")
    assert node is not None
    assert node.uid == "uid-2"


def test_node_that_a_listing_no_longer_has_is_forgotten_and_its_jobs_wake() -> None:
    cache = make_cache()
    assert cache.replace_all([make_node("other")]) == {KEY}
    assert cache.get("spot-1") is None


def test_job_that_left_a_node_is_not_woken_by_it() -> None:
    cache = make_cache()
    cache.place(KEY, [])
    assert cache.hear(make_node(taint="karpenter.sh/disrupted")) == frozenset()


def test_only_the_end_of_a_live_pod_is_news() -> None:
    book = PodBook()
    pod: dict[str, Any] = {
        "metadata": {
            "name": "digits-aaaaa-1-0",
            "namespace": "team-a",
            "uid": "pod",
            "ownerReferences": [{"uid": "job", "name": "digits", "controller": True}],
        },
        "status": {"phase": "Running"},
    }
    assert book.hear(pod) == (KEY, False)
    live = book.get("pod")
    assert live is not None
    assert (live.key, live.job_uid, live.incarnation) == (KEY, "job", 1)
    ended = pod | {"status": {"phase": "Failed"}}
    assert book.hear(ended) == (KEY, True)
    assert book.hear(ended, deleted=True) == (KEY, False)
    assert book.get("pod") is None


def test_pod_without_a_controller_is_nobodys() -> None:
    assert PodBook().hear({"metadata": {"name": "x", "namespace": "n", "uid": "u"}}) == (None, False)
