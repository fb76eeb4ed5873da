"""The program of a recorded pod: it does nothing until it is told how to end. Runs in the container.

As process 1 of its container a program is spared every signal that it does not handle, so the
usual death by SIGTERM has to be its own deed.
"""

import os
import signal
import sys
import time

AT_SIGTERM = {"dies": 143, "exits with 0": 0}
FAIL, FINISH, TAKE_MEMORY = signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2


def main(at_sigterm: str) -> None:
    taken = []
    wants_memory = []
    code = AT_SIGTERM.get(at_sigterm)
    signal.signal(signal.SIGTERM, lambda *_: None if code is None else os._exit(code))
    signal.signal(FAIL, lambda *_: os._exit(1))
    signal.signal(FINISH, lambda *_: os._exit(0))
    signal.signal(TAKE_MEMORY, lambda *_: wants_memory.append(True))
    while True:
        if wants_memory:
            taken.append(b"x" * 1_000_000)
        else:
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
