"""Progress that is no longer told is shown as what it was, and since when.

Invariant: silence means something only of a pod that runs, of a job whose containers have
reported before (a plain container never does), and while this process has been listening.
"""

from datetime import datetime, timedelta
from typing import Final

from spot_operator.decide.auto import working_gang
from spot_operator.decide.conditions import is_true
from spot_operator.decide.draft import Draft
from spot_operator.decide.fates import Fate
from spot_operator.names import ConditionType, Reason

STALE_AFTER: Final = timedelta(seconds=120)
"""Our trainer reports every 10 s, Hugging Face at the end of a step but not more than every 5 s."""


def assess_reports(draft: Draft) -> Draft:
    progress = draft.status.progress
    was_stale = is_true(draft.status, ConditionType.PROGRESS_STALE)
    running_since = _running_since(draft)
    reported = progress.reported_time
    if progress.step is None and progress.percentage is None:
        reported = None
    if running_since is None or reported is None:
        return _clear(draft, Reason.NOT_RUNNING, "no pod is running") if was_stale else draft
    listening_since = draft.observation.reports_since or running_since
    stale_at = max(running_since, reported, listening_since) + STALE_AFTER
    if draft.now < stale_at:
        draft = draft.look_at(stale_at)
        # A pod that runs again has not said anything by that.
        if not was_stale or reported < running_since or draft.now >= reported + STALE_AFTER:
            return draft
        return _clear(draft, Reason.REPORTING, "the pod reports")
    return draft.note(
        ConditionType.PROGRESS_STALE,
        True,
        Reason.NO_REPORTS,
        f"the pod runs and has not reported since {reported:%Y-%m-%dT%H:%M:%SZ}; progress is as of then",
    )


def _clear(draft: Draft, reason: Reason, message: str) -> Draft:
    return draft.note(ConditionType.PROGRESS_STALE, False, reason, message)


def _running_since(draft: Draft) -> datetime | None:
    gang = working_gang(draft.status)
    if gang is None or gang.stop is not None:
        return None
    since = [
        fate.pod.trainer.running_since
        for fate in draft.fates(gang)
        if fate.fate is Fate.ALIVE and fate.pod is not None and fate.pod.trainer.running_since is not None
    ]
    return max(since, default=None)
