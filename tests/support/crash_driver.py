"""Kills a training process at each of its store operations in turn, and lets the next one finish.

Run as a program: `crash_driver.py URI_PREFIX local|s3 [background]`. torch is imported once;
each life is a fork. Prints one JSON object per kill point: where it was, which step was known
to be durable, where the next process resumed, and how the final state differs from that
of the run that was left alone.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import pathlib
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import spot_trainer as spot
from spot_trainer import compare
from spot_trainer.store import open_store

TOTAL_STEPS = 3


class Tracer:
    """Counts operations, before and after each, and kills the process at the chosen one."""

    def __init__(self, kill_at: int | None, log: pathlib.Path) -> None:
        self._kill_at, self._log, self._count = kill_at, log, 0
        self._lock = threading.Lock()

    def event(self, name: str) -> None:
        with self._lock:
            self._count += 1
            if self._count == self._kill_at:
                self._log.write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str, label: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, name)

        def traced(*args: Any, **kwargs: Any) -> Any:
            if not label(*args):
                return original(*args, **kwargs)
            self.event(f"before {name}")
            result = original(*args, **kwargs)
            self.event(f"after {name}")
            return result

        setattr(owner, name, traced)


def trace_files(tracer: Tracer) -> None:
    from spot_trainer.store import local

    for name in ("link", "replace", "unlink", "fsync"):
        tracer.wrap(os, name)
    tracer.wrap(pathlib.Path, "mkdir")
    real_open = builtins.open

    def traced_open(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "xb":
            return real_open(path, mode, *args, **kwargs)
        tracer.event("before open")
        return HalfWritten(real_open(path, mode, *args, **kwargs), tracer)

    local.open = traced_open  # type: ignore[attr-defined]


class HalfWritten(io.RawIOBase):
    """Writes in two halves, with a kill point between them."""

    def __init__(self, file: Any, tracer: Tracer) -> None:
        self._file, self._tracer = file, tracer

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._tracer.event("before write")
        written: int = self._file.write(data[:half])
        self._tracer.event("half written")
        written += self._file.write(data[half:])
        self._tracer.event("after write")
        return written

    def fileno(self) -> int:
        return int(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def trace_requests(tracer: Tracer) -> None:
    from spot_trainer.store import s3

    make = s3.make_client

    def traced() -> Any:
        client = make()
        client.meta.events.register(
            "before-send.s3", lambda request, **_: tracer.event(f"send {request.method}")
        )
        client.meta.events.register(
            "response-received.s3", lambda **_: tracer.event("answered"), unique_id="tracer"
        )
        return client

    s3.make_client = traced


_replace = os.replace  # the traced one would count


def note(known: pathlib.Path, step: int) -> None:
    """The kill may come from another thread, in the middle of this."""
    new = known.with_suffix(".new")
    new.write_text(str(step))
    _replace(new, known)


def train(uri: str, known: pathlib.Path, *, in_background: bool) -> None:
    """A few steps that use every piece of state; each step is saved."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    run = spot.Run(
        checkpoint=uri, interval_seconds=1e-9, keep=2, record_metrics=False, save_in_background=in_background,
        model=model, optimizer=optimizer, scheduler=scheduler,
    )  # fmt: skip
    with run:
        (known.parent / f"{known.name}.resumed").write_text(str(run.step))
        for _ in run.steps(TOTAL_STEPS):
            noise = random.random() + float(np.random.random())
            loss = (model(torch.randn(3, 4)) * noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run.step_done(loss=loss.item())
            durable = run._session.durable
            note(known, durable.name.step if durable else 0)


def life(action: Callable[[], None]) -> int:
    """Run the action in a fork; its exit status as of subprocess."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
                action()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:  # noqa: BLE001  a fork must not return into the driver
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_points(
    prefix: str, kind: str, folder: pathlib.Path, *, in_background: bool
) -> Iterator[dict[str, Any]]:
    reference = f"{prefix}/reference"
    assert life(lambda: train(reference, folder / "known-reference", in_background=False)) == 0
    want = compare.final_checkpoint(open_store(reference)).state
    number = 0
    while True:
        number += 1
        uri, known, where = f"{prefix}/{number:04d}", folder / f"known-{number}", folder / f"where-{number}"

        def killed(
            uri: str = uri, known: pathlib.Path = known, n: int = number, w: pathlib.Path = where
        ) -> None:
            tracer = Tracer(n, w)
            trace_files(tracer) if kind == "local" else trace_requests(tracer)
            train(uri, known, in_background=in_background)

        code = life(killed)
        if code == 0:
            return
        durable = int(known.read_text()) if known.exists() else 0
        again = folder / f"again-{number}"
        second = life(lambda u=uri, a=again: train(u, a, in_background=False))  # type: ignore[misc]
        found = compare.final_checkpoint(open_store(uri)).state if second == 0 else None
        yield {
            "point": number,
            "where": where.read_text() if where.exists() else "",
            "killed": code,
            "durable": durable,
            "finished": second,
            "resumed": int((folder / f"again-{number}.resumed").read_text()) if second == 0 else -1,
            "differences": list(compare.differences(want, found))[:3] if found is not None else ["no end"],
        }


def import_lazily_imported() -> None:
    """The first step of an optimizer imports half of torch, which each fork would do again."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    weight.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())


def main() -> None:
    prefix, kind, folder, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    import_lazily_imported()
    for line in kill_points(prefix, kind, pathlib.Path(folder), in_background="background" in rest):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
