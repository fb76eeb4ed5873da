"""The model of everything around the operator: scheduler, kubelets, node controllers, autoscaler, jobs.

Times are those of the real parts' defaults. Invariant: a verdict's truth is written down here,
by whoever does the deed (`truth`), and never read by anything but the checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from simulation import schedule
from simulation.api import Api, Object, Refusal, format_time
from simulation.trainer import End, Store, TrainerProcess
from spot_operator.names import ANNOTATION_PRICE_PER_NODE_HOUR, LABEL_CAPACITY_TYPE, LABEL_JOB_NAME
from spot_operator.views import controller_of, incarnation_of, time_of
from spot_trainer.contract import Directives, ProgressReport, parse_outcome

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TAINT_UNREACHABLE = "node.kubernetes.io/unreachable"
TAINT_NOT_READY = "node.kubernetes.io/not-ready"
RECONNECT_SECONDS = 12.0
"""Until a kubelet that was cut off is heard again, at most."""
JOIN_SECONDS = 0.5
"""Between the Node object and its being ready."""
MONITOR_GRACE_SECONDS = 40.0
MONITOR_PERIOD_SECONDS = 5.0
POD_GC_SECONDS = 20.0
POD_GC_QUARANTINE_SECONDS = 40.0
"""The pod garbage collector believes only then that a Node object is gone."""
DEFAULT_TOLERATION_SECONDS = 300.0
"""What admission gives a pod that says nothing of nodes that are out of reach."""
UNKNOWN_END = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}
"""Of a container that the kubelet looked for and did not find."""
PROVISION_SECONDS = (20.0, 60.0)
CLEAR_SECONDS = 1.0
"""Between the end of a pod's containers and that of the pod."""
ADMISSION_SECONDS = 0.1
"""Until the kubelet has taken a pod in or refused it."""
POOLS = ("spot", "on-demand")
PRICES = {"spot": ("1.0", "1.5"), "on-demand": ("3.0", "3.0")}
"""What nodes say that they cost; they differ."""
NAMESPACE = "team"


@dataclass
class Machine:
    """What the Node object does not know."""

    name: str
    uid: str
    pool: str
    is_on: bool = True
    is_connected: bool = True
    is_booting: bool = False
    num_cuts: int = 0
    lost_since: float | None = None
    lost_at: list[float] = field(default_factory=list)
    tainted_at: list[float] = field(default_factory=list)
    announced_at: float | None = None
    """When it was first said that it would go."""
    was_lost: bool = False
    """It was out of sight at some time."""
    deeds: set[str] = field(default_factory=set)
    """What happens to it: also to pods that are bound to it from now on."""

    @property
    def is_heard(self) -> bool:
        return self.is_on and self.is_connected


@dataclass
class Running:
    """A container that was started."""

    pod_uid: str
    pod_name: str
    job: str
    machine: Machine
    process: TrainerProcess
    task: asyncio.Task[End]
    told_at: float | None = None
    is_under_pressure: bool = False
    is_shut_down: bool = False
    """Its kubelet ends it because the node shuts down."""


def _environment(pod: Object) -> dict[str, float]:
    """The variables of the trainer that are numbers."""
    found = pod["spec"]["containers"][0].get("env", ())
    return {each["name"]: float(each["value"]) for each in found if str(each.get("value", "")).isdigit()}


class World:
    def __init__(
        self,
        seed: int,
        seconds: Callable[[], float],
        *,
        monitor_grace_seconds: float = MONITOR_GRACE_SECONDS,
    ) -> None:
        self._monitor_grace_seconds = monitor_grace_seconds
        self.rng = random.Random(seed)
        self.seconds = seconds
        self.api = Api(self.now, random.Random(seed + 1))
        self.api.listeners.append(self._react)
        self.machines: dict[str, Machine] = {}
        """By UID of the node."""
        self.running: dict[str, Running] = {}
        """By UID of the pod; only live processes."""
        self.stores: dict[str, Store] = defaultdict(Store)
        self.truth: dict[str, set[str]] = defaultdict(set)
        """What was done to a pod, by its UID."""
        self.ended_at: dict[str, tuple[float, Machine]] = {}
        """When and where the program of a pod has ended, by the pod's UID."""
        self.ended: dict[str, str] = {}
        """UIDs of pods whose program has ended on its own or was killed, and how."""
        self.final_step: dict[str, int] = {}
        """The step of the last checkpoint that a pod's outcome names, by the pod's UID."""
        self.started: set[str] = set()
        """UIDs of pods whose program has run."""
        self.unreadable: list[tuple[float, float]] = []
        """From when to when nodes could not be read."""
        self.gone_at: dict[str, float] = {}
        """When a Node object went, by its UID."""
        self._lost: dict[str, list[Running]] = defaultdict(list)
        self.reported: dict[str, int] = defaultdict(int)
        """The greatest durable step that a job's trainers have told an operator."""
        self.bugs: dict[str, tuple[int, End]] = {}
        """How many of a job's next starts end in a crash, and how."""
        self.crashes: Counter[str] = Counter()
        self.is_drought = False
        self.kubelets_refuse = False
        """Pods that are bound are refused by the kubelet."""
        self.log: list[str] = []
        self.report_to: Callable[[str, ProgressReport], Directives | None] = lambda _uid, _report: None
        self.on_start: Callable[[Running], None] = lambda _: None
        self.on_end: Callable[[Running, End], None] = lambda _each, _end: None
        self.complain: Callable[[str], None] = print
        """Of what went wrong in the model itself, and would otherwise be lost."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._schedule_due = False
        self._provisioning: set[str] = set()
        self._num_nodes = 0

    # ------------------------------------------------------------------ time and tasks

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds())

    def say(self, text: str) -> None:
        self.log.append(f"{self.seconds():8.2f}  {text}")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_done)

    def _note_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complain(f"the model itself failed: {error!r}")

    async def _until(self, what: Callable[[], bool], every_seconds: float) -> None:
        while not what():  # noqa: ASYNC110  (a poll of the model's; its time is virtual)
            await asyncio.sleep(every_seconds)

    async def _is_heard_again(self, machine: Machine) -> bool:
        """Wait until its kubelet can tell something; False: that will never be."""
        await self._until(lambda: machine.is_heard or not machine.is_on, 1)
        return machine.is_heard

    async def close(self) -> None:
        for task in [*self._tasks, *(each.task for each in self.running.values())]:
            task.cancel()
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ nodes

    def add_node(self, pool: str, name: str = "") -> Machine:
        self._num_nodes += 1
        name = name or f"{pool}-{self._num_nodes}"
        node = self.api.create(
            "nodes",
            {
                "metadata": {
                    "name": name,
                    "labels": {"pool": pool, "topology.kubernetes.io/zone": "a"},
                    "annotations": {ANNOTATION_PRICE_PER_NODE_HOUR: PRICES[pool][self._num_nodes % 2]},
                },
                "spec": {"taints": [{"key": TAINT_NOT_READY, "effect": "NoSchedule"}]},
                "status": {
                    "nodeInfo": {"bootID": f"boot-{self._num_nodes}"},
                    "conditions": [self._ready("False", "container runtime network not ready")],
                },
            },
        )
        self.spawn(self._meet_old_pods(name, node["metadata"]["uid"]))
        machine = Machine(name, node["metadata"]["uid"], pool)
        self.machines[machine.uid] = machine
        self.say(f"node {name} joins")
        self.spawn(self._settle(machine))
        return machine

    async def _settle(self, machine: Machine) -> None:
        await asyncio.sleep(JOIN_SECONDS)
        if await self._is_heard_again(machine):
            self.set_ready(machine, "True")
            self.untaint(machine, TAINT_NOT_READY)

    async def _meet_old_pods(self, name: str, node_uid: str) -> None:
        """A machine that comes back under its name finds pods of its past: it refuses or misses them."""
        await asyncio.sleep(self.rng.uniform(1.0, 4.0))
        for pod in list(self.api.all("pods")):
            is_old = pod.get("model", {}).get("machine") != node_uid
            metadata = pod["metadata"]
            if pod["spec"].get("nodeName") != name or not is_old or metadata["uid"] in self.running:
                continue
            if metadata.get("deletionTimestamp"):
                self.api.delete_pod(pod, grace_seconds=0)
            elif pod["status"]["phase"] not in ("Succeeded", "Failed"):
                if self.rng.random() < 0.5:
                    self.truth[metadata["uid"]].add("refused")
                    self.refuse(metadata["name"])
                else:
                    self.spawn(self._miss(metadata["uid"], metadata["name"], self.machines[node_uid]))

    async def _miss(self, uid: str, name: str, machine: Machine) -> None:
        """The kubelet takes the pod in, finds no container of it, and does not start another."""
        creating = {"waiting": {"reason": "ContainerCreating"}}
        pod = self._pod(uid, name)
        if pod is None:
            return
        self._set_state(uid, name, creating, pod["status"]["phase"])
        await asyncio.sleep(CLEAR_SECONDS)
        if self.rng.random() < 0.5:
            # Seen once in four times: the pod has failed, and its container has no end yet.
            self._set_state(uid, name, creating, "Failed")
            await asyncio.sleep(CLEAR_SECONDS)
        if not await self._is_heard_again(machine):
            return
        self._set_state(uid, name, UNKNOWN_END, "Failed")
        pod = self._pod(uid, name)
        if pod is not None and pod["metadata"].get("deletionTimestamp"):
            self.api.delete_pod(pod, grace_seconds=0)

    def taint(
        self, machine: Machine, key: str, effect: str = "NoSchedule", *, is_dated: bool = False
    ) -> None:
        """Kubernetes' own controllers say since when; nobody else does."""
        taint = {"key": key, "effect": effect}
        if is_dated:
            taint["timeAdded"] = format_time(self.now())

        machine.tainted_at.append(self.seconds())

        def change(node: Object) -> None:
            node["spec"].setdefault("taints", []).append(taint)

        node = self.node_of(machine)
        if node is None or any(
            (t["key"], t["effect"]) == (key, effect) for t in node["spec"].get("taints", ())
        ):
            return
        self._update_node(machine, change)
        if effect == "NoExecute":
            for pod in self.api.all("pods"):
                if pod["spec"].get("nodeName") == machine.name:
                    self.spawn(self._evict_when_tolerated(machine, taint, pod))

    def untaint(self, machine: Machine, key: str, effect: str = "") -> None:
        """Without an effect, all taints of the key."""

        def change(node: Object) -> None:
            taints = node["spec"].get("taints", [])
            node["spec"]["taints"] = [t for t in taints if t["key"] != key or effect not in ("", t["effect"])]

        self._update_node(machine, change)

    def mark_node_deleted(self, machine: Machine) -> None:
        self.announce(machine)

        def change(node: Object) -> None:
            node["metadata"]["deletionTimestamp"] = format_time(self.now())

        self._update_node(machine, change)

    def set_ready(self, machine: Machine, status: str, message: str = "") -> None:
        def change(node: Object) -> None:
            node["status"]["conditions"] = [self._ready(status, message)]

        self._update_node(machine, change)

    def _ready(self, status: str, message: str = "") -> Object:
        since = format_time(self.now())
        return {"type": "Ready", "status": status, "message": message, "lastTransitionTime": since}

    def cordon(self, machine: Machine) -> None:
        self.announce(machine)
        self._update_node(machine, lambda node: node["spec"].update(unschedulable=True))
        self.taint(machine, "node.kubernetes.io/unschedulable", is_dated=True)

    def remove_node(self, machine: Machine, *, is_off: bool = True) -> None:
        if is_off:
            self.power_off(machine)
        node = self.api.get("nodes", machine.name)
        if node is not None and node["metadata"]["uid"] == machine.uid:
            self.say(f"node object {machine.name} is removed")
            self.gone_at[machine.uid] = self.seconds()
            self.api.remove("nodes", machine.name)
            self.spawn(self._collect_garbage(machine))

    def power_off(self, machine: Machine) -> None:
        """Everything on it is gone; nobody tells."""
        if not machine.is_on:
            return
        machine.is_on = False
        self.say(f"machine {machine.name} is off")
        for each in self.pods_on(machine):
            self._lost[machine.uid].append(each)
            self._kill_silently(each)
        self._lose(machine)

    def lost_on(self, machine: Machine) -> list[Running]:
        """Containers that ran when the machine went off."""
        return self._lost[machine.uid]

    def disconnect(self, machine: Machine) -> None:
        machine.is_connected = False
        machine.num_cuts += 1
        self.say(f"machine {machine.name} is cut off")
        self._lose(machine)

    def connect(self, machine: Machine) -> None:
        """The network is back; what the kubelet had sent into the void is first waited for."""
        if not machine.is_connected:
            self.spawn(self._reconnect(machine, machine.num_cuts))

    async def _reconnect(self, machine: Machine, cut: int) -> None:
        await asyncio.sleep(self.rng.uniform(0.5, RECONNECT_SECONDS))
        if machine.num_cuts == cut:
            self._hear_again(machine)

    def _hear_again(self, machine: Machine) -> None:
        if machine.is_connected:
            return
        machine.is_connected, machine.lost_since = True, None
        self.say(f"machine {machine.name} is back")
        if machine.is_on:
            self.set_ready(machine, "True")
            self.untaint(machine, TAINT_UNREACHABLE, "NoSchedule")
            self.spawn(self._forgive(machine))
        for each in self.pods_on(machine):
            self._sync(each)

    async def _forgive(self, machine: Machine) -> None:
        """The node lifecycle controller comes round; until then the taint manager goes on."""
        await asyncio.sleep(self.rng.uniform(0.1, MONITOR_PERIOD_SECONDS))
        if machine.lost_since is None:
            self.untaint(machine, TAINT_UNREACHABLE, "NoExecute")

    def _lose(self, machine: Machine) -> None:
        machine.was_lost = True
        machine.lost_at.append(self.seconds())
        if machine.lost_since is None:
            machine.lost_since = self.seconds()
            self.spawn(self._watch_heartbeat(machine, machine.lost_since))

    async def _watch_heartbeat(self, machine: Machine, since: float) -> None:
        """The node lifecycle controller, and then the taint manager."""
        await asyncio.sleep(self._monitor_grace_seconds)
        if machine.lost_since != since or self.node_of(machine) is None:
            return
        self.set_ready(machine, "Unknown", "Kubelet stopped posting node status.")
        self.taint(machine, TAINT_UNREACHABLE, "NoSchedule", is_dated=True)
        self.taint(machine, TAINT_UNREACHABLE, "NoExecute", is_dated=True)

    async def _evict_when_tolerated(self, machine: Machine, taint: Object, pod: Object) -> None:
        """The taint manager; it forgets about it when the taint goes."""
        is_silence = taint["key"] == TAINT_UNREACHABLE
        tolerated = [
            float(t["tolerationSeconds"])
            for t in pod["spec"].get("tolerations", ())
            if t.get("key") == taint["key"] and "tolerationSeconds" in t
        ]
        await asyncio.sleep(min(tolerated, default=DEFAULT_TOLERATION_SECONDS if is_silence else 0.0))
        node = self.node_of(machine)
        is_still_there = node is not None and any(t is taint for t in node["spec"].get("taints", ()))
        if is_still_there and self.api.get("pods", pod["metadata"]["name"], NAMESPACE) is pod:
            self._disrupt(pod["metadata"]["name"], "DeletionByTaintManager")
            self.api.delete_pod(pod)

    async def _collect_garbage(self, machine: Machine) -> None:
        await asyncio.sleep(POD_GC_QUARANTINE_SECONDS + self.rng.uniform(0.5, POD_GC_SECONDS))
        for pod in list(self.api.all("pods")):
            if pod["spec"].get("nodeName") == machine.name and self.api.get("nodes", machine.name) is None:
                if pod["status"]["phase"] not in ("Succeeded", "Failed"):
                    self._disrupt(pod["metadata"]["name"], "DeletionByPodGC", phase="Failed")
                self.api.delete_pod(pod, grace_seconds=0)

    def node_of(self, machine: Machine) -> Object | None:
        node = self.api.get("nodes", machine.name)
        return node if node is not None and node["metadata"]["uid"] == machine.uid else None

    def announce(self, machine: Machine) -> None:
        """Something says that it will go."""
        machine.announced_at = machine.announced_at or self.seconds()

    def _update_node(self, machine: Machine, change: Callable[[Object], None]) -> None:
        if self.node_of(machine) is not None:
            self.api.update("nodes", machine.name, change)

    def machine_of(self, pod: Object) -> Machine | None:
        """Where the pod runs, if that machine's Node is the one that it was bound to."""
        return self.machines.get(pod.get("model", {}).get("machine", ""))

    def pods_on(self, machine: Machine) -> list[Running]:
        return [each for each in self.running.values() if each.machine is machine]

    # ------------------------------------------------------------------ pods

    def _react(self, kind: str, plural: str, changed: Object) -> None:
        if plural == "spottrainingjobs":
            if kind == "DELETED":
                self.spawn(self._delete_dependents(changed["metadata"]["uid"]))
            return
        if plural in ("pods", "nodes") and not self._schedule_due:
            self._schedule_due = True
            self.spawn(self._schedule_soon())
        if plural == "pods" and kind != "ADDED" and changed["metadata"]["uid"] in self.running:
            self._sync(self.running[changed["metadata"]["uid"]])

    async def _delete_dependents(self, job_uid: str) -> None:
        await asyncio.sleep(self.rng.uniform(0.1, 2.0))
        for pod in list(self.api.all("pods")):
            if (controller_of(pod) or {}).get("uid") == job_uid:
                self.api.delete_pod(pod)

    async def _schedule_soon(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.02, 0.3))
        self._schedule_due = False
        taken = {
            pod["spec"].get("nodeName")
            for pod in self.api.all("pods")
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
        }
        for pod in list(self.api.all("pods")):
            if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
                continue
            if "schedulerName" in pod["spec"]:
                continue  # somebody else's
            pool = pod["spec"].get("nodeSelector", {}).get("pool", "")
            node = next((n for n in self.api.all("nodes") if self._fits(n, pool, taken)), None)
            if node is None:
                self._note_unschedulable(pod)
                self._provision(pool)
                continue
            taken.add(node["metadata"]["name"])
            self.bind(pod, self.machines[node["metadata"]["uid"]])

    def _fits(self, node: Object, pool: str, taken: set[str | None]) -> bool:
        metadata, spec = node["metadata"], node["spec"]
        return (
            metadata["labels"]["pool"] == pool
            and metadata["name"] not in taken
            and not metadata.get("deletionTimestamp")
            and not spec.get("unschedulable")
            and not spec.get("taints")
            and node["status"]["conditions"][0]["status"] == "True"
        )

    def _note_unschedulable(self, pod: Object) -> None:
        if pod["status"].get("conditions"):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available",
            "lastTransitionTime": format_time(self.now()),
        }
        name = pod["metadata"]["name"]
        self.api.update("pods", name, lambda each: each["status"].update(conditions=[condition]), NAMESPACE)

    def _provision(self, pool: str) -> None:
        if pool in POOLS and pool not in self._provisioning:
            self._provisioning.add(pool)
            self.spawn(self._provision_later(pool))

    async def _provision_later(self, pool: str) -> None:
        await asyncio.sleep(self.rng.uniform(*PROVISION_SECONDS))
        await self._until(lambda: not self.is_drought or pool != "spot", 5)
        self._provisioning.discard(pool)
        self.add_node(pool)

    def bind(self, pod: Object, machine: Machine) -> None:
        metadata = pod["metadata"]
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": format_time(self.now()),
        }

        def change(each: Object) -> None:
            each["spec"]["nodeName"] = machine.name
            each["model"] = {"machine": machine.uid}
            each["status"]["conditions"] = [condition]

        self.truth[metadata["uid"]] |= machine.deeds
        self.api.update("pods", metadata["name"], change, NAMESPACE)
        self.spawn(self._start(metadata["uid"], metadata["name"], machine))

    async def _start(self, uid: str, name: str, machine: Machine) -> None:
        seconds = self.rng.uniform(0.5, 4.0)
        await asyncio.sleep(ADMISSION_SECONDS)
        if machine.is_heard and not self.kubelets_refuse:
            self._note_creating(uid, name)
        await asyncio.sleep(seconds - ADMISSION_SECONDS)
        if not await self._is_heard_again(machine):
            return
        await self._until(lambda: not self._is_stuck(uid, name), 1)
        pod = self._pod(uid, name)
        if pod is None or pod["status"]["phase"] != "Pending":
            return
        if pod["metadata"].get("deletionTimestamp"):
            # Never started, and told like one that was lost.
            self._set_state(uid, name, UNKNOWN_END, "Failed")
            self.api.delete_pod(pod, grace_seconds=0)
            return
        if self.kubelets_refuse:
            self.truth[uid].add("refused")
            self.refuse(name)
            return
        job = pod["metadata"]["labels"][LABEL_JOB_NAME]
        settings = (self.api.get("spottrainingjobs", job, NAMESPACE) or {}).get("model", {})
        process = TrainerProcess(
            self.stores[job],
            incarnation=incarnation_of(pod),
            total_steps=settings.get("steps", 1),
            save_every_seconds=settings.get("save", 20),
            save_cost_seconds=settings.get("cost", 1.5),
            is_plain=settings.get("plain", False),
            at_sigterm=settings.get("atSIGTERM", "dies"),
            crashes_after=self._take_bug(job, uid),
            handover_seconds=_environment(pod).get("SPOT_HANDOVER_SECONDS", 0.0),
            rng=random.Random(self.rng.getrandbits(32)),
            report=lambda report: self._report(uid, report),
        )
        each = Running(uid, name, job, machine, process, asyncio.create_task(process.run()))
        self.running[uid] = each
        self.started.add(uid)
        self.say(f"pod {name} runs on {machine.name} ({pod['metadata']['labels'][LABEL_CAPACITY_TYPE]})")
        self.on_start(each)
        state = {"running": {"startedAt": format_time(self.now())}}
        self._set_state(uid, name, state, "Running")
        self.spawn(self._follow(each))

    def _pod(self, uid: str, name: str) -> Object | None:
        pod = self.api.get("pods", name, NAMESPACE)
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None

    def _is_stuck(self, uid: str, name: str) -> bool:
        """Its kubelet waits for a volume: there are no config maps here."""
        pod = self._pod(uid, name)
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return False
        return any("configMap" in volume for volume in pod["spec"].get("volumes", ()))

    def _note_creating(self, uid: str, name: str) -> None:
        pod = self._pod(uid, name)
        if pod is not None and not pod["metadata"].get("deletionTimestamp"):
            self._set_state(uid, name, {"waiting": {"reason": "ContainerCreating"}}, "Pending")

    def _take_bug(self, job: str, uid: str) -> tuple[float, End] | None:
        left, end = self.bugs.get(job, (0, End(1, "Error")))
        if left <= 0:
            return None
        self.bugs[job] = (left - 1, end)
        self.crashes[job] += 1
        if end.exit_code == 75:
            self.truth[uid].add("stops itself")
        else:
            self.truth[uid].add("out of memory" if end.reason == "OOMKilled" else "crash")
        return self.rng.uniform(1.0, 8.0), end

    def _report(self, uid: str, report: ProgressReport) -> Directives | None:
        each = self.running.get(uid)
        if each is None or not each.machine.is_heard:
            return None
        answer = self.report_to(uid, report)
        if answer is not None:
            self.reported[each.job] = max(self.reported[each.job], report.durable_step or 0)
        return answer

    def _set_state(self, uid: str, name: str, state: Object, phase: str, **status: Any) -> None:
        def change(pod: Object) -> None:
            pod["status"] |= {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}
            pod["status"] |= status

        if self._pod(uid, name) is not None:
            self.api.update("pods", name, change, NAMESPACE)

    async def _follow(self, each: Running) -> None:
        """The kubelet: tell how the container ended, once somebody can be told."""
        try:
            end = await each.task
        except asyncio.CancelledError:
            if not each.task.cancelled():
                raise
            if each.pod_uid not in self.running:
                return  # nobody lives to tell
            end = End(137, "Error")
        self.running.pop(each.pod_uid, None)
        self.on_end(each, end)
        self.ended_at[each.pod_uid] = (self.seconds(), each.machine)
        self.ended[each.pod_uid] = f"exit {end.exit_code}"
        outcome = parse_outcome(end.message)
        if outcome is not None and outcome.checkpoint is not None:
            self.final_step[each.pod_uid] = outcome.checkpoint.step
        self.say(f"pod {each.pod_name} ended with {end.exit_code} at step {each.process.step}")
        finished = format_time(self.now())
        await asyncio.sleep(self.rng.uniform(0.05, 1.0))
        if not await self._is_heard_again(each.machine):
            return
        reason = {}
        if each.is_shut_down:
            reason = {"reason": "Terminated", "message": "Pod was terminated in response to node shutdown."}
        if each.is_under_pressure:
            reason = {"reason": "Evicted", "message": "The node was low on resource: memory."}
        state = {
            "terminated": {
                "exitCode": end.exit_code,
                "reason": end.reason,
                "message": end.message,
                "finishedAt": finished,
            }
        }
        if not reason and each.told_at is None:
            # Nobody asked for it: the container's end is told first, and the pod's when all is cleared away.
            self._set_state(each.pod_uid, each.pod_name, state, "Running")
            await asyncio.sleep(CLEAR_SECONDS)
            if not await self._is_heard_again(each.machine):
                return
        phase = "Succeeded" if end.exit_code == 0 else "Failed"
        if each.is_under_pressure and self._pod(each.pod_uid, each.pod_name) is not None:
            told = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}], **reason}
            self._disrupt(each.pod_name, "TerminationByKubelet", **told)  # a kubelet says it all at once
        else:
            self._set_state(each.pod_uid, each.pod_name, state, phase, **reason)
        while (pod := self._pod(each.pod_uid, each.pod_name)) is not None:
            if pod["metadata"].get("deletionTimestamp"):
                break
            await asyncio.sleep(2)
        if pod is None:
            return
        await asyncio.sleep(self.rng.uniform(0.01, 2.0))
        await self._until(lambda: each.machine.is_heard or not each.machine.is_on, 1)
        if each.machine.is_heard:
            self.api.delete_pod(pod, grace_seconds=0)

    def _sync(self, each: Running) -> None:
        """The kubelet does what the API server says of a pod that it runs."""
        if not each.machine.is_heard:
            return
        pod = self._pod(each.pod_uid, each.pod_name)
        if pod is None:
            each.task.cancel()
            return
        if pod["metadata"].get("deletionTimestamp") and each.told_at is None:
            each.told_at = self.seconds()
            each.process.terminate()
            due = time_of(pod["metadata"]["deletionTimestamp"])
            assert due is not None
            self.spawn(self._kill_at(each, (due - self.now()).total_seconds()))

    async def _kill_at(self, each: Running, after: float) -> None:
        await asyncio.sleep(max(0.0, after))
        await self._until(lambda: each.machine.is_heard or not each.machine.is_on, 1)
        each.task.cancel()

    def _kill_silently(self, each: Running) -> None:
        self.running.pop(each.pod_uid, None)
        self.ended[each.pod_uid] = "its machine went off"
        each.task.cancel()

    def _disrupt(self, name: str, reason: str, /, **status: Any) -> None:
        """A later reason replaces an earlier one, and not since when the pod is a target."""

        def change(pod: Object) -> None:
            conditions = pod["status"].get("conditions", [])
            before: Object = next((c for c in conditions if c["type"] == "DisruptionTarget"), {})
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": reason,
                "lastTransitionTime": before.get("lastTransitionTime", format_time(self.now())),
            }
            pod["status"]["conditions"] = [*(c for c in conditions if c is not before), condition]
            pod["status"] |= status

        self.api.update("pods", name, change, NAMESPACE)

    def refuse(self, name: str) -> None:
        """The kubelet does not admit a pod that is bound to its node."""

        def change(pod: Object) -> None:
            pod["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: no cpu"}

        self.api.update("pods", name, change, NAMESPACE)

    def preempt(self, pod: Object) -> None:
        """The scheduler makes room."""
        self._disrupt(pod["metadata"]["name"], "PreemptionByScheduler")
        self.api.delete_pod(pod)

    def evict_under_pressure(self, pod: Object) -> None:
        """The kubelet kills at once, and says so when the container has ended."""
        each = self.running.get(pod["metadata"]["uid"])
        if each is not None and each.machine.is_heard:
            each.is_under_pressure = True
            each.process.crash(End(137, "Error"))

    def reboot(self, machine: Machine, seconds: float) -> None:
        """The containers are gone; the kubelet comes back and cannot find them."""
        lost = self.pods_on(machine)
        for each in lost:
            self._kill_silently(each)
        machine.is_connected, machine.is_booting = False, True
        self._lose(machine)
        self.say(f"machine {machine.name} reboots")
        self.spawn(self._come_back(machine, lost, seconds))

    async def _come_back(self, machine: Machine, lost: list[Running], seconds: float) -> None:
        await asyncio.sleep(seconds)
        machine.is_booting = False
        if not machine.is_on:
            return

        def boot(node: Object) -> None:
            node["status"]["nodeInfo"] = {"bootID": f"boot-{self.rng.getrandbits(32)}"}

        self._update_node(machine, boot)
        self._hear_again(machine)
        for each in lost:
            self.spawn(self._miss(each.pod_uid, each.pod_name, machine))

    def evict(self, pod: Object) -> None:
        """The Eviction API."""
        self._disrupt(pod["metadata"]["name"], "EvictionByEvictionAPI")
        self.api.delete_pod(pod)

    def force_delete(self, pod: Object) -> None:
        """The object goes at once, whatever its process does."""
        self.api.delete_pod(pod, grace_seconds=0)

    async def announce_eviction(self, pod: Object, seconds: float) -> None:
        """A DisruptionTarget that nothing follows from is taken back by the disruption controller."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        self._disrupt(name, "EvictionByEvictionAPI")
        await asyncio.sleep(seconds)
        found = self.api.get("pods", name, NAMESPACE)
        if found is None or found["metadata"]["uid"] != uid or found["metadata"].get("deletionTimestamp"):
            return
        if found["status"]["phase"] in ("Succeeded", "Failed"):
            return
        self.truth[uid].discard("eviction")

        def take_back(each: Object) -> None:
            for condition in each["status"]["conditions"]:
                if condition["type"] == "DisruptionTarget":
                    condition["status"] = "False"

        self.api.update("pods", name, take_back, NAMESPACE)

    def copy_labels(self, pod: Object) -> None:
        """A pod of somebody's own; it fits nowhere."""
        labels = dict(pod["metadata"]["labels"])
        body = {"metadata": {"generateName": "debug-", "labels": labels}, "spec": {"containers": []}}
        with contextlib.suppress(Refusal):  # a quota refuses theirs as well
            self.api.create("pods", body, NAMESPACE)

    async def delete_job_in_foreground(self, name: str) -> None:
        """The object stays until the garbage collector has ended what it owns."""
        job = self.job(name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        uid = job["metadata"]["uid"]
        now = format_time(self.now())
        self.api.update(
            "spottrainingjobs", name, lambda each: each["metadata"].update(deletionTimestamp=now), NAMESPACE
        )

        def owned() -> list[Object]:
            return [p for p in self.api.all("pods") if (controller_of(p) or {}).get("uid") == uid]

        while pods := owned():
            for pod in pods:
                self.api.delete_pod(pod)
            await asyncio.sleep(1)
        self.api.remove("spottrainingjobs", name, NAMESPACE, uid)

    def blame(self, machine: Machine, what: str) -> None:
        """Write down what happens to the pods of a machine."""
        machine.deeds.add(what)
        for pod in self.api.all("pods"):
            has_ended = pod["status"]["phase"] in ("Succeeded", "Failed")
            if pod.get("model", {}).get("machine") == machine.uid and not has_ended:
                self.truth[pod["metadata"]["uid"]].add(what)

    # ------------------------------------------------------------------ jobs

    def add_job(self, name: str, job: schedule.Job) -> None:
        spec = {
            "template": {
                "spec": {
                    "containers": [{"name": "trainer", "image": "train"}],
                    "terminationGracePeriodSeconds": 30,
                }
            },
            "checkpoint": (
                {"persistentVolumeClaim": {"claimName": "checkpoints"}}
                if job.has_volume
                else {"s3": {"bucket": "checkpoints"}}
            ),
            "capacity": {
                "preset": "Labels",
                "spot": {"nodeSelector": {"pool": "spot"}},
                "onDemand": {"nodeSelector": {"pool": "on-demand"}},
            },
        }
        policy = {"backoffLimit": job.backoff_limit, "windowSeconds": job.window_seconds}
        spec["failurePolicy"] = policy
        if job.fails_on_sigterm_code:
            codes = {"operator": "In", "values": [143]}
            policy["rules"] = [{"action": "FailJob", "onExitCodes": codes}]  # type: ignore[assignment]
        if job.deadline_seconds is not None:
            spec["deadline"] = {
                "secondsAfterCreation": job.deadline_seconds,
                "expectedDurationSeconds": job.steps,
            }
        if job.fallback:
            spec["fallback"] = job.fallback
        body = {
            "apiVersion": "spottraining.io/v1alpha1",
            "kind": "SpotTrainingJob",
            "metadata": {"name": name},
            "spec": spec,
            "model": {
                "steps": job.steps,
                "save": job.save_seconds,
                "cost": job.cost_seconds,
                "plain": job.is_plain,
                "atSIGTERM": job.at_sigterm,
                "backoffLimit": job.backoff_limit,
                "window": job.window_seconds,
                "volume": job.has_volume,
            },
        }
        self.api.create("spottrainingjobs", body, NAMESPACE)

    def job(self, name: str) -> Object | None:
        return self.api.get("spottrainingjobs", name, NAMESPACE)

    def current_pod(self, job: str) -> Object | None:
        """The newest pod of the job that has not ended."""
        pods = [
            pod
            for pod in self.api.all("pods")
            if pod["metadata"]["labels"].get(LABEL_JOB_NAME) == job
            and pod["status"]["phase"] not in ("Succeeded", "Failed")
            and controller_of(pod) is not None
        ]
        return max(pods, key=incarnation_of, default=None)
