"""`spot-trainer`: look at checkpoints, prove that a script survives, measure a machine.

Invariant: `spot-trainer` and `python -m spot_trainer` are the same program; importing this
package loads neither typer nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:2] == ["run", "--"] and words[2:]:
        # A container's first process stays as long as the training: it is small, and listens at once.
        from spot_trainer import launcher

        return launcher.run(words[2:])
    from spot_trainer.cli.app import run

    return run(words)
