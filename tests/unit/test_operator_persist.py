"""Which looks write a job's status: none that would only repeat it, and progress at a bounded rate."""

from dataclasses import replace
from typing import Any

import pytest
from scripted_api import KEY, Quiet, begin, settled

from spot_operator import reconcile
from spot_operator.core import Core
from spot_operator.decide import Decision, decide
from spot_operator.pod_book import JobPod
from spot_operator.settings import Settings
from spot_operator.testing import JOB_UID, NOW, POD_UID, seconds
from spot_trainer.contract import ProgressReport

WRITE_SECONDS = Settings(namespace="system").progress_write_seconds


class Looks:
    """Reports of the job's trainer, the looks at them, and what each look wrote."""

    def __init__(self, cluster: Quiet, core: Core) -> None:
        self.cluster, self.core, self.now = cluster, core, 1000.0
        core.reconciler._monotonic = lambda: self.now

    async def look(self, **report: Any) -> tuple[int, float | None]:
        """How many writes, and in how many seconds the next look is asked for."""
        if report:
            found = ProgressReport(incarnation=1, **report)
            received = NOW + seconds(self.now)
            self.core.reports.accept(JobPod(KEY, JOB_UID, 1), POD_UID, found, received)
        self.cluster.calls.clear()
        again = await self.core.reconciler.reconcile(KEY)
        return self.cluster.calls.count("PUT status"), again


async def looks() -> Looks:
    cluster = await settled()
    return Looks(cluster, await begin(cluster))


async def test_progress_is_written_and_what_follows_soon_is_held_back_and_not_forgotten() -> None:
    place = await looks()
    assert (await place.look(step=100))[0] == 1
    place.now += 1
    writes, again = await place.look(step=101)
    assert (writes, again) == (0, WRITE_SECONDS - 1)
    place.now += WRITE_SECONDS - 1
    assert (await place.look())[0] == 1
    assert place.cluster.job["status"]["progress"]["step"] == 101


async def test_what_is_rounded_as_it_is_written_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value of today's needs it; one that did would be written at every look, for ever."""

    def decide_unrounded(*arguments: Any) -> Decision:
        decision = decide(*arguments)
        progress = replace(decision.status.progress, steps_per_second=1.23456)
        return replace(decision, status=replace(decision.status, progress=progress))

    place = await looks()
    monkeypatch.setattr(reconcile, "decide", decide_unrounded)
    assert (await place.look(step=100))[0] == 1
    place.now += 10 * WRITE_SECONDS
    assert (await place.look())[0] == 0
