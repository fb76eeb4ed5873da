"""The model is as the real control plane was: same deeds, same facts, same order, about the same times."""

from __future__ import annotations

from pathlib import Path

import pytest

from recording.sequence import Recording
from simulation.playback import verdict
from simulation.replay import differences, replay

FOLDER = Path(__file__).parents[1] / "data" / "recordings"
RECORDINGS = sorted(FOLDER.glob("*.json"))
SEEDS = range(5)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_model_shows_what_the_real_control_plane_showed(path: Path) -> None:
    recording = Recording.read(path)
    for seed in SEEDS:
        assert not (found := differences(recording, replay(recording, seed))), f"\n{found}"


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_operator_judges_what_was_recorded_as_the_catalogue_says(path: Path) -> None:
    recording = Recording.read(path)
    for seed in SEEDS:
        cause, row, evidence = verdict(recording, seed)
        assert (cause, row) == (recording.scenario.expect.cause, recording.scenario.expect.row), evidence
