"""`spot-trainer`: look at checkpoints, prove that a script survives, measure a machine.

Invariant: `spot-trainer` and `python -m spot_trainer` are the same program; importing this
package loads neither typer nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    from spot_trainer.cli.app import run

    return run(arguments)
