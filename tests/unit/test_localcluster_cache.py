"""A cache entry appears whole or not at all, and is made once however many ask."""

import os
import threading
from pathlib import Path

import pytest

from localcluster.cache import Cache, default_root, digest, digest_files


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make(target: Path) -> None:
        made.append(target.name)
        (target / "file").write_text("content")

    cache = Cache(tmp_path)
    first, second = cache.entry("kind", "key", make), cache.entry("kind", "key", make)
    assert first == second == tmp_path / "kind" / "key"
    assert (first / "file").read_text() == "content"
    assert len(made) == 1


def test_a_failed_entry_is_not_there_and_can_be_made_again(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").touch()
        raise ValueError("no")

    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="no"):
        cache.entry("kind", "key", fail)
    assert not cache.path("kind", "key").exists()
    assert list(cache.entry("kind", "key", lambda target: None).iterdir()) == []


def test_two_that_want_the_same_entry_share_the_work(tmp_path: Path) -> None:
    made: list[Path] = []
    both_ask = threading.Barrier(2)

    def ask() -> None:
        both_ask.wait()
        Cache(tmp_path).entry("kind", "key", made.append)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_pruning_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for age, key in enumerate(("new", "middle", "old")):
        path = cache.entry("kind", key, lambda target: None)
        os.utime(path, (1000 - age, 1000 - age))
    cache.prune("kind", keep=2)
    assert sorted(path.name for path in (tmp_path / "kind").iterdir()) == ["middle", "new"]


def test_the_digest_tells_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")


def test_the_digest_of_files_depends_on_names_modes_and_contents_only(tmp_path: Path) -> None:
    def tree(name: str, content: str, mode: int = 0o644) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        (root / "sub" / "__pycache__").mkdir(parents=True)
        (root / "sub" / "__pycache__" / "x.pyc").write_text(str(root))
        (root / "sub" / name).write_text(content)
        (root / "sub" / name).chmod(mode)
        return digest_files([root], relative_to=root)

    same = tree("a", "1")
    assert tree("a", "1") == same
    assert len({same, tree("b", "1"), tree("a", "2"), tree("a", "1", 0o755)}) == 4


def test_the_place_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOT_CACHE_DIR", "/somewhere")
    assert default_root() == Path("/somewhere")
    monkeypatch.delenv("SPOT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_root() == Path("/xdg/spot-training-operator")
