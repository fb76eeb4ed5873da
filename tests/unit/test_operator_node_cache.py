"""The cache of nodes wakes the right jobs, and a full listing heals what a watch has lost."""

from typing import Any

from spot_operator.node_cache import JOURNAL_SECONDS, NodeCache
from spot_operator.readings import Reading

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


def test_a_job_is_losing_its_node_while_that_says_so_and_when_it_is_not_there() -> None:
    cache = make_cache()
    assert not cache.is_losing(KEY)
    assert not cache.is_losing(("team-b", "on-no-node"))
    cache.hear(make_node(taint="karpenter.sh/disrupted"))
    assert cache.is_losing(KEY)
    cache.hear(make_node())
    assert not cache.is_losing(KEY)
    cache.hear(make_node(), deleted=True)
    assert cache.is_losing(KEY)


def test_late_deletion_of_an_earlier_node_does_not_hide_its_successor() -> None:
    cache = make_cache()
    cache.hear(make_node(uid="uid-2"))
    assert cache.hear(make_node(uid="uid-1"), deleted=True) == {KEY}
    node = cache.get("spot-1")
    assert node is not None
    assert node.uid == "uid-2"


def test_node_that_a_listing_no_longer_has_is_forgotten_and_its_jobs_wake() -> None:
    cache = make_cache()
    assert cache.replace_all([make_node("other")], Reading(0)) == {KEY}
    assert cache.get("spot-1") is None


def test_job_that_left_a_node_is_not_woken_by_it() -> None:
    cache = make_cache()
    cache.place(KEY, [])
    assert cache.hear(make_node(taint="karpenter.sh/disrupted")) == frozenset()


def test_the_journal_keeps_how_a_node_looked_last_and_since_when_it_said_so() -> None:
    now = 7.0
    cache = NodeCache(lambda: now)
    cache.hear(make_node())
    now = 20.0
    cache.hear(make_node(taint="karpenter.sh/disrupted"))
    now = 50.0
    cache.hear(make_node(taint="karpenter.sh/disrupted"), deleted=True)
    gone = cache.gone("uid-1")
    assert gone is not None
    assert ([t.key for t in gone.view.taints], gone.signal_heard) == (["karpenter.sh/disrupted"], 20.0)


def test_the_last_word_of_a_node_may_be_its_first_signal() -> None:
    cache = make_cache()
    cache.hear(make_node(taint="karpenter.sh/disrupted"), deleted=True)
    gone = cache.gone("uid-1")
    assert gone is not None
    assert gone.signal_heard == 7.0


def test_a_node_that_came_back_under_its_name_or_vanished_from_a_listing_is_in_the_journal() -> None:
    cache = make_cache()
    cache.hear(make_node(taint="karpenter.sh/disrupted"))
    cache.hear(make_node(uid="uid-2"))
    gone = cache.gone("uid-1")
    assert gone is not None
    assert gone.signal_heard == 7.0
    assert cache.signal_heard("spot-1") is None
    cache.replace_all([], Reading(0))
    assert cache.gone("uid-2") is not None


def test_the_journal_forgets_after_a_quarter_of_an_hour() -> None:
    now = 0.0
    cache = NodeCache(lambda: now)
    for uid, gone_at in (("a", 0.0), ("b", 600.0), ("c", 901.0)):
        now = gone_at
        cache.hear(make_node(uid=uid))
        cache.hear(make_node(uid=uid), deleted=True)
    assert [cache.gone(uid) is not None for uid in "abc"] == [False, True, True]
    now = 1501.0
    assert [cache.gone(uid) is not None for uid in "abc"] == [False, False, True]


def test_the_journal_does_not_grow_while_one_node_goes_again_and_again() -> None:
    now = 0.0
    cache = NodeCache(lambda: now)
    for number in range(100):
        now = 60.0 * number
        for uid in ("always", f"once-{number}"):
            cache.hear(make_node(uid=uid))
            cache.hear(make_node(uid=uid), deleted=True)
    assert len(cache._gone) <= 2 + JOURNAL_SECONDS / 60
    assert cache.gone("always") is not None


def test_what_was_heard_while_a_listing_was_under_way_is_newer_than_it() -> None:
    cache = make_cache()
    cache.hear(make_node("spot-2", "uid-2"))
    with cache.readings.open() as reading:
        cache.hear(make_node(taint="karpenter.sh/disrupted"))
        cache.hear(make_node("spot-2", "uid-2"), deleted=True)
        cache.hear(make_node("spot-3", "uid-3"))
    assert cache.replace_all([make_node(), make_node("spot-2", "uid-2")], reading) == frozenset()
    assert cache.signal_heard("spot-1") == 7.0
    assert cache.get("spot-2") is None
    assert cache.get("spot-3") is not None
    assert cache.replace_all([make_node()], Reading(0)) == {KEY}


def test_a_machine_that_took_a_name_while_a_listing_was_under_way_is_not_replaced_by_the_one_before() -> None:
    """Where a gap has swallowed that one's deletion."""
    cache = make_cache()
    with cache.readings.open() as reading:
        cache.hear(make_node(uid="uid-2"))
    assert cache.replace_all([make_node(uid="uid-1")], reading) == frozenset()
    node = cache.get("spot-1")
    assert node is not None
    assert node.uid == "uid-2"
    assert cache.gone("uid-2") is None
