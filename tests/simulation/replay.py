"""What was done on a real cluster is done to the model, and what the two showed is compared.

A recording (`hack/recording`) holds the deeds and every change of a fact that the API server
showed. Invariant: the model gets the deeds and the cluster's configuration, and nothing of what
came of them.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Coroutine
from typing import Any

from recording.sequence import Change, Deed, Done, Recording, Sequencer
from simulation import schedule
from simulation.api import Object
from simulation.loop import VirtualLoop
from simulation.trainer import End
from simulation.world import NAMESPACE, POD_GC_SECONDS, RECONNECT_SECONDS, Machine, World
from spot_operator.names import LABEL_CAPACITY_TYPE, LABEL_INCARNATION, LABEL_JOB_NAME

JOB = "job"
POD_NAME = "recorded"
ON_PODS = {
    Deed.EVICT,
    Deed.DELETE_POD,
    Deed.FORCE_DELETE,
    Deed.PREEMPT,
    Deed.BIND,
    Deed.EXIT,
    Deed.OUT_OF_MEMORY,
}
BEFORE_SECONDS = 30.0
"""The node has long been there when the pod is created."""
TOLERANCE_SECONDS = 5.0
"""A container starts, a scheduler looks, a kubelet tells: two runs of one cluster differ by that much."""


def virtually(play: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run it in virtual time; what it started ends with it, and what failed in the background is raised."""
    loop = VirtualLoop()
    errors: list[str] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(str(context.get("exception") or context)))
    try:
        loop.run_until_complete(play(loop))
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending))
    finally:
        loop.close()
    if errors:
        raise AssertionError(f"in the background: {errors[0]}")


def make_job(at_sigterm: str) -> schedule.Job:
    """Its program has no end of its own."""
    return schedule.Job(
        steps=100_000,
        save_seconds=1e6,
        cost_seconds=1.0,
        is_plain=True,
        fallback=None,
        backoff_limit=6,
        window_seconds=86_400,
        deadline_seconds=None,
        has_volume=False,
        fails_on_sigterm_code=False,
        at_sigterm=at_sigterm,
    )


class Replay:
    """One recording's deeds in one world."""

    def __init__(self, recording: Recording, seed: int, loop: VirtualLoop) -> None:
        self._recording = recording
        self.world = World(seed, loop.time, monitor_grace_seconds=recording.monitor_grace_seconds)
        self.world.is_drought = True  # nobody buys machines in a recording
        self.seen = Sequencer(is_pod=lambda pod: pod["metadata"]["name"] == POD_NAME, is_node=lambda _: True)
        self.world.api.listeners.append(
            lambda kind, plural, found: self.seen.hear(kind, plural, found, self.world.now())
        )
        self._machines: list[Machine] = []

    async def play(self) -> None:
        scenario = self._recording.scenario
        self.world.add_job(JOB, make_job(scenario.at_sigterm))
        if scenario.has_node:
            self._machines.append(self.world.add_node("spot"))
        await asyncio.sleep(BEFORE_SECONDS)
        self.world.kubelets_refuse = any(each.deed is Deed.BIND for each in self._recording.deeds)
        self.world.api.create("pods", self._pod(), NAMESPACE)
        began = self.world.seconds()
        for done in self._recording.deeds:
            await asyncio.sleep(began + done.at - self.world.seconds())
            self._do(done)
        rest = began + self._recording.seconds - self.world.seconds()
        await asyncio.sleep(rest + TOLERANCE_SECONDS + POD_GC_SECONDS)
        await self.world.close()

    def _pod(self) -> Object:
        scenario = self._recording.scenario
        spec: Object = {
            "containers": [{"name": "trainer"}],
            "nodeSelector": {"pool": "spot"},
            "terminationGracePeriodSeconds": scenario.grace_seconds,
            "tolerations": [
                {"key": f"node.kubernetes.io/{key}", "tolerationSeconds": scenario.toleration_seconds}
                for key in ("not-ready", "unreachable")
            ],
        }
        if scenario.is_stuck:
            spec["volumes"] = [{"name": "missing", "configMap": {"name": "missing"}}]
        if self.world.kubelets_refuse:
            spec["schedulerName"] = "nobody"
        labels = {LABEL_JOB_NAME: JOB, LABEL_CAPACITY_TYPE: "spot", LABEL_INCARNATION: "1"}
        return {"metadata": {"name": POD_NAME, "labels": labels}, "spec": spec}

    def _do(self, done: Done) -> None:
        if done.deed is Deed.ADD_NODE:
            name = self._machines[-1].name if self._machines else ""
            self._machines.append(self.world.add_node("spot", name))
        elif done.deed in ON_PODS:
            pod = self.world.api.get("pods", POD_NAME, NAMESPACE)
            assert pod is not None, f"there is no pod any more: {done}"
            self._do_to_pod(done, pod)
        else:
            self._do_to_machine(done, self._machines[-1])

    def _do_to_machine(self, done: Done, machine: Machine) -> None:
        world = self.world
        match done.deed:
            case Deed.POWER_OFF:
                world.power_off(machine)
            case Deed.REMOVE_NODE:
                world.remove_node(machine)
            case Deed.CUT_OFF:
                world.disconnect(machine)
            case Deed.PLUG_IN:
                world.connect(machine)
            case Deed.DELETE_NODE:
                world.mark_node_deleted(machine)
            case Deed.CORDON:
                world.cordon(machine)
            case Deed.TAINT:
                world.taint(machine, *done.what.split(":"))
            case Deed.NODE_EVENT:
                of = {"kind": "Node", "name": machine.name, "uid": machine.uid}
                event = {"generateName": "event."}
                world.api.create(
                    "events", {"metadata": event, "involvedObject": of, "reason": done.what}, "default"
                )
            case Deed.REBOOT:
                world.reboot(machine, float(done.what))
            case _:
                raise AssertionError(f"nobody knows how to do this to a machine: {done}")

    def _do_to_pod(self, done: Done, pod: Object) -> None:
        world = self.world
        match done.deed:
            case Deed.EVICT:
                world.evict(pod)
            case Deed.DELETE_POD:
                world.api.delete_pod(pod)
            case Deed.FORCE_DELETE:
                world.force_delete(pod)
            case Deed.PREEMPT:
                world.preempt(pod)
            case Deed.BIND:
                world.bind(pod, self._machines[-1])
            case Deed.EXIT:
                code = int(done.what)
                self._process(pod).crash(End(code, "Error" if code else "Completed"))
            case Deed.OUT_OF_MEMORY:
                self._process(pod).crash(End(137, "OOMKilled"))
            case _:
                raise AssertionError(f"nobody knows how to do this to a pod: {done}")

    def _process(self, pod: Object) -> Any:
        return self.world.running[pod["metadata"]["uid"]].process


def replay(recording: Recording, seed: int) -> tuple[Change, ...]:
    """What the model shows when the recording's deeds are done to it."""
    found: list[Change] = []

    async def play(loop: VirtualLoop) -> None:
        replayed = Replay(recording, seed, loop)
        await replayed.play()
        found.extend(replayed.seen.changes)

    virtually(play)
    return tuple(found)


# ---------------------------------------------------------------------- comparison


def differences(recording: Recording, played: tuple[Change, ...]) -> str:
    """Where the model's facts, their order or their times are not those of the recording; empty: nowhere."""
    found = []
    for of in sorted({each.of for each in (*recording.changes, *played)}):
        real = [each for each in recording.changes if each.of == of]
        model = _until(recording, [each for each in played if each.of == of], len(real))
        if [each.facts for each in real] != [each.facts for each in model]:
            found += [f"{of}: other facts", *_diff(real, model)]
            continue
        for one, other in zip(real, model, strict=True):
            found += [
                f"{of}: {each}\n  real  {one}\n  model {other}" for each in _late(recording, one, other)
            ]
    return "\n".join(found)


def _until(recording: Recording, model: list[Change], at_least: int) -> list[Change]:
    """Without what comes after the recording's end, unless the model is only late."""
    return [each for n, each in enumerate(model) if n < at_least or each.at < recording.seconds]


def _diff(real: list[Change], model: list[Change]) -> list[str]:
    def words(changes: list[Change]) -> list[str]:
        return [", ".join(f"{name}: {value}" for name, value in each.facts.items()) for each in changes]

    lines = difflib.unified_diff(words(real), words(model), "real", "model", lineterm="", n=20)
    return [f"  {line}" for line in lines if not line.startswith("@@")]


def _late(recording: Recording, real: Change, model: Change) -> list[str]:
    """What is said to be, or came, at another time."""
    allowed = tolerance_seconds(recording, real)
    found = []
    if abs(real.at - model.at) > allowed:
        found.append(f"came {model.at - real.at:+.1f} s")
    if real.at == 0.0:
        return []  # since when it had been so before the recording is no matter
    for name in sorted({*real.moments, *model.moments}):
        one, other = real.moments.get(name), model.moments.get(name)
        if one is None or other is None:
            found.append(f"the moment of {name} is {one} and {other}")
        elif abs(one - other) > allowed:
            found.append(f"the moment of {name} differs by {other - one:+.1f} s")
    return found


def tolerance_seconds(recording: Recording, change: Change) -> float:
    """What comes round when it does is allowed its period; everything else follows its cause."""
    periods = {Deed.REMOVE_NODE: POD_GC_SECONDS, Deed.PLUG_IN: RECONNECT_SECONDS}
    before = {each.deed for each in recording.deeds if each.at < change.at}
    return TOLERANCE_SECONDS + sum(periods[deed] for deed in before if deed in periods)
