"""What watches and lists said last of the nodes, and which jobs care about each.

Hints for waking the right job at once. Invariant: nothing that runs is stopped on their word alone: the
look that would reads first; and a listing, periodic or after a gap, replaces the nodes as a whole, because
a compacted watch never delivers the deletions of the gap.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spot_operator.decide.prices import price_complaint
from spot_operator.decide.signals import has_stop_signal
from spot_operator.logs import Log
from spot_operator.model import NodeView
from spot_operator.names import JobKey
from spot_operator.readings import Reading, Readings
from spot_operator.views import node_view

Json = Mapping[str, Any]
JOURNAL_SECONDS: Final = 15 * 60.0
"""How long a node is remembered that has gone: longer than any verdict on its pods may take."""

_log = Log(__name__)


@dataclass(frozen=True)
class Gone:
    """The last of a node, in monotonic seconds."""

    view: NodeView
    gone: float
    signal_heard: float | None
    """When it was first heard to show a stop signal."""


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

    def gone(self, uid: str) -> Gone | None:
        """How a node looked last that has gone within a quarter of an hour, by its UID."""
        gone = self._gone.get(uid)
        return gone if gone is not None and gone.gone >= self._clock() - JOURNAL_SECONDS else None

    def _forget_node(self, name: str) -> None:
        now = self._clock()
        view = self._nodes.pop(name)
        self._gone.pop(view.uid, None)  # its place is at the end
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

    def is_losing(self, key: JobKey) -> bool:
        """Whether a node of the job is not there, or says that it goes."""
        names = self._nodes_of.get(key, frozenset())
        return any(name not in self._nodes or name in self._signal_heard for name in names)

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
        # Heard while the listing was made, under this name or as the node that has it by now.
        heard = {name for name, view in self._nodes.items() if view.uid in newer}
        listed = {
            name: node
            for node in every
            if node["metadata"]["uid"] not in newer and (name := node["metadata"]["name"]) not in heard
        }
        present = {node["metadata"]["name"] for node in every}
        gone = {name for name, view in self._nodes.items() if name not in present and view.uid not in newer}
        woken = [self.jobs_on(name) for name in gone] + [self._take_in(n) for n in listed.values()]
        for name in gone:
            self._forget_node(name)
        return frozenset().union(*woken)


def _warn_of_price(node: NodeView) -> None:
    if complaint := price_complaint(node):
        _log.warning("price is ignored", node=node.name, error=complaint)
