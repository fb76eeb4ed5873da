"""What the process sets up before it serves."""

import gc
import json
from collections.abc import Iterator

import pytest

from spot_operator.__main__ import collect_garbage_less_often


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_listing_is_parsed_without_being_looked_through_for_garbage_again_and_again() -> None:
    listing = json.dumps([{"metadata": {"labels": {"a": "b"}}, "status": {"pods": [{}]}}] * 20_000)

    def collections() -> int:
        before = sum(generation["collections"] for generation in gc.get_stats())
        json.loads(listing)
        return sum(generation["collections"] for generation in gc.get_stats()) - before

    gc.set_threshold(700, 10, 10)
    usual = collections()
    collect_garbage_less_often()
    assert collections() < usual / 10
