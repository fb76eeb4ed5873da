"""What can go wrong, for people: what it is, and what to do about it. Each kind has its exit code."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 1 is left to what nobody expected."""

    OK = 0
    INPUT = 2
    """The command line, a manifest or a market file; nothing was done."""
    CLUSTER = 3
    """kubectl failed, or the job does not allow it."""
    TIMED_OUT = 4
    """It was asked for, but `--wait` saw no end of it."""


class PluginError(Exception):
    """Ends the program with a message and an exit code, without a traceback."""

    def __init__(self, message: str, *, do: str = "", code: Exit = Exit.INPUT) -> None:
        super().__init__(message)
        self.do = do
        self.code = code
