"""A long step is never silent, and a failed command says where to look."""

import io
from pathlib import Path

import pytest

from localcluster import CommandError, Progress
from localcluster.commands import run


def test_a_step_is_named_when_it_starts_and_ends() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.step("Build"):
        assert progress.status() == "Build 0 s"
    first, last = stream.getvalue().splitlines()
    assert first.endswith("Build ...")
    assert "Build: done in 0.0 s" in last
    assert progress.status() == ""


def test_a_failed_step_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), Progress(stream).step("Build"):
        raise ValueError("no")
    assert "Build: failed" in stream.getvalue()


def test_a_failed_command_names_its_log_and_shows_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandError, match="ended with code 3") as caught:
        run("sh", "-c", "seq 100; exit 3", log=log)
    assert str(log) in str(caught.value)
    assert "| 100" in str(caught.value)
    assert "| 50" not in str(caught.value)
    assert caught.value.code == 3
