"""Specs as they were parsed: a job's changes seldom, and a rush of looks would check each of them anew.

Invariant: what is handed out is what parsing would give now; the API server numbers a spec's changes.
"""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from spot_operator.api.effective import parse_spec
from spot_operator.model import InvalidSpec, JobSpec

Json = Mapping[str, Any]

MAX_PARSED: Final = 4096
"""Some 20 kB each; one that is dropped is parsed again."""


class ParsedSpecs:
    def __init__(self) -> None:
        self._parsed: OrderedDict[tuple[str, int], JobSpec | InvalidSpec] = OrderedDict()
        """By UID and generation."""

    def get(self, job: Json, created: datetime) -> JobSpec | InvalidSpec:
        """The job's effective spec, or why it has none."""
        metadata = job["metadata"]
        known_as = (metadata["uid"], metadata.get("generation", 0))
        if known_as not in self._parsed:
            self._parsed[known_as] = parse_spec(
                job.get("spec") or {},
                namespace=metadata["namespace"],
                name=metadata["name"],
                created=created,
            )
        self._parsed.move_to_end(known_as)
        while len(self._parsed) > MAX_PARSED:
            self._parsed.popitem(last=False)
        return self._parsed[known_as]
