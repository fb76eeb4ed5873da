"""Looking up processes in /proc."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The direct children; empty when the process is gone or has none yet."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent_of(int(entry.name)) == pid
    ]


def program_of(pid: int) -> str:
    """The name by which the process was called; empty when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return Path(words[0].decode(errors="replace")).name


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while we looked
    return int(stat.rpartition(")")[2].split()[1])
