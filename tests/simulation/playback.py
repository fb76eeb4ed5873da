"""A recording is shown to the operator's real core as if it happened to the pod of its job.

The model has no part in it: pods and nodes look as the real API server showed them, at the moments
of the recording. Invariant: the operator's own requests are answered, but what it deletes ends as
the recorded pod did.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from recording.sequence import EXISTS, POD, Change, Recording
from simulation.api import Api, Object, format_time
from simulation.loop import VirtualLoop
from simulation.operator import OperatorProcess, Weather
from simulation.replay import make_job, virtually
from simulation.world import NAMESPACE, World

JOB = "job"
AFTER_SECONDS = 900.0
"""What nobody can confirm is waited for, and a verdict may be upgraded by what becomes of the node."""


class Playback:
    def __init__(self, recording: Recording, seed: int, loop: VirtualLoop) -> None:
        self._recording = recording
        self.world = World(seed, loop.time)
        self.api: Api = self.world.api
        self.api.listeners.clear()  # nobody but the recording schedules, runs and collects
        self._facts: dict[str, dict[str, Any]] = {}
        self._moments: dict[str, dict[str, float]] = {}
        self._pod_name = ""
        self.complaints: list[str] = []
        """Of what an operator must never do."""
        self._zero = self.world.now()

    async def play(self) -> None:
        at_first = [each for each in self._recording.changes if each.of != POD and each.at == 0.0]
        for change in at_first:
            self._show(change)
        self.world.add_job(JOB, make_job("dies"))
        operator = OperatorProcess(
            0,
            self.api,
            Weather(self.world.rng),
            clock=self.world.now,
            say=self.world.say,
            on_call=lambda *_: None,
            complain=self.complaints.append,
        )
        self.world.complain = self.complaints.append
        operator.start()
        while not (pods := self.api.all("pods")):  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0.1)
        self._pod_name, self._zero = pods[0]["metadata"]["name"], self.world.now()
        began = self.world.seconds()
        for change in self._recording.changes[len(at_first) :]:
            await asyncio.sleep(max(0.0, began + change.at - self.world.seconds()))
            self._show(change)
        await asyncio.sleep(AFTER_SECONDS)
        operator.kill("the recording is over")

    def status(self) -> Object:
        found = self.world.job(JOB)
        assert found is not None
        status: Object = found.get("status") or {}
        return status

    # ------------------------------------------------------------------ facts -> objects

    def _show(self, change: Change) -> None:
        """The object as it is after the change; moments are counted from the creation of its pod."""
        facts = self._facts.setdefault(change.of, {})
        for name, value in change.facts.items():
            facts[name] = value
            if value is None:
                del facts[name]
        self._moments.setdefault(change.of, {}).update(change.moments)
        if change.of == POD:
            self._show_pod(facts)
        else:
            self._show_node(change.of, facts)

    def _show_pod(self, facts: dict[str, Any]) -> None:
        def apply(pod: Object) -> None:
            status: Object = {"phase": facts["phase"], "conditions": self._conditions(facts)}
            if "reason" in facts:
                status |= {
                    "reason": facts["reason"],
                    "message": "shut" if "shutdown" in facts else "as recorded",
                }
            if "container" in facts:
                status["containerStatuses"] = [{"name": "trainer", "state": self._state(facts["container"])}]
            pod["status"] = status
            if "node" in facts:
                pod["spec"]["nodeName"] = facts["node"]
            if "deletion" in facts:
                grace = facts["deletion"].removeprefix("grace ")
                pod["metadata"]["deletionTimestamp"] = self._time(POD, "deletion")
                pod["metadata"]["deletionGracePeriodSeconds"] = int(grace)

        self.api.update("pods", self._pod_name, apply, NAMESPACE)
        if not facts[EXISTS]:
            self.api.remove("pods", self._pod_name, NAMESPACE)

    def _conditions(self, facts: dict[str, Any]) -> list[Object]:
        types = {"scheduled": "PodScheduled", "disruption": "DisruptionTarget"}
        return [
            {
                "type": type_,
                "status": facts[name].partition(" ")[0],
                "reason": facts[name].partition(" ")[2],
                "lastTransitionTime": self._time(POD, name),
            }
            for name, type_ in types.items()
            if name in facts
        ]

    def _state(self, text: str) -> Object:
        kind, *words = text.split()
        match kind:
            case "terminated":
                ended = {"exitCode": int(words[0]), "reason": " ".join(words[1:])}
                return {kind: ended | {"finishedAt": self._time(POD, "container")}}
            case "running":
                return {kind: {"startedAt": self._time(POD, "container")}}
        return {kind: {"reason": " ".join(words)}}

    def _show_node(self, name: str, facts: dict[str, Any]) -> None:
        if self.api.get("nodes", name) is None:
            self.api.create("nodes", {"metadata": {"name": name, "labels": {}}, "spec": {}, "status": {}})

        def apply(node: Object) -> None:
            status, _, why = facts["ready"].partition(" ")
            message = {
                "silent": "Kubelet stopped posting node status.",
                "shutting down": "node is shutting down",
            }
            ready = {"type": "Ready", "status": status, "message": message.get(why, "")}
            node["status"] = {
                "nodeInfo": {"bootID": "boot"},
                "conditions": [ready | {"lastTransitionTime": self._time(name, "ready")}],
            }
            node["spec"] = {
                "unschedulable": facts.get("cordoned", False),
                "taints": self._taints(name, facts),
            }
            if "deletion" in facts:
                node["metadata"]["deletionTimestamp"] = self._time(name, "deletion")

        self.api.update("nodes", name, apply)
        node = self.api.get("nodes", name)
        assert node is not None
        known = {event["reason"] for event in self.api.all("events")}
        for reason in set(facts.get("events", "").split()) - known:
            of = {"kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
            body = {"metadata": {"generateName": "event."}, "involvedObject": of, "reason": reason}
            self.api.create("events", body, "default")
        if not facts[EXISTS]:
            self.api.remove("nodes", name)

    def _taints(self, node: str, facts: dict[str, Any]) -> list[Object]:
        found = []
        for name in facts:
            if name.startswith("taint "):
                key, _, effect = name.removeprefix("taint ").rpartition(":")
                found.append({"key": key, "effect": effect, "timeAdded": self._time(node, name)})
        return found

    def _time(self, of: str, fact: str) -> str | None:
        seconds = self._moments.get(of, {}).get(fact)
        return None if seconds is None else format_time(self._moment(seconds))

    def _moment(self, seconds: float) -> datetime:
        return self._zero + timedelta(seconds=seconds)


def verdict(recording: Recording, seed: int) -> tuple[str, str, str]:
    """Cause, row and evidence of the end that the operator saw; `Complete` is a cause here."""
    found: list[tuple[str, str, str]] = []

    async def play(loop: VirtualLoop) -> None:
        playback = Playback(recording, seed, loop)
        await playback.play()
        assert not playback.complaints, playback.complaints[0]
        status = playback.status()
        for condition in status.get("conditions") or ():
            if (condition["type"], condition["status"]) == ("Complete", "True"):
                found.append(("Complete", "22", condition.get("message", "")))
        for restart in status.get("recentRestarts") or ():
            found.append((restart["cause"], restart["row"], restart["evidence"]))

    virtually(play)
    return found[0] if found else ("none", "", "the operator saw no end")
