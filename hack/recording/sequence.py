"""Watch events -> a sequence of changed facts, and the file it is kept in.

Time zero is when the pod is created: what happened before is only known as the state of the
nodes at that moment. Invariant: an event that changes no fact leaves no trace.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from recording.facts import Facts, Json, Moments, node_facts, pod_facts

POD = "pod"
EXISTS = "exists"
TOLD = frozenset({"SpotInterrupted", "TerminatingOnInterruption", "DisruptionTerminating"})
"""Reasons of events about nodes that are part of what a node shows."""


class Deed(StrEnum):
    """What somebody does from outside; nothing that Kubernetes does by itself."""

    EVICT = "evict the pod"
    DELETE_POD = "delete the pod"
    FORCE_DELETE = "delete the pod at once"
    PREEMPT = "create a pod of a higher priority"
    BIND = "bind the pod to a node that has no room for it"
    EXIT = "the program exits"
    OUT_OF_MEMORY = "the program takes all memory"
    POWER_OFF = "power off"
    CUT_OFF = "cut off the network"
    PLUG_IN = "plug in the network"
    ADD_NODE = "add a node"
    REBOOT = "boot the machine again"
    REMOVE_NODE = "remove the node object"
    DELETE_NODE = "delete the node object, held by a finalizer"
    NODE_EVENT = "tell of the node"
    TAINT = "taint"
    CORDON = "cordon"


@dataclass(frozen=True)
class Done:
    at: float
    deed: Deed
    what: str = ""
    """Of a taint KEY:EFFECT, of an exit its code, of an event its reason."""

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.deed} {self.what}".rstrip()


@dataclass(frozen=True)
class Change:
    """What is new about an object at a moment."""

    at: float
    of: str
    """`pod`, or `node-1`, `node-2`, ... in the order in which they were first seen."""
    facts: Mapping[str, Any]
    """By name; None: it does not hold any more."""
    moments: Mapping[str, float] = field(default_factory=dict)
    """Since when the object itself says that they hold."""

    def __str__(self) -> str:
        words = ", ".join(f"{name}: {value}" for name, value in self.facts.items())
        return f"{self.at:7.2f} s  {self.of:<7} {words}"


@dataclass(frozen=True)
class Expectation:
    """How the operator is to judge: the cause and row of the restart, or that the job is complete."""

    cause: str
    row: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is not a deed: how the pod and the cluster were set up."""

    name: str
    about: str
    expect: Expectation
    at_sigterm: str = "dies"
    """What the program does: `dies`, `goes on`, or `exits with 0`."""
    grace_seconds: int = 30
    toleration_seconds: int = 10
    """Of a node that is out of reach."""
    has_node: bool = True
    """At the beginning."""
    is_race: bool = False
    """Reality has more than one end for this: the model must be able to end like it, and need not always."""
    is_stuck: bool = False
    """A volume is missing, so the container is never created."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    scenario: Scenario
    kubernetes: str
    date: str
    monitor_grace_seconds: int
    """The silence after which a node is out of reach, as this cluster was configured."""
    seconds: float
    """Until when it was watched."""
    deeds: tuple[Done, ...]
    changes: tuple[Change, ...]

    def write(self, folder: Path) -> Path:
        """One line for each deed and change: a recording is read by people, and by `git diff`."""
        scenario = vars(self.scenario) | {"expect": vars(self.scenario.expect)}
        head = {name: value for name, value in vars(self).items() if name not in ("deeds", "changes")}
        text = json.dumps(head | {"scenario": scenario}, indent=1)
        deeds = ",\n".join(f"  {json.dumps(vars(each))}" for each in self.deeds)
        changes = ",\n".join(f"  {json.dumps(vars(each))}" for each in self.changes)
        path = folder / f"{self.scenario.name}.json"
        path.write_text(f'{text[:-2]},\n "deeds": [\n{deeds}\n ],\n "changes": [\n{changes}\n ]\n}}\n')
        return path

    @classmethod
    def read(cls, path: Path) -> "Recording":
        found = json.loads(path.read_text())
        scenario = found["scenario"]
        expect = Expectation(**scenario["expect"])
        return cls(
            **found
            | {
                "scenario": Scenario(**scenario | {"expect": expect}),
                "deeds": tuple(Done(each["at"], Deed(each["deed"]), each["what"]) for each in found["deeds"]),
                "changes": tuple(Change(**each) for each in found["changes"]),
            }
        )


class Sequencer:
    """Takes watch events of one pod and of some nodes; `changes` is what they came to."""

    def __init__(self, is_pod: Callable[[Json], bool], is_node: Callable[[Json], bool]) -> None:
        self._is_pod, self._is_node = is_pod, is_node
        self.zero: datetime | None = None
        self.changes: list[Change] = []
        self._known: dict[str, Facts] = {}
        """By what the object is called here, as of the newest event."""
        self._moments: dict[str, Moments] = {}
        self._called: dict[str, str] = {}
        """By UID: a machine that comes back under its name is another node."""
        self._named: dict[str, str] = {}
        """By name of a node, the newest of that name."""

    @property
    def pod(self) -> Mapping[str, Any]:
        """What holds of the pod now."""
        return self._known.get(POD, {})

    def node(self, number: int = 1) -> Mapping[str, Any]:
        return self._known.get(f"node-{number}", {})

    def hear(self, kind: str, plural: str, found: Json, at: datetime) -> None:
        if plural == "pods" and self._is_pod(found):
            self._hear_pod(kind, found, at)
        elif plural == "nodes" and self._is_node(found):
            self._hear_node(kind, found, at)
        elif plural == "events":
            self._hear_event(found, at)

    def _hear_pod(self, kind: str, pod: Json, at: datetime) -> None:
        if self.zero is None:
            self.zero = at
            for of, facts in self._known.items():
                self._write(of, at, {}, facts, self._moments[of])
        facts, moments = pod_facts(pod)
        if "node" in facts:
            # Bound once, to a machine and not to a name.
            facts["node"] = self.pod.get("node") or self._named.get(facts["node"], "somewhere")
        self._note(POD, kind, facts, at, moments)

    def _hear_node(self, kind: str, node: Json, at: datetime) -> None:
        metadata = node["metadata"]
        of = self._called.setdefault(metadata["uid"], f"node-{len(self._called) + 1}")
        self._named[metadata["name"]] = of
        facts, moments = node_facts(node)
        if (events := self._known.get(of, {}).get("events")) is not None:
            facts["events"] = events
        self._note(of, kind, facts, at, moments)

    def _hear_event(self, event: Json, at: datetime) -> None:
        """Events of a node are kept apart from it by the API server, and read together with it."""
        of = self._called.get(event.get("involvedObject", {}).get("uid", ""))
        if of is None or event.get("reason") not in TOLD:
            return
        known = self._known[of]
        events = " ".join(sorted({*known.get("events", "").split(), event["reason"]}))
        self._note(of, "MODIFIED", {**known, "events": events}, at, self._moments[of])

    def _note(self, of: str, kind: str, facts: Facts, at: datetime, moments: Moments) -> None:
        facts[EXISTS] = kind != "DELETED"
        known = self._known.get(of, {})
        self._known[of], self._moments[of] = facts, moments
        if self.zero is not None:
            self._write(of, at, known, facts, moments)

    def _write(self, of: str, at: datetime, known: Facts, facts: Facts, moments: Moments) -> None:
        assert self.zero is not None
        changed = {name: value for name, value in sorted(facts.items()) if known.get(name) != value}
        changed |= {name: None for name in sorted(known) if name not in facts}
        if changed:
            since = {name: self._seconds(moments[name]) for name in changed if name in moments}
            self.changes.append(Change(self._seconds(at), of, changed, since))

    def _seconds(self, moment: datetime) -> float:
        assert self.zero is not None
        return round((moment - self.zero).total_seconds(), 2)
