"""`python -m spot_trainer`: the program `spot-trainer`, where no script is installed.

Invariant: it is the same program, see `spot_trainer.cli`.
"""

from __future__ import annotations

import sys

from spot_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
