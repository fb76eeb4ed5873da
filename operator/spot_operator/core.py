"""Everything that looks at jobs, put together: caches, observer, reconciler, actor, queue.

What is around it (election, watches, servers, signals) is the process's business; with a
model of the cluster around it instead, the same parts run in the simulator. Invariant:
nothing in here reads a clock, draws a number or opens a connection that was not handed in.
"""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from spot_operator.act import Actor
from spot_operator.cluster import JobKey, NodeCache, PodBook
from spot_operator.kube import JOBS, NODES, PODS, Json, Kube
from spot_operator.names import LABEL_JOB_UID
from spot_operator.observe import Observer
from spot_operator.reconcile import Reconciler
from spot_operator.reports import ReportBook
from spot_operator.settings import Settings
from spot_operator.workqueue import WorkQueue


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
        self.nodes = NodeCache(monotonic)
        self.pods = PodBook()
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
        self.reconciler = Reconciler(
            kube,
            observer,
            Actor(kube, clock, component),
            self.reports,
            self.nodes,
            settings.policy,
            progress_write_seconds=settings.progress_write_seconds,
            clock=clock,
            monotonic=monotonic,
        )
        self.queue: WorkQueue[JobKey] = WorkQueue(
            self.reconciler.reconcile, workers=settings.workers, jitter=jitter
        )

    async def list_all(self) -> None:
        """Look at everything: what a watch has lost is found here. Raises KubeError."""
        for key in self.nodes.replace_all(await self._kube.list(NODES)):
            self.queue.wake(key)
        pods: list[dict[str, Any]] = []
        for namespace in self._settings.watch_namespaces or (None,):
            pods += await self._kube.list(PODS, namespace, labels=LABEL_JOB_UID)
            for job in await self._kube.list(JOBS, namespace):
                self.queue.wake((job["metadata"]["namespace"], job["metadata"]["name"]))
        self.pods.replace_all(pods)

    # What the watches deliver is put where it belongs. An event that never comes costs latency,
    # not correctness; so none of these waits or fails.

    def hear_job(self, key: JobKey, resource_version: str, *, deleted: bool = False) -> None:
        if deleted or not self.reconciler.is_own_write(key, resource_version):
            self.queue.wake(key)

    def hear_pod(self, pod: Json, *, deleted: bool = False) -> None:
        key, ended = self.pods.hear(pod, deleted=deleted)
        if key is not None:
            if ended:
                self.reconciler.pod_ended(key)
            self.queue.wake(key)

    def hear_node(self, node: Json, *, deleted: bool = False) -> None:
        for key in self.nodes.hear(node, deleted=deleted):
            self.queue.wake(key)
