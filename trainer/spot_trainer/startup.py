"""The seconds between the start of the process and the first step.

Invariant: from the first import on, a notice leads to a prompt exit with an outcome that
says that nothing was lost; there is nothing yet to save.
"""

from __future__ import annotations

from collections.abc import Mapping

from spot_trainer.contract import ContractError, Environment, Outcome, OutcomeKind, OutcomeReason
from spot_trainer.notice import LISTENER
from spot_trainer.outcome import OutcomeFile, is_writer


def listen(environ: Mapping[str, str]) -> None:
    """Leave with 75 on SIGTERM until a run takes over."""
    try:
        environment = Environment.from_environ(environ)
    except ContractError:
        # Run() will report it; a notice before that still ends the process.
        LISTENER.install(is_early=True)
        return

    def leave(message: str) -> int:
        path = environment.termination_log if is_writer(environ.get("LOCAL_RANK", "")) else None
        file = OutcomeFile(path)
        file.write(
            Outcome(
                kind=OutcomeKind.STOPPED,
                reason=OutcomeReason.NOTICE,
                incarnation=environment.incarnation,
                step=0,
                message=message,
            )
        )
        return file.exit_code

    LISTENER.on_leave(leave)
    LISTENER.install(is_early=True)
