"""What to do with the time between a notice and the end of the machine. Pure.

Invariant: nothing is begun that is not expected to end in time, except what was never
measured; and a save that is already being written is never given up for a newer one that
might not fit.
"""

from __future__ import annotations

from enum import StrEnum

MARGIN = 1.2
"""Stores are slower when many machines of a zone say farewell at once."""


class Farewell(StrEnum):
    """The closed set of ways to leave."""

    SAVE = "save"
    """Wait for the save in flight, if there is one, then save the current step."""
    FLUSH = "flush"
    """Wait for the save in flight only: the steps after it are lost."""
    LEAVE = "leave"


def choose(
    *, remaining_seconds: float, save_seconds: float | None, left_in_flight_seconds: float | None
) -> Farewell:
    """The best way that fits.

    `save_seconds`: what a whole save takes, None if it was never measured; `left_in_flight_seconds`:
    what the save in flight still needs, None if there is none (0.0 if it is overdue or unknown).
    """
    if remaining_seconds <= 0:
        return Farewell.LEAVE
    expected = (left_in_flight_seconds or 0.0) + (save_seconds or 0.0)
    if expected * MARGIN <= remaining_seconds:
        return Farewell.SAVE
    return Farewell.FLUSH if left_in_flight_seconds is not None else Farewell.LEAVE


def explain(choice: Farewell, *, remaining_seconds: float, save_seconds: float | None) -> str:
    """Why, for the outcome."""
    cost = "was never measured" if save_seconds is None else f"takes {save_seconds:.1f} s"
    return f"{remaining_seconds:.1f} s were left and a save {cost}"
