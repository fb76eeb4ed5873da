"""Checkpoints in a directory of a POSIX file system, a persistent volume for example.

`create` writes a temporary file, fsyncs it and links it to its name: link(2) fails if
the name exists, on NFS too, so that exactly one process wins and nobody ever reads half
an object. Invariant: files are fsynced before they get their name, and directories
after, so that a power cut leaves either nothing or everything of an object.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from spot_trainer.contract import OutcomeReason
from spot_trainer.store import Buffer, Entry, NotFound, StoreFull, StoreRefused, StoreUnavailable, Unfinished

_TEMPORARY = ".tmp-"
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS = _NOT_OFFERED | {errno.EPERM, errno.EMLINK}


@contextlib.contextmanager
def _translated(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        text = f"{path}: {error.strerror or error}"
        if error.errno in _REFUSED:
            raise StoreRefused(
                OutcomeReason.STORE_ACCESS_DENIED,
                f"{text}; the volume must be writable for uid {os.getuid()}",
            ) from error
        if error.errno in _FULL:
            text = f"{text}: the volume is full; enlarge it, or lower spec.checkpoint.keepLast"
            raise StoreFull(text) from error
        raise StoreUnavailable(text) from error


class LocalStore:
    """A directory; created if it is absent."""

    read_bytes = 4 * 1024 * 1024  # stays in the processor's cache until it has been hashed
    parallel_reads = 1

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()
        self.caveats: Sequence[str] = ()

    @property
    def uri(self) -> str:
        return self._root.as_uri()

    def list(self, prefix: str) -> list[Entry]:
        return [entry for entry in self._walk(prefix) if not _is_temporary(entry.key)]

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        found = (entry for entry in self._walk(prefix) if _is_temporary(entry.key))
        return [Unfinished(entry.key, entry.key, entry.modified) for entry in found]

    def discard(self, what: Unfinished) -> None:
        self.delete([what.handle])

    def _walk(self, prefix: str) -> Sequence[Entry]:
        entries = []
        with _translated(self._root / prefix):
            for folder, _, names in os.walk(self._root / prefix, onerror=_raise_unless_absent):
                for name in names:
                    path = os.path.join(folder, name)
                    # A file may vanish between the listing and the look at it (retention of a peer).
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(path)
                        modified = datetime.fromtimestamp(status.st_mtime, UTC)
                        key = os.path.relpath(path, self._root)
                        entries.append(Entry(key, status.st_size, modified))
        return entries

    def read(self, key: str) -> bytes:
        path = self._root / key
        with _translated(path):
            return path.read_bytes()

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        path, total, left = self._root / key, 0, list(buffers)
        with _translated(path), open(path, "rb", buffering=0) as file:
            while left:
                num_bytes = os.preadv(file.fileno(), left, offset + total)
                if num_bytes == 0:
                    break
                total += num_bytes
                left = _after(left, num_bytes)
        return total

    def create(self, key: str, data: bytes) -> bool:
        path = self._root / key
        with _translated(path):
            temporary = self._write_temporary(path, [data])
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise StoreRefused(
                        OutcomeReason.STORE_UNSUPPORTED,
                        f"{self._root}: this file system has no hard links, so that two processes could "
                        "both believe they own the run; use another volume or S3",
                    ) from error
                raise
            finally:
                os.unlink(temporary)
            _sync_directory(path.parent)
        return True

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        path = self._root / key
        with _translated(path):
            temporary = self._write_temporary(path, parts)
            try:
                os.replace(temporary, path)
            except OSError as error:
                os.unlink(temporary)
                if error.errno in _NOT_OFFERED | {errno.EPERM}:
                    raise StoreRefused(
                        OutcomeReason.STORE_UNSUPPORTED,
                        f"{self._root}: this file system cannot rename files, so that half a checkpoint "
                        "could look like a whole one; use another volume or S3",
                    ) from error
                raise
            _sync_directory(path.parent)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._root / key
            with _translated(path):
                try:
                    path.unlink()
                except FileNotFoundError:
                    continue
                _sync_directory(path.parent)
                # Only an empty directory goes; whoever deletes its last file takes it along.
                with contextlib.suppress(OSError):
                    path.parent.rmdir()

    def _write_temporary(self, path: Path, parts: Sequence[Buffer]) -> str:
        _make_directory(path.parent)
        temporary = str(path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}")
        try:
            with open(temporary, "xb", buffering=0) as file:
                for part in parts:
                    view = memoryview(part).cast("B")
                    while view:
                        view = view[file.write(view) :]
                self._sync(file.fileno())
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return temporary

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
            self.caveats = (
                f"{self._root}: this file system does not flush to disk (fsync: {error.strerror}): when the "
                "machine behind it loses power, a checkpoint that was reported durable may be lost",
            )


def _is_temporary(key: str) -> bool:
    return os.path.basename(key).startswith(_TEMPORARY)


def _after(buffers: Sequence[memoryview], num_bytes: int) -> list[memoryview]:
    """What remains of the buffers when so many bytes were taken."""
    left = []
    for buffer in buffers:
        taken = min(num_bytes, len(buffer))
        num_bytes -= taken
        if taken < len(buffer):
            left.append(buffer[taken:])
    return left


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _make_directory(path: Path) -> None:
    """Create the directory and its parents so that each survives a power cut."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse fsync on a directory and need none.
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)
