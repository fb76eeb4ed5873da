"""One scenario on a real cluster: its node, its pod, its watches, and what can be done to them.

Invariant: everything that is done from outside is noted with its time, as the replay does the
same to the model; what Kubernetes makes of it is only watched.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import Any

from demo.lab import processes_of
from demo.streams import Streams
from localcluster import CapacityType, Cluster, NodeSpec, ReclaimStyle
from localcluster.api import STRATEGIC_PATCH, ApiError
from localcluster.cache import Cache
from localcluster.commands import run
from localcluster.images import PYTHON_BASE
from localcluster.nodes import Nodes
from localcluster.reclaim import ReclaimRecord
from localcluster.state import ClusterState
from localcluster.supervision import Supervision
from localcluster.template import template_for
from recording import program
from recording.facts import Json
from recording.sequence import Deed, Done, Scenario, Sequencer

NAMESPACE = "default"
POD = "recorded"
LABEL = "scene"
HIGH_PRIORITY = "recorded-high"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
WATCH_SECONDS = 2.0
"""Until a watch is surely open: what is listed has lost its history."""
STEPS = {
    "event": Deed.NODE_EVENT,
    "node deletion requested": Deed.DELETE_NODE,
    "tainted": Deed.TAINT,
    "cordoned": Deed.CORDON,
    "evicted": Deed.EVICT,
    "powered off": Deed.POWER_OFF,
    "node object removed": Deed.REMOVE_NODE,
}
"""What `localcluster.reclaim` calls its steps."""


class Stage:
    def __init__(self, cluster: Cluster, scenario: Scenario, node: str) -> None:
        self.cluster, self.scenario, self.node = cluster, scenario, node
        self.done: list[Done] = []
        self.seen = Sequencer(
            is_pod=lambda pod: pod["metadata"]["name"] == POD,
            is_node=lambda found: found["metadata"]["name"] == node,
        )
        self._changed = threading.Condition()
        self._streams = Streams(cluster.api, ClusterState.load(cluster.paths).api_port, cluster.paths.pki)

    # ------------------------------------------------------------------ watching

    def watch(self) -> None:
        for plural, collection in (
            ("nodes", "/api/v1/nodes"),
            ("pods", PODS),
            ("events", f"/api/v1/namespaces/{NAMESPACE}/events"),
        ):
            threading.Thread(target=self._watch, args=(plural, collection), daemon=True).start()
        time.sleep(WATCH_SECONDS)

    def _watch(self, plural: str, collection: str) -> None:
        def hear(kind: str, found: dict[str, Any]) -> None:
            with self._changed:
                self.seen.hear(kind, plural, found, datetime.now(UTC))
                self._changed.notify_all()

        self._streams.watch(collection, hear)

    def wait(self, is_so: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
        with self._changed:
            if not self._changed.wait_for(is_so, timeout_seconds):
                changes = "\n".join(map(str, self.seen.changes))
                raise TimeoutError(f"{self.scenario.name}: waited in vain for: {what}\n{changes}")

    def wait_pod(self, timeout_seconds: float = 60.0, **facts: Any) -> None:
        """Until these facts hold of the pod."""
        self.wait(lambda: facts.items() <= self.seen.pod.items(), f"pod {facts}", timeout_seconds)

    def wait_node(self, timeout_seconds: float = 60.0, **facts: Any) -> None:
        self.wait(lambda: facts.items() <= self.seen.node().items(), f"node {facts}", timeout_seconds)

    def close(self) -> None:
        self._streams.close()
        for pod in (POD, f"{POD}-high"):
            with contextlib.suppress(ApiError):
                self.cluster.api.delete(f"{PODS}/{pod}", {"gracePeriodSeconds": 0})
        self.cluster.remove_node(self.node)

    # ------------------------------------------------------------------ the scene

    def boot(self) -> None:
        self.cluster.add_node(NodeSpec(self.node, CapacityType.SPOT, labels={LABEL: self.node}, taints=()))

    def wait_settled(self) -> None:
        """The node has joined for good: the taints of its start are off."""

        def is_settled() -> bool:
            node = self.seen.node()
            return node.get("ready") == "True" and not any(name.startswith("taint") for name in node)

        self.wait(is_settled, "a settled node")

    def cpu(self) -> float:
        """What the node has for pods."""
        text = self.cluster.api.get(f"/api/v1/nodes/{self.node}")["status"]["allocatable"]["cpu"]
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)

    def create_pod(self, *, cpu: float = 0.01, scheduler: str = "default-scheduler") -> None:
        self.cluster.api.create(PODS, self._pod(POD, cpu, schedulerName=scheduler))

    def _pod(self, name: str, cpu: float, **spec: Any) -> dict[str, Any]:
        tolerations = [
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": self.scenario.toleration_seconds,
            }
            for key in ("not-ready", "unreachable")
        ]
        container: dict[str, Any] = {
            "name": "trainer",
            "image": PYTHON_BASE.tag,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", Path(program.__file__).read_text(), self.scenario.at_sigterm],
            "resources": {"requests": {"cpu": f"{cpu:.2f}"}, "limits": {"memory": "64Mi"}},
        }
        volumes = [{"name": "missing", "configMap": {"name": "missing"}}] if self.scenario.is_stuck else []
        container["volumeMounts"] = [{"name": each["name"], "mountPath": "/missing"} for each in volumes]
        return {
            "metadata": {"name": name},
            "spec": {
                "volumes": volumes,
                "containers": [container],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": self.scenario.grace_seconds,
                "automountServiceAccountToken": False,
                "tolerations": tolerations,
                "nodeSelector": {LABEL: self.node},
            }
            | spec,
        }

    # ------------------------------------------------------------------ deeds

    def note(self, deed: Deed, what: str = "", at: datetime | None = None) -> None:
        """Write it down at the moment before it is done."""
        assert self.seen.zero is not None
        at = at or datetime.now(UTC)
        self.done.append(Done(round((at - self.seen.zero).total_seconds(), 2), deed, what))

    def evict(self) -> None:
        self.note(Deed.EVICT)
        body = {"metadata": {"name": POD, "namespace": NAMESPACE}}
        self.cluster.api.create(f"{PODS}/{POD}/eviction", body)

    def delete_pod(self) -> None:
        self.note(Deed.DELETE_POD)
        self.cluster.api.delete(f"{PODS}/{POD}")

    def force_delete(self) -> None:
        self.note(Deed.FORCE_DELETE)
        self.cluster.api.delete(f"{PODS}/{POD}", {"gracePeriodSeconds": 0})

    def bind(self) -> None:
        self.note(Deed.BIND)
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        self.cluster.api.create(f"{PODS}/{POD}/binding", {"metadata": {"name": POD}, "target": target})

    def preempt(self, cpu: float) -> None:
        classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
        with contextlib.suppress(ApiError):
            self.cluster.api.create(classes, {"metadata": {"name": HIGH_PRIORITY}, "value": 1000})
        self.note(Deed.PREEMPT)
        self.cluster.api.create(PODS, self._pod(f"{POD}-high", cpu, priorityClassName=HIGH_PRIORITY))

    def end_program(self, code: int) -> None:
        self.note(Deed.EXIT, str(code))
        self._signal(program.FAIL if code else program.FINISH)

    def take_memory(self) -> None:
        self.note(Deed.OUT_OF_MEMORY)
        self._signal(program.TAKE_MEMORY)

    def _signal(self, number: Signals) -> None:
        pod: Json = self.cluster.api.get(f"{PODS}/{POD}")
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("//")[2]
        os.kill(processes_of(self.cluster.paths.cgroup, container)[0], number)

    def taint(self, key: str, effect: str) -> None:
        self.note(Deed.TAINT, f"{key}:{effect}")
        body = {"spec": {"taints": [{"key": key, "effect": effect}]}}
        self.cluster.api.patch(f"/api/v1/nodes/{self.node}", body, STRATEGIC_PATCH)

    def add_node(self) -> None:
        """Noted as the moment when it joins: a model has no machines that are starting."""
        known = {each.of for each in self.seen.changes}
        self.boot()
        joined = next(each.at for each in self.seen.changes if each.of != "pod" and each.of not in known)
        self.done.append(Done(joined, Deed.ADD_NODE))

    def reboot(self, seconds: float) -> None:
        """Off and on again after a while; the Node object stays, what the machine knew does not."""
        self.note(Deed.REBOOT, f"{seconds:g}")
        paths = self.cluster.paths
        state = ClusterState.load(paths)
        self.cluster.kill_node(self.node)
        time.sleep(seconds)
        nodes = Nodes(paths, Supervision(paths), self.cluster.api)
        layouts = [Path(layout) for layout in state.image_layouts]
        nodes.boot(state.nodes[self.node].spec, template_for(Cache(paths.cache_root), layouts))

    def power_off(self) -> None:
        self.note(Deed.POWER_OFF)
        self.cluster.kill_node(self.node)

    def remove_node(self) -> None:
        self.note(Deed.REMOVE_NODE)
        self.cluster.remove_node(self.node)

    def cut_off(self) -> None:
        self.note(Deed.CUT_OFF)
        self._cable("down")

    def plug_in(self) -> None:
        self.note(Deed.PLUG_IN)
        self._cable("up")

    def _cable(self, state: str) -> None:
        index = ClusterState.load(self.cluster.paths).nodes[self.node].index
        fabric = str(self.cluster.node_pid("control-plane"))
        run("nsenter", "-t", fabric, "-n", "--", "ip", "link", "set", f"node{index}", state)

    def reclaim(self, style: ReclaimStyle, notice_seconds: float, *, leave_when_empty: bool) -> None:
        """As `localcluster.reclaim` does it; its steps are the deeds."""
        record = self.cluster.reclaim(
            self.node, style=style, notice_seconds=notice_seconds, leave_when_empty=leave_when_empty
        )
        self._note_steps(record)

    def _note_steps(self, record: ReclaimRecord) -> None:
        for step in record.steps:
            word, _, rest = step.name.partition(" ")
            deed = STEPS.get(step.name) or STEPS.get(word)
            what = {Deed.NODE_EVENT: rest, Deed.TAINT: step.detail}.get(deed, "") if deed else ""
            if deed is not None:
                self.note(deed, what, at=step.at)
