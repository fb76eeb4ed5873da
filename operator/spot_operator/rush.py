"""Many launches at one time: then what there is to note of each pod waits until they are over.

Where a thousand pods are waited for, the API server is what limits their rate, and a status write costs
it as much as a pod. Created, bound, pulled, started: one write after all of these says the same.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_SECONDS: Final = 5.0
RUSH_LAUNCHES: Final = 50
"""So many within the window; fewer leave an API server enough to do for notes."""
SETTLING_SECONDS: Final = 0.3
RUSH_SETTLING_SECONDS: Final = 20.0
"""A node's notice, a pod's end, a report or an edit waits for nothing, in a rush as at any other time."""
RUSH_ENDING_SECONDS: Final = 2.0
"""Much less than a pod has for its last checkpoint, beside which its successor is prepared."""


class Rush:
    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._launches: deque[float] = deque(maxlen=RUSH_LAUNCHES)

    def note_launch(self) -> None:
        self._launches.append(self._monotonic())

    def settling_seconds(self) -> float:
        """How long a look waits that has nothing to do but to note how a pod is getting on."""
        return RUSH_SETTLING_SECONDS if self._is_on() else SETTLING_SECONDS

    def ending_seconds(self) -> float:
        """How long a look waits for the end of a pod that was told to stop; the end itself is urgent."""
        return RUSH_ENDING_SECONDS if self._is_on() else 0.0

    def _is_on(self) -> bool:
        is_full = len(self._launches) == RUSH_LAUNCHES
        return is_full and self._launches[0] > self._monotonic() - WINDOW_SECONDS
