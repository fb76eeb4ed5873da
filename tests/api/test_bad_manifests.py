"""A mistake is refused at `kubectl apply`, with the field and what to do about it."""

import json
from typing import Any

import pytest
from manifests import BAD, BASE, merge

pytestmark = pytest.mark.api


@pytest.mark.parametrize("entry", BAD, ids=lambda entry: entry["case"])
def test_refused_with_exactly_this_message(api_server: Any, entry: dict[str, Any]) -> None:
    manifest = json.dumps(merge(BASE, entry["change"]))
    result = api_server.run("apply", "--dry-run=server", "-f", "-", input=manifest)
    assert "\n".join(line.rstrip() for line in result.stderr.strip().splitlines()) == entry["kubectl"]
    assert result.returncode == 1


def test_the_manifest_that_they_all_stem_from_is_good(api_server: Any) -> None:
    printed = api_server.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(BASE))
    assert printed == "spottrainingjob.spottraining.io/digits created (server dry run)\n"
