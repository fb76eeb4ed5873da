"""Spot nodes that come and go when the recording says so, a thread for each zone.

A node is switched on as long before its time as a machine here takes to be Ready. It goes with a notice, on
which the operator stops its pods, or without: by lot, as clouds do not always keep what they promise.
Invariant: what was done to the cluster, and when, is written down by the clock that the jobs are measured by.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from localcluster import CapacityType, Cluster, NodeSpec, ReclaimStyle
from trace_bench.recording import Stretch

BOOT_SECONDS = 1.5
NOTICE_SECONDS = 10.0
GONE_SECONDS = 1.0
"""After a power cut, until the cloud's controller has removed the Node."""
NOTICE_SHARE = 0.5


@dataclass(frozen=True)
class Change:
    zone: str
    at: float
    """As recorded; seconds since the beginning of the replay, as all times here."""
    up: bool
    done: float
    """When the node was Ready, or gone."""
    how: str


class Replay:
    def __init__(
        self,
        cluster: Cluster,
        stretches: Sequence[Stretch],
        *,
        seconds: float,
        seed: str,
        say: Callable[[str], None],
    ) -> None:
        self._cluster, self._seconds, self._say = cluster, seconds, say
        self._start = 0.0
        self._over = threading.Event()
        self.changes: list[Change] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(
                target=self._play, args=(each, Random(f"{seed}/{each.zone}/notices")), daemon=True
            )
            for each in stretches
        ]
        self._stretches = stretches

    def prepare(self) -> None:
        """The nodes that are there at the beginning, one after the other."""
        for each in self._stretches:
            if next(each.changes(self._seconds))[1]:
                self._cluster.add_node(self._node(each.zone))

    def begin(self, start: float) -> None:
        """`start`: the monotonic time of second 0."""
        self._start = start
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    def _node(self, zone: str) -> NodeSpec:
        return NodeSpec(zone, CapacityType.SPOT, zone=zone)

    def _play(self, stretch: Stretch, dice: Random) -> None:
        zone = stretch.zone
        try:
            for at, up in list(stretch.changes(self._seconds))[1:]:
                lead = BOOT_SECONDS if up else 0.0
                if self._over.wait(max(0.0, at - lead - self.now)):
                    return
                how = self._bring(zone) if up else self._take(zone, dice)
                change = Change(zone, at, up, self.now, how)
                self.changes.append(change)
                self._say(f"{zone}: {how}, due at {at:.1f} s, done at {change.done:.1f} s")
        except Exception as error:  # noqa: BLE001  told at the end: a thread has nobody to raise to
            self.errors.append(f"{zone}: {type(error).__name__}: {error}")
            self._say(f"replay of {zone} ended: {error}")

    def _bring(self, zone: str) -> str:
        self._cluster.add_node(self._node(zone))
        return "a node comes"

    def _take(self, zone: str, dice: Random) -> str:
        if dice.random() < NOTICE_SHARE:
            self._cluster.reclaim(zone, style=ReclaimStyle.KARPENTER, notice_seconds=NOTICE_SECONDS)
            return "the node goes with notice"
        self._cluster.kill_node(zone, delete_node_after_seconds=GONE_SECONDS)
        return "the node goes without notice"
