"""`python -m spot_plugin`: the same program as `kubectl-spottraining`."""

from spot_plugin import main

if __name__ == "__main__":
    main()
