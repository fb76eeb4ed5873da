"""One job and its pods, read now or as they are known, and the nodes they are on.

Invariant: what could not be read becomes `UNKNOWN`, and a node is called absent only by a
live read that found nothing. Only the job itself must be readable; everything else about
it may be unknown, and decide knows what that forbids.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from spot_operator.api.effective import parse_spec
from spot_operator.decide.fates import is_terminal
from spot_operator.decide.signals import has_stop_signal, looks_dead
from spot_operator.kube import EVENTS, JOBS, NODE_CLAIMS, NODES, PODS, Kube, KubeError, NotFound
from spot_operator.logs import Log
from spot_operator.model import (
    UNKNOWN,
    FallbackPolicy,
    GoneNode,
    JobSpec,
    JobStatus,
    NodeView,
    Observation,
    Overheads,
    PodRecord,
    PodRefusal,
    PodView,
    Restart,
    Unknown,
)
from spot_operator.names import CONTROLLER_NAME, LABEL_JOB_UID, JobKey
from spot_operator.node_cache import Gone, NodeCache
from spot_operator.pod_book import PodBook
from spot_operator.policy import Interruptions
from spot_operator.pools import PoolBook
from spot_operator.reports import ReportBook
from spot_operator.views import (
    CLAIM_DISRUPTED,
    controller_of,
    is_claim_disrupted,
    node_view,
    pod_view,
    time_of,
)
from spot_operator.wire import status_from_json

Json = Mapping[str, Any]

NODE_EVENTS_NAMESPACE: Final = "default"
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

VERDICT_WINDOW: Final = timedelta(minutes=10)

_log = Log(__name__)


def is_ours(job: Json) -> bool:
    """Whether this operator manages the job (spec.managedBy names another controller or nobody)."""
    return bool((job.get("spec") or {}).get("managedBy", CONTROLLER_NAME) == CONTROLLER_NAME)


def _nodes_of_recent(restarts: tuple[Restart, ...], now: datetime) -> dict[str, str | None]:
    """Nodes whose disappearance may still upgrade a verdict, by name, with their UIDs."""
    since = now - VERDICT_WINDOW
    return {each.node_name: each.node_uid for each in restarts if each.node_name and each.time > since}


def records_of(status: JobStatus) -> Iterator[PodRecord]:
    """The pods of all incarnations that have no verdict yet."""
    for gang in (status.predecessor, status.gang):
        yield from gang.pods if gang is not None else ()


class Observer:
    def __init__(
        self,
        kube: Kube,
        nodes: NodeCache,
        reports: ReportBook,
        pods: PodBook,
        *,
        status_url: Callable[[str, str], str],
        status_ca: Callable[[], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._reports = reports
        self._book = pods
        self._status_url = status_url
        self._status_ca = status_ca
        self._clock = clock
        self._pools = PoolBook()
        self._reports_since: datetime | None = None

    async def job(self, key: JobKey) -> dict[str, Any] | None:
        """The job as the API server has it now; None: there is none."""
        try:
            return await self._kube.get(JOBS, key[1], key[0])
        except NotFound:
            return None

    async def observe(
        self,
        job: Json,
        refusal: PodRefusal | None,
        *,
        known_pods: Sequence[Json] | None = None,
        created_uids: Mapping[str, str] = NOTHING,
    ) -> Observation:
        """`known_pods`: those with the job's label, as far as they are known; None: they are read.

        `created_uids`: by name, of the pods that this process has created, whether or not status has them.
        """
        metadata = job["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        # The first look comes right after this process began to lead, and with that to be sent reports.
        self._reports_since = self._reports_since or self._clock()
        created = time_of(metadata["creationTimestamp"])
        if created is None:
            raise ValueError(f"creationTimestamp={metadata['creationTimestamp']!r} is no time")
        spec = parse_spec(job.get("spec") or {}, namespace=namespace, name=name, created=created)
        status = status_from_json(job.get("status"))
        trainer = spec.trainer_container if isinstance(spec, JobSpec) else None
        pods = await self._pods(namespace, uid, trainer, known_pods)
        expected = {record.name: record.uid or created_uids.get(record.name) for record in records_of(status)}
        pods = await self._with_unlisted(namespace, uid, pods, expected, trainer)
        names = {pod.node_name for pod in pods if pod.node_name} if pods is not UNKNOWN else set()
        names |= {record.node_name for record in records_of(status) if record.node_name}
        recent = _nodes_of_recent(status.recent_restarts, self._clock())
        names |= recent.keys()
        self._nodes.place((namespace, name), names)
        known, interruptions = Overheads(), dict[str, Interruptions]()
        if isinstance(spec, JobSpec):
            self._pools.learn(uid, spec, status.overheads, status.interruption_rate)
            interruptions = self._pools.known_interruptions(uid, spec)
            if spec.fallback.policy is FallbackPolicy.AUTO:
                known = self._pools.known(uid, spec)
        nodes = await self._look_at_nodes(names, self._nodes_to_judge_by(status, pods, recent))
        return Observation(
            namespace=namespace,
            name=name,
            uid=uid,
            generation=metadata.get("generation", 0),
            created=created,
            spec=spec,
            status=status,
            pods=pods,
            departed=self._departed(uid, pods, trainer),
            nodes=nodes,
            gone_nodes=await self._journal(status, nodes),
            report=self._reports.get(uid),
            reports_since=self._reports_since,
            refusal=refusal,
            known_overheads=known,
            known_interruptions=interruptions,
            deletion_requested=metadata.get("deletionTimestamp") is not None,
            annotations=metadata.get("annotations") or {},
            status_ca=self._status_ca(),
            status_url=self._status_url(namespace, name),
        )

    async def _pods(
        self, namespace: str, job_uid: str, trainer: str | None, known: Sequence[Json] | None
    ) -> tuple[PodView, ...] | Unknown:
        pods = known
        if pods is None:
            try:
                with self._book.readings.open() as reading:
                    pods = await self._kube.list(PODS, namespace, labels=f"{LABEL_JOB_UID}={job_uid}")
            except KubeError as error:
                _log.warning("pods are unknown", namespace=namespace, uid=job_uid, error=error.message)
                return UNKNOWN
            self._book.take_list(job_uid, pods, reading)
        # A label can be copied by anyone; the owner reference is what makes a pod ours.
        ours = [
            pod
            for pod in pods
            if (controller_of(pod) or {}).get("uid") == job_uid and pod["metadata"]["namespace"] == namespace
        ]
        return tuple(sorted((pod_view(pod, trainer) for pod in ours), key=lambda pod: pod.name))

    async def _with_unlisted(
        self,
        namespace: str,
        job_uid: str,
        pods: tuple[PodView, ...] | Unknown,
        expected: Mapping[str, str | None],
        trainer: str | None,
    ) -> tuple[PodView, ...] | Unknown:
        """Add the pods of the gang that exist and are not listed as ours.

        Anyone may take the label or the owner from a pod, a webhook even before it is there; its program
        runs all the same. So one that is missing, and was not seen to go, is asked for by its name.
        """
        if pods is UNKNOWN:
            return UNKNOWN
        listed = {pod.uid for pod in pods}
        seen_to_go = {
            pod["metadata"]["uid"]
            for pod in self._book.last_seen(job_uid)
            # A watch by label also says DELETED of a pod that has lost it; the last deletion has no grace.
            if pod["metadata"].get("deletionTimestamp") is not None
            and pod["metadata"].get("deletionGracePeriodSeconds") == 0
        }
        found = list(pods)
        for name, uid in expected.items():
            if uid is None or uid in listed or uid in seen_to_go:
                continue
            try:
                pod = await self._kube.get(PODS, name, namespace)
            except NotFound:
                continue
            except KubeError as error:
                _log.warning("pod is unknown", namespace=namespace, pod=name, error=error.message)
                return UNKNOWN
            if pod["metadata"]["uid"] == uid:
                found.append(replace(pod_view(pod, trainer), is_heard=False))
        return tuple(sorted(found, key=lambda pod: pod.name))

    def _departed(
        self, job_uid: str, pods: tuple[PodView, ...] | Unknown, trainer: str | None
    ) -> tuple[PodView, ...]:
        """How the pods that are gone by now looked last; a pod that ends and goes at once is judged by it."""
        if pods is UNKNOWN:
            return ()
        present = {pod.uid for pod in pods}
        gone = (pod for pod in self._book.last_seen(job_uid) if pod["metadata"]["uid"] not in present)
        return tuple(pod_view(pod, trainer) for pod in gone)

    def _nodes_to_judge_by(
        self, status: JobStatus, pods: tuple[PodView, ...] | Unknown, recent: Mapping[str, str | None]
    ) -> set[str]:
        """Nodes that a watch which lags must not speak for.

        Their state explains why a pod of the gang has ended, or their UID is about to be recorded: a
        machine that came back under its name would be taken for the one before, and then for gone. So it
        would be while it is known by the UID of the one before.
        """
        found = {name for name, uid in recent.items() if uid and not self._is_known_as(name, uid)}
        if pods is UNKNOWN:
            return found
        alive = {pod.uid for pod in pods if not is_terminal(pod)}
        bound = {pod.name: pod.node_name for pod in pods}
        for record in records_of(status):
            name = record.node_name or bound.get(record.name)
            if name and (record.uid not in alive or not self._is_known_as(name, record.node_uid)):
                found.add(name)
        return found

    def _is_known_as(self, name: str, uid: str | None) -> bool:
        """Whether the cache knows the node by this UID, or not at all: then it is read anyway."""
        node = self._nodes.get(name)
        return uid is not None and (node is None or node.uid == uid)

    async def _look_at_nodes(self, names: set[str], live: set[str]) -> dict[str, NodeView | Unknown | None]:
        ordered = sorted(names)
        found = await asyncio.gather(*(self._node(name, is_live=name in live) for name in ordered))
        return dict(zip(ordered, found, strict=True))

    async def _node(self, name: str, *, is_live: bool) -> NodeView | Unknown | None:
        node = None if is_live else self._nodes.get(name)
        # A pod is stopped because of a signal: one that was withdrawn a moment ago stops nothing.
        # Nor is a pod given up because of a silence that is over.
        if node is None or has_stop_signal(node) or looks_dead(node):
            try:
                node = node_view(await self._kube.get(NODES, name))
            except NotFound:
                return None
            except KubeError as error:
                _log.warning("node is unknown", node=name, error=error.message)
                return UNKNOWN
        if has_stop_signal(node):
            return await self._with_events(node)
        return node

    async def _journal(
        self, status: JobStatus, nodes: Mapping[str, NodeView | Unknown | None]
    ) -> dict[str, GoneNode]:
        """What is remembered of the nodes under the job's pods that are there no more."""
        wanted = {r.node_uid: r.node_name for r in records_of(status)}
        since = self._clock() - VERDICT_WINDOW
        wanted |= {r.node_uid: r.node_name for r in status.recent_restarts if r.charged and r.time > since}
        found = {}
        for uid, name in wanted.items():
            node = nodes.get(name or "", UNKNOWN)
            if uid is None or node is UNKNOWN or (isinstance(node, NodeView) and node.uid == uid):
                continue
            if (gone := self._nodes.gone(uid)) is not None:
                found[uid] = await self._last_words(gone)
        return found

    async def _last_words(self, gone: Gone) -> GoneNode:
        def time_of_day(monotonic_seconds: float) -> datetime:
            return self._clock() - timedelta(seconds=self._nodes.now() - monotonic_seconds)

        gone_time = time_of_day(gone.gone)
        if gone.signal_heard is None:
            return GoneNode(view=gone.view, gone_time=gone_time, signal_time=None)
        view = await self._with_events(gone.view)
        return GoneNode(view=view, gone_time=gone_time, signal_time=time_of_day(gone.signal_heard))

    async def _with_events(self, node: NodeView) -> NodeView:
        """Add why the node is going; without the right to read that, go on without it."""
        fields = f"involvedObject.kind=Node,involvedObject.name={node.name}"
        try:
            events = await self._kube.list(EVENTS, NODE_EVENTS_NAMESPACE, fields=fields)
        except KubeError as error:
            _log.warning("node events are unknown", node=node.name, error=error.message)
            return node
        # The kubelet writes the node's name where others write its UID.
        reasons = frozenset(
            str(event.get("reason"))
            for event in events
            if event.get("involvedObject", {}).get("uid", "") in (node.uid, node.name, "")
        )
        if await self._is_chosen_by_karpenter(node):
            reasons |= {CLAIM_DISRUPTED}
        return replace(node, event_reasons=reasons)

    async def _is_chosen_by_karpenter(self, node: NodeView) -> bool:
        """Events are written once and may get lost; the claim keeps its reason as long as it is there."""
        if not node.claim_name:
            return False
        try:
            return is_claim_disrupted(await self._kube.get(NODE_CLAIMS, node.claim_name))
        except KubeError as error:
            if not isinstance(error, NotFound):
                _log.warning("node claim is unknown", claim=node.claim_name, error=error.message)
            return False
