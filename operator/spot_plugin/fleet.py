"""Runs shared out among processes. Invariant: the outcomes do not depend on how many there are."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed

from spot_operator.market import Outcome, Plan, Policy

WORTH_A_POOL = 400
"""Fewer runs than this are over before processes have started."""
CHUNK = 50

Outcomes = dict[Policy, list[Outcome]]


def play_all(
    plan: Plan, num_runs: int, *, num_processes: int, progress: Callable[[int], None] = lambda _: None
) -> Outcomes:
    """Every run under every policy, in order; `progress` hears how many are done."""
    chunks = [range(begin, min(begin + CHUNK, num_runs)) for begin in range(0, num_runs, CHUNK)]
    found: dict[int, Outcomes] = {}
    if num_processes <= 1 or num_runs < WORTH_A_POOL:
        for index, chunk in enumerate(chunks):
            found[index] = plan.play(chunk)
            progress(chunk.stop)
    else:
        # Not fork: it is unsafe where libraries keep threads.
        context = multiprocessing.get_context("spawn")
        workers = min(num_processes, len(chunks))
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            futures = {pool.submit(plan.play, chunk): index for index, chunk in enumerate(chunks)}
            done = 0
            for future in as_completed(futures):
                index = futures[future]
                found[index] = future.result()
                done += len(chunks[index])
                progress(done)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C ends it after the chunks in hand
    return {
        policy: [outcome for index in range(len(chunks)) for outcome in found[index][policy]]
        for policy in plan.policies
    }


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
