"""Everything that looks at jobs, put together: caches, observer, reconciler, actor, queue.

What is around it (election, watches, servers, signals) is the process's business; with a
model of the cluster around it instead, the same parts run in the simulator. Invariant:
nothing in here reads a clock, draws a number or opens a connection that was not handed in.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterable, Sequence, Set
from datetime import datetime
from typing import Final

from spot_operator.act import Actor
from spot_operator.decide.signals import has_stop_signal
from spot_operator.known_jobs import DELETED, KnownJobs, version_of
from spot_operator.kube import JOBS, NODES, PODS, Json, Kube, KubeError
from spot_operator.logs import Log
from spot_operator.names import LABEL_JOB_UID, JobKey, Phase
from spot_operator.node_cache import NodeCache
from spot_operator.observe import Observer
from spot_operator.pod_book import PodBook
from spot_operator.reconcile import Reconciler
from spot_operator.reports import ReportBook
from spot_operator.rush import Rush
from spot_operator.settings import Settings
from spot_operator.views import controller_of, is_ending, is_terminal
from spot_operator.workqueue import WorkQueue

FINAL_PHASES: Final = frozenset({Phase.COMPLETE, Phase.FAILED})
"""Pods that are kept of such jobs have ended, and nobody waits for what follows."""
HEAD_START_SECONDS: Final = 30.0
"""Of a job that nobody has looked at yet: its pod waits for nothing else, and what jobs that have theirs
want to tell can wait for so long, but no longer."""

GAP_SETTLING_SECONDS: Final = 1.0
"""Watches begin together, at the start or when a server comes back, and each hands on one object after the
other."""
GAP_RETRY_MAX_SECONDS: Final = 30.0
GAP_PATIENCE_SECONDS: Final = 5.0
"""So long a listing beside watches that have begun lets the looks go first that a start or a server's return
has made due: it would slow them down, and finds only what went while nobody watched."""

_log = Log(__name__)


def _key(job: Json) -> JobKey:
    return job["metadata"]["namespace"], job["metadata"]["name"]


def _phase(job: Json) -> object:
    return (job.get("status") or {}).get("phase")


class Core:
    """One operator's view of its jobs; `queue.run()` makes it work."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        *,
        component: str,
        status_ca: Callable[[], str],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`kube` writes only while this process leads; `component` names it in Events."""
        self._kube, self._settings = kube, settings
        self._namespaces = settings.watch_namespaces or (None,)
        self.gap = asyncio.Event()
        """Something may have been missed: a listing is due."""
        self._has_broken = False
        self.nodes = NodeCache(monotonic)
        self.pods = PodBook(monotonic)
        self.reports = ReportBook()
        observer = Observer(
            kube,
            self.nodes,
            self.reports,
            self.pods,
            status_url=settings.status_url,
            status_ca=status_ca,
            clock=clock,
        )
        self.known = KnownJobs(clock)
        self._rush = Rush(monotonic)
        self.reconciler = Reconciler(
            kube,
            observer,
            Actor(kube, clock, component),
            self.reports,
            self.nodes,
            self.pods,
            settings.policy,
            self.known,
            self._rush,
            progress_write_seconds=settings.progress_write_seconds,
            clock=clock,
            monotonic=monotonic,
        )
        self.queue: WorkQueue[JobKey] = WorkQueue(
            self.reconciler.reconcile, workers=settings.workers, jitter=jitter
        )

    async def list_all(self, *, is_first: bool = False, spread_seconds: float | None = None) -> None:
        """List everything, and look at the jobs in which that shows something new. Raises KubeError.

        The others are looked at as well some time within `spread_seconds`, if given.
        """
        failures: list[KubeError] = []
        pressing: Set[JobKey] = frozenset()
        try:
            await self._list_nodes()
        except KubeError as error:
            failures.append(error)
        try:
            pressing = await self._list_pods(is_first=is_first)
        except KubeError as error:
            failures.append(error)
        if is_first and failures:
            raise failures[0]  # the looks to come need all of it
        keys = await self._list_jobs(pressing, is_first=is_first)
        if failures:
            raise failures[0]
        if spread_seconds is not None:
            for number, key in enumerate(keys):
                self.queue.wake(key, spread_seconds * number / len(keys))

    # Each of these wakes at once whom its list concerns, as another may fail, and the next time this one
    # shows nothing new.

    async def _list_nodes(self) -> None:
        with self.nodes.readings.open() as reading:
            nodes = await self._kube.list(NODES)
        changed = self.nodes.replace_all(nodes, reading)
        # No watch will make these urgent: a notice that it tells of later is not new then.
        self._wake(changed, pressing=frozenset(filter(self.nodes.is_losing, changed)))

    async def _list_pods(self, *, is_first: bool) -> frozenset[JobKey]:
        """Returns the jobs with which it presses."""
        with self.pods.readings.open() as reading:
            pods = [
                pod
                for where in self._namespaces
                for pod in await self._kube.list(PODS, where, labels=LABEL_JOB_UID)
            ]
        changed = self.pods.replace_all(pods, reading)
        pressing = self._with_pods(pods, self._is_pressing)
        if is_first:
            # Where a notice is running out, not even the rest of the listing is waited for; what it shows
            # spares all others a read.
            lost = self._with_pods(pods, self._is_on_a_lost_node)
            self._wake(lost, pressing=lost)
        else:
            self._wake(changed, pressing=pressing)
        return pressing

    async def list_again(self) -> None:
        """Without end: list everything after every gap; and every so often, then to look at every job."""
        loop, gap = asyncio.get_running_loop(), self.gap
        period, settling, is_due = self._settings.resync_seconds, GAP_SETTLING_SECONDS, False
        due = loop.time() + period
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await gap.wait()
            if gap.is_set():
                await asyncio.sleep(settling)
                await self._wait_for_looks()
            if not gap.is_set() or loop.time() >= due:
                is_due, due = True, loop.time() + period
            gap.clear()  # before it lists: what is lost from now on, this listing may not show
            try:
                await self.list_all(spread_seconds=period if is_due else None)
                settling, is_due = GAP_SETTLING_SECONDS, False
                self._has_broken = gap.is_set() and self._has_broken
            except KubeError as error:
                _log.warning("failed, will be repeated", what="listing", error=error.message)
                gap.set()
                settling = min(2 * settling, GAP_RETRY_MAX_SECONDS)

    async def _wait_for_looks(self) -> None:
        """Until no more of them wait than are made at a time, or they do not get fewer; not for ever, and not
        where a watch is broken."""
        loop = asyncio.get_running_loop()
        end, before = loop.time() + GAP_PATIENCE_SECONDS, math.inf
        while self._settings.workers < (depth := self.queue.depth()) < before and loop.time() < end:
            if self._has_broken:
                return
            before = depth
            await asyncio.sleep(GAP_SETTLING_SECONDS / 2)

    async def _list_jobs(self, pressing: Set[JobKey], *, is_first: bool) -> Sequence[JobKey]:
        """Returns the jobs that there are."""
        with self.known.readings.open() as reading:
            jobs = {
                _key(job): job for where in self._namespaces for job in await self._kube.list(JOBS, where)
            }
        unseen = {key for key, job in jobs.items() if not self.known.has_seen(key, version_of(job))}
        unseen -= reading.newer
        vanished = self.known.keys() - jobs.keys() - reading.newer
        for key in unseen | vanished:
            self.known.hear_version(key, version_of(jobs[key]) if key in jobs else DELETED)
        # A stop must not wait for a thousand looks that find nothing to do.
        pressing = pressing - {key for key, job in jobs.items() if _phase(job) in FINAL_PHASES}
        if is_first:
            for key in unseen - pressing:
                self.known.show(key, jobs[key])
        # A look under way knows at its end whether what was heard is its own write.
        self._wake({key for key in unseen | vanished if not self.known.is_looked_at(key)}, pressing=pressing)
        return tuple(jobs)

    def _wake(self, keys: Set[JobKey], *, pressing: Set[JobKey] = frozenset()) -> None:
        for key in sorted(keys):
            self.queue.wake(key, urgent=key in pressing)

    def _is_pressing(self, pod: Json) -> bool:
        return is_terminal(pod) or self._is_on_a_lost_node(pod)

    def _is_on_a_lost_node(self, pod: Json) -> bool:
        """Whether its program runs where the node is going or gone."""
        name = pod.get("spec", {}).get("nodeName")
        node = self.nodes.get(name) if name else None
        return bool(name and not is_terminal(pod) and (node is None or has_stop_signal(node)))

    @staticmethod
    def _with_pods(pods: Iterable[Json], is_meant: Callable[[Json], bool]) -> frozenset[JobKey]:
        """The jobs of the pods that are meant."""
        owners = ((pod, controller_of(pod)) for pod in pods if is_meant(pod))
        return frozenset((pod["metadata"]["namespace"], owner["name"]) for pod, owner in owners if owner)

    # What the watches deliver is put where it belongs. An event that never comes costs latency,
    # not correctness; so none of these waits or fails.

    def hear_gap(self) -> None:
        """A watch has begun: deletions before it may have been lost."""
        self.gap.set()

    def hear_break(self) -> None:
        """A watch has broken: until it begins anew, what it would tell is only found by a listing."""
        self._has_broken = True
        self.gap.set()

    def hear_job(self, job: Json, *, deleted: bool = False) -> None:
        key = _key(job)
        if self.known.hear(key, job, deleted=deleted):
            self.queue.wake(key, -HEAD_START_SECONDS)
        elif deleted or not (self.known.is_looked_at(key) or self.known.has_seen(key, version_of(job))):
            # A look under way knows at its end whether what was heard is its own write.
            self.queue.wake(key)

    def hear_pod(self, pod: Json, *, deleted: bool = False) -> None:
        key, ended = self.pods.hear(pod, deleted=deleted)
        if key is not None:
            if ended:
                self.queue.wake(key, urgent=True)
            elif is_ending(pod) and not deleted:
                # Its end is what somebody waits for. It may follow within a moment where a thousand pods are
                # evicted, and then one look is enough.
                self.queue.wake(key, self._rush.ending_seconds())
            else:
                # Created, bound, pulled, started: these come in a row, and one look sees all of them. Nor
                # does anybody wait for the object of a pod to go that was heard to have ended.
                self.queue.wake(key, self._rush.settling_seconds())

    def hear_node(self, node: Json, *, deleted: bool = False) -> None:
        for key in self.nodes.hear(node, deleted=deleted):
            urgent = deleted or self.nodes.signal_heard(node["metadata"]["name"]) is not None
            self.queue.wake(key, urgent=urgent)
