"""A training program without the library: a chain of hashes, saved to a volume every few steps.

It stands for containers that know nothing of the operator: they catch no signal, claim nothing and
report nothing. The chain's end depends on every step, in order, so two processes that overlap, or a
step that is lost or done twice, end elsewhere.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path


def chain(total_steps: int) -> str:
    """The end of the chain, as an undisturbed run finds it."""
    state = b"begin"
    for step in range(1, total_steps + 1):
        state = hashlib.sha256(state + step.to_bytes(8)).digest()
    return state.hex()


def run(folder: Path, total_steps: int, step_seconds: float, save_every: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    saved, step, state = folder / "state.json", 0, b"begin"
    if saved.exists():
        found = json.loads(saved.read_text())
        step, state = found["step"], bytes.fromhex(found["state"])
    print(f"from step {step}", flush=True)
    while step < total_steps:
        time.sleep(step_seconds)
        step += 1
        state = hashlib.sha256(state + step.to_bytes(8)).digest()
        if step % save_every == 0 or step == total_steps:
            new = folder / f"state.{os.getpid()}.new"
            with new.open("w") as file:
                json.dump({"step": step, "state": state.hex()}, file)
                file.flush()
                os.fsync(file.fileno())
            new.rename(saved)
    print(f"done: {state.hex()}", flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
