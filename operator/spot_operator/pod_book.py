"""What watches and lists said last of the jobs' pods, and which pod belongs to which job.

Hints for waking the right job at once, for looks that need no read, and for answering a progress report in
milliseconds. Invariants: nothing that runs is stopped on their word alone: the look that would reads first;
of a pod that is there no more, the last that was seen of it stays for the verdict; what is remembered of
ended ones is bounded.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from spot_operator.names import LABEL_JOB_UID, JobKey
from spot_operator.readings import Reading, Readings
from spot_operator.views import controller_of, incarnation_of, is_ending, is_terminal

Json = Mapping[str, Any]

LAST_SEEN_PODS: Final = 4096
"""Enough for every pod of a large cluster that is ending at one time; older ones are forgotten."""


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
