"""What the watches said last: nodes, and which pod belongs to which job.

These are hints for waking the right job at once, and for answering a progress report in
milliseconds. Invariant: nothing that runs is stopped on their word alone: the look that would
reads first; and a listing, periodic or after a gap, replaces the nodes as a whole,
because a compacted watch never delivers the deletions of the gap.
"""

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from spot_operator.decide.prices import price_complaint
from spot_operator.decide.signals import has_stop_signal
from spot_operator.logs import Log
from spot_operator.model import NodeView
from spot_operator.names import LABEL_JOB_UID
from spot_operator.views import controller_of, incarnation_of, is_ending, is_terminal, node_view

Json = Mapping[str, Any]
JOURNAL_SECONDS: Final = 15 * 60.0
"""How long a node is remembered that has gone: longer than any verdict on its pods may take."""

LAST_SEEN_PODS: Final = 4096
"""Enough for every pod of a large cluster that is ending at one time; older ones are forgotten."""

JobKey = tuple[str, str]
"""Namespace and name of a job."""


@dataclass(frozen=True)
class Gone:
    """The last of a node, in monotonic seconds."""

    view: NodeView
    gone: float
    signal_heard: float | None
    """When it was first heard to show a stop signal."""


_log = Log(__name__)


class Reading:
    """A list that is being read, or was."""

    def __init__(self, number: int) -> None:
        self.number = number
        """In the order in which they were asked for."""
        self.newer: set[Hashable] = set()
        """Of these objects more became known while it was read: it may be older than that."""


class Readings:
    """The lists of one kind of object that are being read."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._open: list[Reading] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Reading]:
        """The list is asked for, and its answer is there, in the block."""
        reading = Reading(next(self._numbers))
        self._open.append(reading)
        try:
            yield reading
        finally:
            self._open.remove(reading)

    def note(self, what: Hashable, *, read_by: Reading | None = None) -> None:
        """Something became known of an object, by a watch or a list; a list only corrects earlier ones."""
        for reading in self._open:
            if read_by is None or reading.number < read_by.number:
                reading.newer.add(what)


class NodeCache:
    """The nodes as last heard of, and the jobs that care about each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._nodes: dict[str, NodeView] = {}
        self._jobs_on: dict[str, set[JobKey]] = {}
        self._nodes_of: dict[JobKey, frozenset[str]] = {}
        self._signal_heard: dict[str, float] = {}
        self._gone: OrderedDict[str, Gone] = OrderedDict()
        self.readings = Readings()

    def now(self) -> float:
        """Monotonic seconds, as in what is remembered here."""
        return self._clock()

    def gone(self, uid: str) -> "Gone | None":
        """How a node looked last that has gone within a quarter of an hour, by its UID."""
        return self._gone.get(uid)

    def _forget_node(self, name: str) -> None:
        now = self._clock()
        view = self._nodes.pop(name)
        self._gone[view.uid] = Gone(view, gone=now, signal_heard=self._signal_heard.pop(name, None))
        while self._gone and next(iter(self._gone.values())).gone < now - JOURNAL_SECONDS:
            self._gone.popitem(last=False)

    def get(self, name: str) -> NodeView | None:
        """None: not heard of, which is not the same as absent."""
        return self._nodes.get(name)

    def place(self, key: JobKey, names: Iterable[str]) -> None:
        """Remember on which nodes a job has or had pods."""
        wanted = frozenset(names)
        for name in self._nodes_of.get(key, frozenset()) - wanted:
            self._jobs_on[name].discard(key)
            if not self._jobs_on[name]:
                del self._jobs_on[name]
        for name in wanted:
            self._jobs_on.setdefault(name, set()).add(key)
        self._nodes_of[key] = wanted
        if not wanted:
            del self._nodes_of[key]

    def jobs_on(self, name: str) -> frozenset[JobKey]:
        return frozenset(self._jobs_on.get(name, ()))

    def signal_heard(self, name: str) -> float | None:
        """When the node was first heard to show a stop signal (monotonic seconds)."""
        return self._signal_heard.get(name)

    def hear(self, node: Json, *, deleted: bool = False) -> frozenset[JobKey]:
        """Take in a watch event; the jobs that should look because of it."""
        self.readings.note(node["metadata"]["uid"])
        return self._take_in(node, deleted=deleted)

    def _take_in(self, node: Json, *, deleted: bool = False) -> frozenset[JobKey]:
        name = node["metadata"]["name"]
        known = self._nodes.get(name)
        if deleted:
            # A late DELETED of an earlier node of this name must not hide the present one.
            if known is not None and known.uid == node["metadata"]["uid"]:
                self._nodes[name] = node_view(node)  # the last word may say more than all before it
                self._note_signal(name)
                self._forget_node(name)
            return self.jobs_on(name)
        view = node_view(node)
        if known is None or known.price_annotation != view.price_annotation:
            _warn_of_price(view)
        if known is not None and known.uid != view.uid:
            self._forget_node(name)
        self._nodes[name] = view
        self._note_signal(name)
        return self.jobs_on(name) if view != known else frozenset()

    def _note_signal(self, name: str) -> None:
        if not has_stop_signal(self._nodes[name]):
            self._signal_heard.pop(name, None)
        elif name not in self._signal_heard:
            self._signal_heard[name] = self._clock()

    def replace_all(self, nodes: Iterable[Json], reading: Reading) -> frozenset[JobKey]:
        """Take in a complete listing; the jobs whose nodes differ from what was believed."""
        newer = reading.newer
        every = list(nodes)
        listed = {n["metadata"]["name"]: n for n in every if n["metadata"]["uid"] not in newer}
        present = {node["metadata"]["name"] for node in every}
        gone = {name for name, view in self._nodes.items() if name not in present and view.uid not in newer}
        woken = [self.jobs_on(name) for name in gone] + [self._take_in(n) for n in listed.values()]
        for name in gone:
            self._forget_node(name)
        return frozenset().union(*woken)


def _warn_of_price(node: NodeView) -> None:
    if complaint := price_complaint(node):
        _log.warning("price is ignored", node=node.name, error=complaint)


def _facts(pod: Json) -> Json:
    """What a view needs of a pod, without its template's bulk."""
    spec = pod.get("spec", {})
    metadata = {
        key: value for key, value in pod["metadata"].items() if key not in ("managedFields", "annotations")
    }
    return {
        "metadata": metadata,
        "spec": {
            "nodeName": spec.get("nodeName"),
            "containers": [{"name": container.get("name")} for container in spec.get("containers", [])],
        },
        "status": pod.get("status", {}),
    }


@dataclass(frozen=True)
class JobPod:
    """A pod that is not terminal, and the job that controls it."""

    key: JobKey
    job_uid: str
    incarnation: int


@dataclass(frozen=True)
class Seen:
    """How a pod looked when it was last heard of."""

    job_uid: str
    facts: Json
    ended: float | None
    """Since when it is known to have ended (monotonic seconds)."""


class PodBook:
    """Pods of jobs by UID, from the watch and from lists: the live ones, and how the departed looked last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.readings = Readings()
        self._pods: dict[str, JobPod] = {}
        self._last_seen: OrderedDict[str, Seen] = OrderedDict()
        self._seen_of: dict[str, dict[str, None]] = {}
        """UID of a job -> UIDs of its pods in `_last_seen`, in the order of their first sight."""
        self._gone: set[str] = set()
        """UIDs of those in `_last_seen` that are there no more."""

    def hear(self, pod: Json, *, deleted: bool = False) -> tuple[JobKey | None, bool]:
        """Take in a watch event: the job that should look because of it; whether the pod has just ended."""
        self.readings.note(pod["metadata"]["uid"])
        return self._take_in(pod, deleted=deleted)

    def _take_in(self, pod: Json, *, deleted: bool = False) -> tuple[JobKey | None, bool]:
        metadata = pod["metadata"]
        owner = controller_of(pod)
        labels = metadata.get("labels") or {}
        if owner is None or labels.get(LABEL_JOB_UID) != owner["uid"]:
            # A list of the job's pods would not show it: who looks for it has to ask for it by its name.
            if metadata["uid"] in self._last_seen:
                self._gone.add(metadata["uid"])
            known = self._pods.pop(metadata["uid"], None)
            return (None if known is None else known.key), False
        key = (metadata["namespace"], owner["name"])
        is_news = deleted or not self._is_known(metadata)
        self._remember(pod, owner["uid"], is_gone=deleted)
        if deleted or is_terminal(pod):
            has_ended = self._pods.pop(metadata["uid"], None) is not None
            return key if is_news or has_ended else None, has_ended
        self._pods[metadata["uid"]] = JobPod(key, owner["uid"], incarnation_of(pod))
        return key if is_news else None, False

    def _is_known(self, metadata: Json) -> bool:
        """Whether this very version of the pod was heard before."""
        version = metadata.get("resourceVersion")
        seen = self._last_seen.get(metadata["uid"])
        return (
            version is not None
            and seen is not None
            and seen.facts["metadata"].get("resourceVersion") == version
        )

    def last_seen(self, job_uid: str) -> tuple[Json, ...]:
        """The newest state that is known of each of the job's pods, gone ones included."""
        return tuple(self._last_seen[uid].facts for uid in self._seen_of.get(job_uid, ()))

    def present(self, job_uid: str) -> tuple[Json, ...]:
        """The job's pods that are there, ended ones included, as they are known."""
        uids = self._seen_of.get(job_uid, ())
        return tuple(self._last_seen[uid].facts for uid in uids if uid not in self._gone)

    def ended(self, uid: str) -> float | None:
        """Since when a pod is known to have ended (monotonic seconds)."""
        seen = self._last_seen.get(uid)
        return None if seen is None else seen.ended

    def take_list(self, job_uid: str, pods: Iterable[Json], reading: Reading) -> None:
        """Take in what was read of a job's pods, for looks to go by until more is heard.

        One of which a watch has not told at all is left to it: it is not to be believed about that pod.
        And that a pod has ended is still news when the watch says so: the look that read it may have failed.
        """
        listed = {pod["metadata"]["uid"]: pod for pod in pods}
        for uid in [uid for uid in self._seen_of.get(job_uid, ()) if uid not in reading.newer]:
            self.readings.note(uid, read_by=reading)
            if uid in listed:
                self._remember(listed[uid], job_uid, is_gone=False)
            else:
                self._gone.add(uid)

    def note_absent(self, uid: str) -> None:
        """The API server says that there is no such pod."""
        self.readings.note(uid)
        if (seen := self._last_seen.get(uid)) is not None:
            self._gone.add(uid)
            self._last_seen[uid] = replace(seen, ended=seen.ended or self._clock())

    def _remember(self, pod: Json, job_uid: str, *, is_gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._last_seen and self._last_seen[uid].job_uid != job_uid:
            self._forget(uid)
        ended = self.ended(uid)
        # A watch by label says DELETED also of a pod that has lost it, and runs on.
        if is_terminal(pod) or (is_gone and is_ending(pod)):
            ended = ended or self._clock()
        self._last_seen[uid] = Seen(job_uid, _facts(pod), ended)
        self._last_seen.move_to_end(uid)
        self._seen_of.setdefault(job_uid, {})[uid] = None
        if is_gone:
            self._gone.add(uid)
        else:
            self._gone.discard(uid)
        while len(self._last_seen) > LAST_SEEN_PODS:
            self._forget(next(iter(self._last_seen)))

    def _forget(self, uid: str) -> None:
        owner = self._last_seen.pop(uid).job_uid
        self._gone.discard(uid)
        del self._seen_of[owner][uid]
        if not self._seen_of[owner]:
            del self._seen_of[owner]

    def replace_all(self, pods: Iterable[Json], reading: Reading) -> frozenset[JobKey]:
        """Take in a complete listing; the jobs whose pods differ from what was heard."""
        newer = reading.newer
        before = self._pods
        self._pods = {uid: pod for uid, pod in before.items() if uid in newer}
        listed = {pod["metadata"]["uid"]: pod for pod in pods}
        self._gone |= self._last_seen.keys() - listed.keys() - newer
        for uid in listed.keys() - newer:
            self.readings.note(uid, read_by=reading)
        changed = {self._take_in(pod)[0] for uid, pod in listed.items() if uid not in newer}
        gone = {before[uid].key for uid in before.keys() - self._pods.keys()}
        return frozenset(gone.union(key for key in changed if key is not None))

    def get(self, uid: str) -> JobPod | None:
        return self._pods.get(uid)
