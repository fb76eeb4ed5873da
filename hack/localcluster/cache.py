"""One place for everything that is slow to make: entries are named by what they were made from.

An entry is a directory that appears whole or not at all: it is made beside its
final name, under a file lock, and renamed into place. Two runs that want the
same entry share the work; a run that is killed leaves only a temporary
directory, which the next maker of that entry removes. Nothing in an entry is
ever changed after it has appeared.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_IGNORED = ("__pycache__", ".pyc", ".egg-info", ".mypy_cache", ".ruff_cache")


def default_root() -> Path:
    """`$SPOT_CACHE_DIR`, else the user's cache directory."""
    if chosen := os.environ.get("SPOT_CACHE_DIR"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "spot-training-operator"


def digest(*parts: str | bytes) -> str:
    """A short name for exactly these parts, in this order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()[:16]


def digest_files(paths: Iterable[Path], *, relative_to: Path) -> str:
    """Digest of names, modes and contents of the files, and of the files below the directories."""
    total = hashlib.sha256()
    for path in sorted(_files(paths)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        executable = bool(path.stat().st_mode & 0o100)
        total.update(f"{path.relative_to(relative_to)} {executable} {content}\n".encode())
    return total.hexdigest()[:16]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.name.endswith(_IGNORED):
            continue
        if path.is_dir():
            yield from _files(path.iterdir())
        elif path.is_file():
            yield path


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Cache:
    """Directories made once, found again by kind and key."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The entry's directory; `make` fills an empty one if there is none yet."""
        final = self.path(kind, key)
        if not final.is_dir():
            with file_lock(self.root / "locks" / f"{kind}-{key}"):
                if not final.is_dir():
                    self._make(final, make)
        os.utime(final)  # recency decides what `prune` keeps
        return final

    def _make(self, final: Path, make: Callable[[Path], None]) -> None:
        unfinished = final.with_name(f".{final.name}.unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(final)

    def prune(self, kind: str, *, keep: int) -> None:
        """Remove all but the most recently used entries of a kind."""
        folder = self.root / kind
        if not folder.is_dir():
            return
        with file_lock(self.root / "locks" / f"prune-{kind}"):
            entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
            entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for old in entries[keep:]:
                doomed = old.with_name(f".{old.name}.pruned")
                old.rename(doomed)  # vanishes at once for everybody, then slowly from the disk
                shutil.rmtree(doomed)
