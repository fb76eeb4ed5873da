"""Running other programs: every failure names the command, the log file and its last lines."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 15


class LocalClusterError(Exception):
    """Something a user can act on; the message says what failed and what to do."""


class CommandError(LocalClusterError):
    """A program ended with a non-zero code."""

    def __init__(self, argv: Sequence[str], code: int, output: str, log: Path | None) -> None:
        tail = "\n".join(f"  | {line}" for line in output.splitlines()[-_TAIL_LINES:])
        where = f"\n  log: {log}" if log else ""
        super().__init__(f"`{summary(argv)}` ended with code {code}{where}\n{tail}")
        self.code = code
        self.output = output


def summary(argv: Sequence[str]) -> str:
    """A command line short enough for one line of an error message."""
    line = " ".join(argv)
    return line if len(line) <= 160 else f"{line[:157]}..."


def log_tail(log: Path) -> str:
    """The end of a log file, indented for an error message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])


def run(
    *argv: str | Path,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
) -> str:
    """Run to the end and return standard output; with `log`, both streams go to that file instead."""
    words = [str(word) for word in argv]
    merged = {**os.environ, **env} if env else None
    if log is None:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, env=merged, cwd=cwd, check=False
        )
        if done.returncode != 0:
            raise CommandError(words, done.returncode, done.stdout + done.stderr, None)
        return done.stdout
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as handle:
        handle.write(f"$ {summary(words)}\n")
        handle.flush()
        code = subprocess.run(
            words,
            input=stdin,
            stdout=handle,
            stderr=subprocess.STDOUT,
            text=True,
            env=merged,
            cwd=cwd,
            check=False,
        ).returncode
    if code != 0:
        raise CommandError(words, code, log.read_text(errors="replace"), log)
    return ""
