"""Listens to everything that can be heard of a namespace's jobs, and writes it to the timeline.

Nodes, pods, events and jobs are watched, and the log of every trainer is followed from its
first line, since a log is gone with its machine. Invariant: the recorder only listens; no
decision of the operator or the trainer depends on it.
"""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demo.jobs import DemoError
from demo.streams import Streams
from demo.timeline import Entry, Source, Timeline
from demo.training import Training, parse_line, say, seconds_of
from localcluster.api import ApiError

JOB_LABEL, INCARNATION_LABEL = "spottraining.io/job-name", "spottraining.io/incarnation"
LOG_RETRY_SECONDS = 0.2
LOG_LATEST_SECONDS = 5.0
"""The log of an ended pod that cannot be read for this long is gone."""
LOG_PATIENCE_SECONDS = 10.0
"""A stream through the API server to a machine that has lost its power ends with no word."""
MINOR_REASONS = frozenset({"CheckpointPublished"})


@dataclass
class PodTimes:
    """When a pod was first seen, and when it was first seen to be over."""

    name: str
    job: str
    incarnation: int
    created: float
    node: str = ""
    ended: float | None = None


class Recorder:
    """Start it before the jobs; `training(job)` is then always up to date."""

    def __init__(self, streams: Streams, namespace: str, timeline: Timeline) -> None:
        self._streams, self.namespace, self.timeline = streams, namespace, timeline
        self.pods: dict[str, PodTimes] = {}
        self.nodes: dict[str, str] = {}
        """What the cluster says of each machine, in one word."""
        self.jobs: dict[str, dict[str, Any]] = {}
        """The newest object of each job."""
        self._trainings: dict[str, Training] = {}
        self._events: set[str] = set()
        self._changed = threading.Condition()

    def start(self) -> None:
        core = f"/api/v1/namespaces/{self.namespace}"
        group = f"/apis/spottraining.io/v1alpha1/namespaces/{self.namespace}"
        kind = "fieldSelector=involvedObject.kind%3DSpotTrainingJob"
        self._spawn(lambda: self._streams.watch("/api/v1/nodes", self._on_node))
        self._spawn(lambda: self._streams.watch(f"{core}/pods", self._on_pod))
        self._spawn(lambda: self._streams.watch(f"{core}/events", self._on_event, query=kind))
        self._spawn(lambda: self._streams.watch(f"{group}/spottrainingjobs", self._on_job))

    def close(self) -> None:
        self._streams.close()

    def training(self, job: str) -> Training:
        with self._changed:
            return self._trainings.setdefault(job, Training())

    def wait(
        self, job: str, is_so: Callable[[Training], bool], *, what: str, timeout_seconds: float = 60.0
    ) -> Training:
        """The job's training as soon as the predicate holds for it."""
        training = self.training(job)
        with self._changed:
            if not self._changed.wait_for(lambda: is_so(training), timeout_seconds):
                raise DemoError(
                    f"job {job}: waited {timeout_seconds:.0f} s in vain for: {what}; the trainer is at step "
                    f"{training.last_step} of incarnation {training.incarnation}"
                )
        return training

    def note(self, text: str, *, job: str = "", source: Source = Source.DEMO) -> None:
        """Add something that the demo itself does."""
        self.timeline.add(Entry(time.time(), source, text, job))

    # ------------------------------------------------------------------ watches

    def _on_node(self, change: str, node: Mapping[str, Any]) -> None:
        name = node["metadata"]["name"]
        word = "gone" if change == "DELETED" else _node_word(node)
        if self.nodes.get(name) != word:
            self.nodes[name] = word
            self.note(f"{name}: {word}", source=Source.NODE)

    def _on_pod(self, change: str, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        job = metadata.get("labels", {}).get(JOB_LABEL)
        if job is None:
            return
        uid, now = metadata["uid"], time.time()
        known = self.pods.get(uid)
        if known is None:
            incarnation = int(metadata["labels"][INCARNATION_LABEL])
            known = self.pods[uid] = PodTimes(metadata["name"], job, incarnation, now)
            self._spawn(lambda: self._follow(metadata["name"], uid, job))
        node = pod["spec"].get("nodeName", "")
        if node and not known.node:
            known.node = node
            entry = Entry(now, Source.NODE, f"{node}: pod {known.name} placed", job, is_minor=True)
            self.timeline.add(entry)
        over = change == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed")
        if over and known.ended is None:
            known.ended = now

    def _on_event(self, change: str, event: Mapping[str, Any]) -> None:
        uid = f"{event['metadata']['uid']}/{event.get('count', 1)}"
        if change == "DELETED" or uid in self._events:
            return
        self._events.add(uid)
        text, reason = event["message"], event["reason"]
        when = event.get("eventTime") or None
        moment = seconds_of(when) if when else time.time()
        job = event["involvedObject"]["name"]
        minor = reason in MINOR_REASONS
        self.timeline.add(Entry(moment, Source.OPERATOR, f"{reason}: {text}", job, is_minor=minor))

    def _on_job(self, change: str, job: dict[str, Any]) -> None:
        with self._changed:
            self.jobs[job["metadata"]["name"]] = job
            self._changed.notify_all()

    # ------------------------------------------------------------------ trainers' lines

    def _follow(self, pod: str, uid: str, job: str) -> None:
        """Read the pod's log to its end; before the container runs there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log?follow=true"
        num_read = 0
        while not self._streams.closing.is_set():
            # Only a stream that was opened after the end is known to have said everything.
            ended = self.pods[uid].ended
            is_whole = False
            with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
                for number, text in enumerate(
                    self._streams.lines(path, patience_seconds=LOG_PATIENCE_SECONDS)
                ):
                    if number >= num_read and text.endswith(b"\n"):
                        num_read = number + 1
                        self._on_line(job, text)
                is_whole = True
            if ended is not None and (is_whole or time.time() - ended > LOG_LATEST_SECONDS):
                return
            self._streams.closing.wait(LOG_RETRY_SECONDS)

    def _on_line(self, job: str, text: bytes) -> None:
        line = parse_line(text)
        if line is None:
            decoded = text.decode(errors="replace").rstrip()
            self.timeline.add(Entry(time.time(), Source.TRAINER, decoded[:300], job, is_minor=True))
            return
        training = self.training(job)
        with self._changed:
            training.add(line)
            self._changed.notify_all()
        if words := say(line):
            minor = line["event"] == "checkpoint"
            entry = Entry(seconds_of(line["time"]), Source.TRAINER, words, job, is_minor=minor)
            self.timeline.add(entry)

    def _spawn(self, action: Callable[[], None]) -> None:
        threading.Thread(target=action, daemon=True).start()


def _node_word(node: Mapping[str, Any]) -> str:
    """The most important thing about a node."""
    taints = {taint["key"] for taint in node["spec"].get("taints", [])}
    conditions = {found["type"]: found["status"] for found in node["status"].get("conditions", [])}
    ready = conditions.get("Ready")
    if node["metadata"].get("deletionTimestamp") or "karpenter.sh/disrupted" in taints:
        return "being reclaimed"
    if ready == "Unknown":
        return "silent (Ready=Unknown)"
    if node["spec"].get("unschedulable"):
        return "cordoned"
    return "ready" if ready == "True" else "starting"
