"""What goes to the screen: plain lines, and rich tables and bars where a person watches.

Invariant: without a terminal every line is plain text, complete and written at once, so
that logs and scripts can read it; nothing but lines for people depends on the terminal.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def is_watched() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_line(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"error: {text}\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """For people at a terminal; callers print lines elsewhere."""
    # Cells carry keys and reasons as they are: what looks like markup is none.
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_styled(cell) for cell in row))
    Console(markup=True).print(table)


def _styled(cell: str) -> str:
    from rich.markup import escape

    colour = next((colour for word, colour in _COLOURS.items() if cell.startswith(word)), None)
    return f"[{colour}]{escape(cell)}[/]" if colour else escape(cell)


_COLOURS = {"valid": "green", "DAMAGED": "red", "quarantined": "yellow", "dead end": "dim"}


@contextlib.contextmanager
def byte_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Hands out a function that is told of bytes done; without a terminal it shows nothing."""
    if not is_watched():
        yield lambda _count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


@dataclass(frozen=True)
class Live:
    """Where something that takes long says how far it is."""

    show: Callable[[str, int, int | None], None]
    """What is going on, steps done, steps in total if known."""
    say: Callable[[str], None]
    """A line that stays."""


@contextlib.contextmanager
def live() -> Iterator[Live]:
    """A bar with lines above it; without a terminal only the lines."""
    if not is_watched():
        yield Live(lambda _what, _done, _total: None, print_line)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("starting", total=None, steps="")
        shown = ""

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:  # the clock begins anew
                shown = what
                progress.reset(task, total=total, description=what)
            steps = f"step {done} of {total}" if total else f"step {done}" if done else "starting"
            progress.update(task, completed=done, total=total, steps=steps)

        yield Live(show, lambda text: progress.console.print(text, markup=False, highlight=False))
