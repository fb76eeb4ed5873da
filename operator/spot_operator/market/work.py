"""Work of one run: what is done, and what of it is durable.

While a node works, both follow from the time alone: a checkpoint after every `interval` seconds of work
holds training up for `stall` seconds and is durable `save` seconds after it began. So no checkpoint is an
event, and a run takes one step from one change of its market to the next. Invariant: durable <= done.
"""

from math import ceil, floor, inf

ROUNDING = 1e-9


class Work:
    __slots__ = (
        "_base",
        "_durable",
        "_pending_at",
        "_pending_work",
        "_since",
        "interval",
        "save",
        "stall",
        "total",
    )

    def __init__(self, total: float, *, interval: float, stall: float = 0.0, save: float = 0.0) -> None:
        """In seconds; interval 0: all that is done is durable at once."""
        self.total, self.interval, self.stall, self.save = total, interval, stall, save
        self._base = 0.0
        """What was done when the current spell of work began."""
        self._since = inf
        self._durable = 0.0
        self._pending_at, self._pending_work = inf, 0.0

    def begin(self, at: float) -> None:
        """A node does useful work from then on; what is done must be durable, or be kept by the node."""
        self._since = at

    def done(self, now: float) -> float:
        passed = now - self._since
        if passed <= 0:
            return self._base
        if self.interval <= 0 or self.stall <= 0:
            return min(self.total, self._base + passed)
        cycles, rest = divmod(passed, self.interval + self.stall)
        return min(self.total, self._base + cycles * self.interval + min(rest, self.interval))

    def durable(self, now: float) -> float:
        if self.interval <= 0:
            return self.done(now)
        best = self._durable
        if self._pending_at <= now:
            best = max(best, self._pending_work)
        passed = now - self._since
        if passed > 0:
            saved = floor((passed + self.stall - self.save) / (self.interval + self.stall) + ROUNDING)
            if saved > 0:
                best = max(best, min(self._base + saved * self.interval, self.done(now)))
        return best

    def finish_time(self) -> float:
        """When all is done if nothing happens."""
        left = self.total - self._base
        if self.interval <= 0 or self.stall <= 0:
            return self._since + left
        stalls = max(0, ceil(left / self.interval - ROUNDING) - 1)
        return self._since + left + stalls * self.stall

    def ask_for_checkpoint(self, now: float) -> None:
        """One checkpoint now, besides the regular ones; one at a time."""
        if now < self._pending_at < inf or now < self._since:
            return
        self._durable = self.durable(now)
        self._base = self.done(now)
        self._since = now + self.stall
        self._pending_at, self._pending_work = now + self.save, self._base

    def keep(self, now: float) -> float:
        """The node ends with a last checkpoint; how much it added."""
        before, self._base = self.durable(now), self.done(now)
        self._durable, self._since, self._pending_at = self._base, inf, inf
        return self._base - before

    def lose(self, now: float) -> float:
        """The node ends without one; how much is lost."""
        done, self._durable = self.done(now), self.durable(now)
        self._base, self._since, self._pending_at = self._durable, inf, inf
        return done - self._base
