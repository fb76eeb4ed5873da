"""Looking up processes in /proc."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The direct children; empty when the process is gone or has none yet."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent_of(int(entry.name)) == pid
    ]


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while we looked
    return int(stat.rpartition(")")[2].split()[1])
