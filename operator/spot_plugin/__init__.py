"""`kubectl spottraining`: ask before you run, look at what runs, hold it, go on.

Invariant: the plugin reaches a cluster only by running kubectl, so that whatever kubectl may do it may do,
and nothing more; importing this package loads neither typer nor matplotlib.
"""


def main() -> None:
    """The console script `kubectl-spottraining`."""
    from spot_plugin.app import run

    run()
