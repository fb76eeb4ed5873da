"""The script that ckpt-chaos crashes: two steps, a checkpoint after each, random numbers in all of them.

The names that a run draws at random are counted here instead, so that each crash of ckpt-chaos
hits the same event as in its reference run, and so that the last number in a checkpoint's name is
its step, by which ckpt-chaos knows the newest one.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from itertools import count
from pathlib import Path

import torch

import spot_trainer as spot

STEPS = 2
_numbers = count()


def _letters(num_bytes: int) -> str:
    """As long as `token_hex` and never the same twice in one process, but without digits."""
    number, text = next(_numbers), ""
    for _ in range(2 * num_bytes):
        number, letter = divmod(number, 6)
        text = "abcdef"[letter] + text
    return text


def main(out: Path) -> None:
    if not out.exists():  # those that resume must not take the names of the first process again
        secrets.token_hex = _letters  # type: ignore[assignment]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    run = spot.Run(model=model, optimizer=optimizer, checkpoint=out, interval_seconds=1e9, keep=100)
    with run:
        print(f"resumed from step {run.step}", flush=True)
        for _ in run.steps(STEPS):
            loss = model(torch.randn(4, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step_done(loss=loss.item())
            if not run.save():
                raise SystemExit("the checkpoint was not saved")
    digest = hashlib.sha256()
    for tensor in [*model.state_dict().values(), torch.get_rng_state()]:
        digest.update(tensor.numpy().tobytes())
    (out / "result").write_text(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
