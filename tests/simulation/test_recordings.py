"""The model is as the real control plane was: same deeds, same facts, same order, about the same times."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path

import pytest

from recording.scenarios import PLAYS
from recording.sequence import Recording
from simulation.playback import verdict
from simulation.replay import differences, replay

FOLDER = Path(__file__).parents[1] / "data" / "recordings"
RECORDINGS = sorted(FOLDER.glob("*.json"))
SEEDS = range(5)
SEEDS_OF_RACES = range(20)
MAX_BYTES = 4000

each_recording = pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)


@each_recording
def test_the_model_shows_what_the_real_control_plane_showed(path: Path) -> None:
    recording = Recording.read(path)
    seeds = SEEDS_OF_RACES if recording.scenario.is_race else SEEDS
    found = [differences(recording, replay(recording, seed)) for seed in seeds]
    if recording.scenario.is_race:
        assert "" in found, f"\n{found[0]}"
    else:
        assert not any(found), f"\n{next(each for each in found if each)}"


@each_recording
def test_the_operator_judges_what_was_recorded_as_the_catalogue_says(path: Path) -> None:
    recording = Recording.read(path)
    for seed in SEEDS[:2]:
        cause, row, evidence = verdict(recording, seed)
        assert (cause, row) == (recording.scenario.expect.cause, recording.scenario.expect.row), evidence


@each_recording
def test_a_recording_reads_as_it_was_written(path: Path, tmp_path: Path) -> None:
    recording = Recording.read(path)
    assert recording.write(tmp_path).read_text() == path.read_text()
    assert path.stat().st_size < MAX_BYTES


def test_every_scenario_has_its_recording() -> None:
    recorded = {path.stem: Recording.read(path).scenario for path in RECORDINGS}
    assert recorded == {play.scenario.name: play.scenario for play in PLAYS}


def test_a_fact_that_the_model_does_not_show_is_named() -> None:
    recording = Recording.read(FOLDER / "eviction.json")
    changes = (*recording.changes[:-1], changed(recording.changes[-2], facts={"phase": "Odd"}))
    found = differences(changed(recording, changes=changes), replay(recording, 0))
    assert "-phase: Odd" in found
    assert "+exists: False" in found


def test_a_change_that_comes_late_is_named() -> None:
    recording = Recording.read(FOLDER / "eviction.json")
    last = recording.changes[-1]
    changes = (*recording.changes[:-1], changed(last, at=last.at + 60))
    assert "pod: came -" in differences(changed(recording, changes=changes), replay(recording, 0))
