"""The processes that `notice` sends SIGTERM to."""

from __future__ import annotations

import sys
import time

import torch

import spot_trainer as spot
from checkpoint.overhead import Trainee
from spot_trainer.notice import LISTENER

MATRIX = 3072
STEPS_BEFORE = 10


def compute_until_noticed(num_signals: int) -> None:
    """One matrix product after the other, each a C call of some tenths of a second on all cores."""
    left, product = torch.randn(MATRIX, MATRIX), torch.empty(MATRIX, MATRIX)
    torch.mm(left, left, out=product)
    for _ in range(num_signals):
        LISTENER.install()
        LISTENER.start_polling(60.0)
        print("computing", flush=True)
        while LISTENER.received_at is None:
            torch.mm(left, left, out=product)
        print("received", repr(LISTENER.received_at), flush=True)
        LISTENER.stop_polling()


def train(place: str) -> None:
    trainee = Trainee()
    run = spot.Run(checkpoint=place, interval_seconds=3600, model=trainee.model, optimizer=trainee.optimizer)
    with run:
        for step in run.steps(10**9):
            began = time.perf_counter()
            trainee.step()
            if step == STEPS_BEFORE:
                print("step", time.perf_counter() - began, flush=True)
            run.step_done()


if __name__ == "__main__":
    if sys.argv[1] == "flag":
        compute_until_noticed(int(sys.argv[2]))
    else:
        train(sys.argv[2])
