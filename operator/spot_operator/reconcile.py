"""The page to read first: one look at one job.

    observe   the job and its pods, as they are known or as they are read; nodes; the newest report
    decide    pure: what should be, and what to do for it
    persist   the intent, in one status write guarded by the resourceVersion that was observed
    act       create and delete pods; then tell: events, metrics

A look goes by what the last listing, the last write and the watches said, as far as that is enough
(`_is_enough`): its write fails where the job has changed. It reads before it stops a pod, and
where something is missing.

Invariants: nothing is done that is not in status first, so that a crash between any two
calls, or another process that took over, finds in status what it has to know; a conflict
changes nothing and means another look; a look may be repeated at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from spot_operator import metrics
from spot_operator.act import Actor, Results
from spot_operator.changes import Change, compare
from spot_operator.complaints import Complaints
from spot_operator.decide import decide
from spot_operator.decide.conditions import is_finished
from spot_operator.decide.directives import directives
from spot_operator.decide.fates import is_terminal
from spot_operator.known_jobs import KnownJobs
from spot_operator.kube import JOBS, Conflict, Kube, KubeError, NotFound, Refused
from spot_operator.logs import Log
from spot_operator.model import (
    UNKNOWN,
    CreatePod,
    Decision,
    Gang,
    JobEvent,
    Observation,
    PodRefusal,
    PolicySettings,
)
from spot_operator.names import JobKey, Reason
from spot_operator.node_cache import NodeCache
from spot_operator.observe import Observer, is_ours
from spot_operator.pod_book import JobPod, PodBook
from spot_operator.reports import ReportBook
from spot_operator.rush import Rush
from spot_operator.tally import tally
from spot_operator.wire import StatusUnreadable, foreign_conditions, status_from_json, status_to_json

Json = Mapping[str, Any]

AT_ONCE: Final = 0.0
HURRIED_LOOKS: Final = 5
"""So many in a row ask for another at once where all is well; whatever goes on beyond that slows down."""
HURRY_BASE_SECONDS: Final = 0.25
HURRY_MAX_SECONDS: Final = 30.0
SOONEST_SECONDS: Final = 0.05
CREATED_SECONDS: Final = 1.0
"""The watch tells of a created pod; a watch that lags or is broken must not keep its UID out of status."""
EARLIER: Final = 0
"""Stands for every incarnation that has its verdict."""
REFUSAL_RETRY_SECONDS: Final = 5.0
"""What refused a pod (quota, a missing service account) tells nobody when it is gone: ask again."""

_log = Log(__name__)


@dataclass(frozen=True)
class Creations:
    """The pods of one incarnation that this process has created, all of them."""

    incarnation: int
    uids: Mapping[str, str]


@dataclass(frozen=True)
class Untold:
    """Events of a look that had pods to create."""

    job: Json
    events: Sequence[JobEvent]
    time: datetime


@dataclass(frozen=True)
class Done:
    """A look that has come to its end."""

    again: float | None
    """After how many seconds to look again; None: when woken."""


def _is_enough(observation: Observation, decision: Decision) -> bool:
    """Whether what a watch said, which may lag, carries this decision.

    A pod that was heard to have ended will not run again, and the name of a new one can be taken but once.
    Whether a pod is to be stopped, or is to be judged or replaced before it was heard to have ended, a list
    will show; and so where the watch does not show what should be there: it lags, or somebody took a label
    away, or an earlier process has created it.
    """
    pods, status = observation.pods, observation.status
    if pods is UNKNOWN or not all(pod.is_heard for pod in pods):
        return False
    gangs = [gang for gang in (status.predecessor, status.gang) if gang is not None]
    if not observation.knows_creations and any(pod.uid is None for gang in gangs for pod in gang.pods):
        return False
    ended = {pod.uid for pod in pods if is_terminal(pod)}
    left = _uids(status.gang) - _uids(decision.status.gang)
    left |= _uids(status.predecessor) - _uids(decision.status.predecessor)
    if any(pod.uid in left - ended for pod in pods):
        return False
    return all(isinstance(action, CreatePod) or action.uid in ended for action in decision.actions)


def _uids(gang: Gang | None) -> frozenset[str]:
    return frozenset(pod.uid for pod in gang.pods if pod.uid) if gang is not None else frozenset()


@dataclass(frozen=True)
class Answers:
    """What the pods of a job are told when they report."""

    newest: int
    """The newest incarnation that status knows."""
    texts: Mapping[int, str]
    """By incarnation."""

    def of(self, incarnation: int) -> str | None:
        """None: status is older than the pod, and has nothing to say to it."""
        return None if incarnation > self.newest else self.texts.get(incarnation, self.texts[EARLIER])


def _answers(observation: Observation, decision: Decision, *, is_written: bool) -> Answers:
    """Before a decision is written it may ask for a checkpoint, and ends nothing.

    A pod that was told to stop by what was never written would be judged without a reason.
    """
    decided = replace(observation, status=decision.status)
    known = decided if is_written else observation
    gangs = (known.status.predecessor, known.status.gang)
    live = [gang.incarnation for gang in gangs if gang is not None]

    def text(incarnation: int) -> str:
        told, wished = directives(known, incarnation), directives(decided, incarnation)
        return replace(wished, stop=told.stop, predecessor_dead=told.predecessor_dead).to_json()

    return Answers(
        newest=max(known.status.incarnation, *live, EARLIER),
        texts={number: text(number) for number in (EARLIER, *live)},
    )


class Reconciler:
    def __init__(
        self,
        kube: Kube,
        observer: Observer,
        actor: Actor,
        reports: ReportBook,
        nodes: NodeCache,
        pods: PodBook,
        policy: PolicySettings,
        known: KnownJobs,
        rush: Rush,
        *,
        progress_write_seconds: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._observer = observer
        self._actor = actor
        self._complaints = Complaints(actor, monotonic)
        self._reports = reports
        self._nodes = nodes
        self._pods = pods
        self._policy = policy
        self._known = known
        self._rush = rush
        self._progress_write_seconds = progress_write_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._uids: dict[JobKey, str] = {}
        self._refusals: dict[JobKey, PodRefusal] = {}
        self._creations: dict[JobKey, Creations] = {}
        self._replaces_since: dict[JobKey, float] = {}
        """Since when the pods before the ones that are to be created are known to have ended."""
        self._last_write: dict[JobKey, float] = {}
        self._answers: dict[JobKey, Answers] = {}
        self._untold: dict[JobKey, list[Untold]] = {}
        self._hurried: dict[JobKey, int] = {}
        """How many looks in a row have asked for another at once."""

    async def reconcile(self, key: JobKey) -> float | None:
        """One look; returns after how many seconds to look again, None: when woken."""
        again: float | None = AT_ONCE
        failure: KubeError | StatusUnreadable | None = None
        self._known.begin_look(key)
        try:
            again = await self._look(key)
        except (KubeError, StatusUnreadable) as error:
            failure = error
        finally:
            is_behind = self._known.end_look(key)
        if failure is not None:
            if not is_behind:
                raise failure
            _log.warning("repeated at once: the job has changed", job=key[1], error=str(failure))
        if is_behind:
            return AT_ONCE  # as often as others write; what this look itself asked for is not counted
        if again != AT_ONCE:
            self._hurried.pop(key, None)
            return again
        hurried = self._hurried[key] = self._hurried.get(key, 0) + 1
        if hurried < HURRIED_LOOKS:
            return AT_ONCE
        return min(HURRY_MAX_SECONDS, HURRY_BASE_SECONDS * 2.0 ** min(hurried - HURRIED_LOOKS, 10))

    async def _look(self, key: JobKey) -> float | None:
        started = self._monotonic()
        known = self._known.take(key)
        # What is known of a new job needs no watch: no operator has written to it yet, so it has no pods.
        done = None if known is None else await self._look_at(key, known.job, is_new=known.is_new)
        if done is None:
            job = await self._observer.job(key)
            if job is None or not is_ours(job):
                await self._tell(key)
                self._forget(key)
                metrics.RECONCILES.labels("absent" if job is None else "foreign").inc()
                return None
            done = await self._look_at(key, job, is_live=True)
            assert done is not None
        metrics.RECONCILE_SECONDS.observe(self._monotonic() - started)
        return done.again

    async def _look_at(
        self, key: JobKey, job: Json, *, is_live: bool = False, is_new: bool = False
    ) -> Done | None:
        """Go by the job as it was read now, or as it is known; None: what is known does not do."""
        if not is_ours(job):
            return None
        self._know(key, job["metadata"]["uid"])
        self._known.note_read(key, job)
        observation = await self._observe(key, job, is_live=is_live, is_new=is_new)
        if observation is None:
            return None
        decision = decide(observation, self._clock(), self._policy)
        if not is_live and not _is_enough(observation, decision):
            return None
        if is_live:
            self._answers[key] = _answers(observation, decision, is_written=False)
        try:
            written, later = await self._persist(key, job, observation, decision)
        except (Conflict, NotFound, Refused) as error:
            return await self._not_written(key, job, error) if is_live else None
        if not is_live and written is None and (decision.actions or is_new):
            return None  # no write has confirmed that the job is so: nothing may rest on it
        self._answers[key] = _answers(observation, decision, is_written=True)
        self._begin_creations(key, observation, decision)
        results = await self._actor.act(key[0], observation.uid, decision.actions)
        for uid in results.absent:
            self._pods.note_absent(uid)
        if written is not None and results.created:
            # Where a thousand pods are waited for, they come before what is to be said of them: the next
            # look, which follows within moments unless such a rush delays it, says it.
            self._untold.setdefault(key, []).append(Untold(job, decision.events, self._clock()))
        else:
            await self._tell(key, job, decision.events if written is not None else ())
        if decision.status.gang is not None and not results.errors:
            self._known.keep(key, written or job)
        self._remember(key, observation, decision, results)
        await self._complaints.hear(key, job, results)
        return Done(self._next_look(key, observation, decision, results, later))

    async def _observe(self, key: JobKey, job: Json, *, is_live: bool, is_new: bool) -> Observation | None:
        """None: something that a look needs is not known."""
        pods = None if is_live else () if is_new else self._pods.present(job["metadata"]["uid"])
        creations = self._creations.get(key)
        try:
            seen = await self._observer.observe(
                job,
                self._refusals.get(key),
                known_pods=pods,
                created_uids={} if creations is None else creations.uids,
            )
        except StatusUnreadable as error:
            if not is_live:
                return None
            await self._complaints.tell(key, job, Reason.STATUS_UNREADABLE, str(error))
            raise
        return self._recall(key, seen)

    async def _not_written(self, key: JobKey, job: Json, error: KubeError) -> Done:
        if isinstance(error, Refused):
            await self._complaints.tell(key, job, Reason.STATUS_REFUSED, error.message)
            raise error
        if isinstance(error, Conflict):
            metrics.RECONCILES.labels("conflict").inc()
        elif self._hurried.get(key, 0) >= HURRIED_LOOKS:  # the job is there, and has no status to write
            await self._complaints.tell(key, job, Reason.STATUS_REFUSED, error.message)
        return Done(AT_ONCE)

    async def _tell(self, key: JobKey, job: Json | None = None, events: Sequence[JobEvent] = ()) -> None:
        for untold in self._untold.pop(key, ()):
            await self._actor.tell(untold.job, untold.events, untold.time)
        if job is not None:
            await self._actor.tell(job, events)

    async def tell_all(self) -> None:
        """Write what was left to looks that will not be: this process ends."""
        for key in tuple(self._untold):
            await self._tell(key)

    def num_untold(self) -> int:
        """Jobs with Events that are yet to be written."""
        return len(self._untold)

    async def _persist(
        self, key: JobKey, job: Json, observation: Observation, decision: Decision
    ) -> tuple[Json | None, float | None]:
        """The job as it was written, if it was; and in how many seconds a write held back is due."""
        if compare(observation.status, decision.status) is Change.NOTHING:
            return None, None  # as of most looks, and seen without JSON
        body = status_to_json(decision.status)
        # Compared as it will be read back, so that a value that JSON rounds is no difference.
        change = compare(observation.status, status_from_json(body))
        if change is Change.NOTHING:
            return None, None
        if change is Change.PROGRESS:
            age = self._monotonic() - self._last_write.get(key, float("-inf"))
            if age < self._progress_write_seconds:
                return None, self._progress_write_seconds - age
        # The whole object is sent as it was read: a status PUT changes nothing but status, and the
        # resourceVersion of the look makes it fail if anybody, a newer leader included, was faster.
        if others := foreign_conditions(job.get("status")):
            body["conditions"] = [*body.get("conditions", ()), *others]
        stored = await self._kube.replace(JOBS, {**job, "status": body}, subresource="status")
        self._last_write[key] = self._monotonic()
        self._known.note_written(key, stored)
        metrics.STATUS_WRITES.labels(change).inc()
        tally(observation.status, decision.status)
        return stored, None

    def _remember(self, key: JobKey, observation: Observation, decision: Decision, results: Results) -> None:
        if observation.status.checkpoint is not None and decision.status.checkpoint is None:
            self._reports.forget(observation.uid)  # of another store; it would come back with the next report
        metrics.JOBS.set(key, decision.status.phase)
        metrics.PROJECTED.set(key, None if is_finished(decision.status) else decision.status.cost.projected)
        metrics.RECONCILES.labels("error" if results.errors else "ok").inc()
        now = self._monotonic()
        creations = self._creations.pop(key, None)
        if creations is not None and not results.is_unsure:
            self._creations[key] = replace(creations, uids={**creations.uids, **results.uids})
        if results.refusal is not None:
            self._refusals[key] = results.refusal
        elif results.created:
            self._refusals.pop(key, None)
        log = _log.bind(
            namespace=key[0], job=key[1], uid=observation.uid, incarnation=decision.status.incarnation
        )
        for name in results.created:
            log.info("pod created", pod=name)
        for deletion in results.deleted:
            log.info("pod deleted", pod=deletion.name, why=deletion.why)
        if results.refusal is not None:
            log.warning("pod refused", pod=results.refusal.pod_name, error=results.refusal.message)
        if results.created:
            self._rush.note_launch()
            if (since := self._replaces_since.pop(key, None)) is not None:
                metrics.REPLACE_SECONDS.observe(now - since)
        pods = () if observation.pods is UNKNOWN else observation.pods
        node_of = {pod.uid: pod.node_name for pod in pods}
        for deletion in results.deleted:
            heard = self._nodes.signal_heard(node_of.get(deletion.uid) or "")
            if heard is not None:
                metrics.STOP_SECONDS.observe(now - heard)

    def _recall(self, key: JobKey, observation: Observation) -> Observation:
        """Add what only this process can know: which pods of the gang it has created."""
        gang, creations = observation.status.gang, self._creations.get(key)
        if gang is None:
            return observation
        if creations is None or creations.incarnation != gang.incarnation:
            return replace(observation, knows_creations=False)
        return replace(observation, created_uids=creations.uids)

    def _begin_creations(self, key: JobKey, observation: Observation, decision: Decision) -> None:
        """An intent that this process has just written: nobody but it creates these pods."""
        before, now = observation.status.gang, decision.status.gang
        if now is not None and (before is None or before.incarnation != now.incarnation):
            uids = [record.uid for record in before.pods if record.uid] if before is not None else []
            if before is None or uids:  # else they never came to be: what they were to replace still waits
                self._replaces_since.pop(key, None)
            # Of a predecessor that saves while this one is prepared, there are none.
            ended = [since for since in map(self._pods.ended, uids) if since is not None]
            if ended:
                self._replaces_since[key] = max(ended)
            self._creations[key] = Creations(now.incarnation, {})

    def _next_look(
        self,
        key: JobKey,
        observation: Observation,
        decision: Decision,
        results: Results,
        later: float | None,
    ) -> float | None:
        if results.errors:
            # Raised only now, when nothing is left to be done; the queue owns the back-off.
            raise results.errors[0]
        if results.refusal is not None:
            shown = observation.refusal
            if shown is None or shown.message != results.refusal.message:
                return AT_ONCE
        terminating = (
            frozenset()
            if observation.pods is UNKNOWN
            else frozenset(pod.uid for pod in observation.pods if pod.deletion_timestamp is not None)
        )
        if any(deletion.uid not in terminating for deletion in results.deleted):
            return AT_ONCE
        waits = [max(later, SOONEST_SECONDS)] if later is not None else []
        if results.created:
            waits.append(max(CREATED_SECONDS, self._rush.settling_seconds()))
        if results.refusal is not None:
            waits.append(REFUSAL_RETRY_SECONDS)
        if decision.next_look is not None:
            waits.append(max(decision.next_look.total_seconds(), SOONEST_SECONDS))
        return min(waits, default=None)

    def answer(self, pod: JobPod) -> str | None:
        """The body that a report of the pod gets, as of the last look at its job; None: there is no such job.

        One of the same name that was made anew has nothing to say to it.
        """
        answers = self._answers.get(pod.key)
        if answers is None or self._uids.get(pod.key) != pod.job_uid:
            return None
        return answers.of(pod.incarnation)

    def _know(self, key: JobKey, uid: str) -> None:
        if self._uids.get(key, uid) != uid:
            self._forget(key)  # deleted and created again under the same name
        self._uids[key] = uid

    def _forget(self, key: JobKey) -> None:
        if (uid := self._uids.pop(key, None)) is not None:
            self._reports.forget(uid)
        self._refusals.pop(key, None)
        self._creations.pop(key, None)
        self._replaces_since.pop(key, None)
        self._last_write.pop(key, None)
        self._known.forget(key)
        self._answers.pop(key, None)
        self._complaints.forget(key)
        self._hurried.pop(key, None)
        self._nodes.place(key, ())
        metrics.JOBS.forget(key)
        metrics.PROJECTED.forget(key)
