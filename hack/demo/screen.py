"""One screen that is always current on a terminal; elsewhere one line for each thing that happens."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.recorder import Recorder
from demo.screen_parts import SOURCE_STYLES, bar, fits, headline
from demo.timeline import Entry, Timeline, line

NODE_STYLES = {"ready": "green", "gone": "red", "being reclaimed": "yellow", "cordoned": "yellow"}
PICTURE_WIDTH, PICTURE_LINES = 150, 100
REFRESH_PER_SECOND = 4
BAR_TITLE = "steps: green spot, orange on-demand, a shade per incarnation; done again where shaded"


class Screen:
    """Shows a recorder's timeline; `focus` is the job whose steps are drawn."""

    def __init__(self, start: float, *, plain: bool) -> None:
        self.timeline = Timeline(start, on_entry=self.show)
        self.is_live = not plain and sys.stdout.isatty()
        self.recorder: Recorder | None = None
        self.focus, self.total_steps = "", 1
        self._console = Console()
        self._lock = threading.Lock()

    def show(self, entry: Entry) -> None:
        """Called for every new entry; without a live screen it is printed."""
        if self.is_live or entry.is_minor:
            return
        with self._lock:
            print(line(entry, self.timeline.start), flush=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the live screen up while the body runs."""
        if not self.is_live:
            yield
            return
        with Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REFRESH_PER_SECOND,
            screen=True,
        ):
            yield

    def save_picture(self, path: Path, *, title: str) -> None:
        """The whole timeline as an SVG, with the bar of the focused job."""
        with open("/dev/null", "w") as nowhere:
            console = Console(record=True, width=PICTURE_WIDTH, file=nowhere, force_terminal=True)
            console.print(self._picture())
            console.save_svg(str(path), title=title)

    def _render(self) -> RenderableType:
        # Bar, nodes and frames take nine lines.
        room = max(5, self._console.size.height - 11)
        return self._compose(fits(self.timeline.entries(with_minor=False), room), self._console.width - 6)

    def _picture(self) -> RenderableType:
        return self._compose(fits(self.timeline.entries(with_minor=False), PICTURE_LINES), PICTURE_WIDTH - 6)

    def _compose(self, entries: list[Entry], width: int) -> RenderableType:
        return Group(
            Panel(self._progress(width), title=BAR_TITLE),
            Panel(self._nodes(), title="nodes"),
            Panel(self._table(entries), title="what happened"),
        )

    def _progress(self, width: int) -> RenderableType:
        recorder = self.recorder
        if recorder is None or not self.focus:
            return Text("waiting for the cluster")
        training = recorder.training(self.focus)
        cells = bar(training, self.total_steps, max(10, width))
        drawn = Text.assemble(*((character, colour) for character, colour in cells))
        job = recorder.jobs.get(self.focus)
        head = headline(job) if job is not None else self.focus
        return Group(drawn, Text(f"step {training.last_step}/{self.total_steps}   {head}"))

    def _nodes(self) -> Text:
        text = Text()
        for name, word in sorted((self.recorder.nodes if self.recorder else {}).items()):
            text.append(f"{name} ", style="bold")
            text.append(f"{word}    ", style=NODE_STYLES.get(word, "red" if "silent" in word else "white"))
        return text

    def _table(self, entries: list[Entry]) -> Table:
        table = Table.grid(padding=(0, 2))
        for justify in ("right", "left", "left"):
            table.add_column(justify=justify, no_wrap=justify == "right")
        for entry in entries:
            job = f"[{entry.job}] " if entry.job and entry.job != self.focus else ""
            table.add_row(
                f"{entry.time - self.timeline.start:.1f} s",
                Text(entry.source, style=SOURCE_STYLES[entry.source]),
                Text(f"{job}{entry.text}", no_wrap=True, overflow="ellipsis"),
            )
        return table
