"""The commands and their options; what they do lies in modules of their own.

Invariant: exit code 0 means fine, 1 that a difference or damage was found, 2 that it could
not be tried; a mistake of the user ends in one line that says what, where and what to do,
never in a traceback.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from spot_trainer import compare as comparing
from spot_trainer.cli import comparison, console, inspection, quantities, tables
from spot_trainer.cli.verify.schedule import Impossible, SignalChoice
from spot_trainer.clock import Clock
from spot_trainer.manifest import Damaged, TooNew
from spot_trainer.store import Store, StoreError, open_store


@dataclass(frozen=True)
class Surroundings:
    """What the commands are handed, so that tests can hand them something else."""

    open_store: Callable[[str], Store] = open_store
    clock: Clock = field(default_factory=Clock)


app = typer.Typer(
    name="spot-trainer",
    help="Run a training program, look at checkpoints, prove that a script survives, measure a store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OUTPUT = Path("spot-verify")
Uri = Annotated[str, typer.Argument(metavar="URI", help="file:///path or s3://bucket/prefix")]


def run(arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> int:
    """Run a command; its exit code."""
    try:
        app(args=arguments, prog_name="spot-trainer", obj=surroundings or Surroundings())
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (StoreError, Damaged, TooNew, ValueError) as error:
        console.print_error(str(error))
        return 2
    except OSError as error:
        console.print_error(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 2
    return 0


@app.command()
def inspect(
    context: typer.Context,
    uri: Uri,
    deep: Annotated[bool, typer.Option("--deep", help="Read and verify every byte.")] = False,
) -> None:
    """List claims, checkpoints and their lineage; tell which are valid."""
    around: Surroundings = context.obj
    store = around.open_store(uri)
    with ExitStack() as bars:
        found = inspection.inspect(
            store,
            is_deep=deep,
            on_begin=lambda total: bars.enter_context(console.byte_progress("verifying", total)),
        )
    now = around.clock.wall()
    if console.is_watched():
        console.print_table(f"Claims in {found.uri}", tables.CLAIM_COLUMNS, tables.claim_rows(found.claims))
        console.print_table("Checkpoints", tables.COLUMNS, tables.rows(found, now))
        lines = [f"final.json  {found.final}"] if found.final else ["the run is not finished"]
        lines += tables.remarks(found)
    else:
        lines = tables.lines(found, now)
    for line in lines:
        console.print_line(line)
    raise typer.Exit(1 if found.has_damage else 0)


@app.command()
def compare(
    context: typer.Context,
    uri_a: Annotated[str, typer.Argument(metavar="URI_A")],
    uri_b: Annotated[str, typer.Argument(metavar="URI_B")],
    step: Annotated[
        int | None, typer.Option("--step", help="Compare the checkpoints at this step, not the final ones.")
    ] = None,
) -> None:
    """Compare two runs tensor by tensor, bit by bit."""
    around: Surroundings = context.obj
    left, right = (comparison.load(around.open_store(uri), step) for uri in (uri_a, uri_b))
    is_equal, lines = comparison.verdict(left, right)
    for line in lines:
        console.print_line(line)
    raise typer.Exit(0 if is_equal else 1)


@app.command()
def history(context: typer.Context, uri: Uri) -> None:
    """Print the metrics of every step of every incarnation as JSON lines."""
    around: Surroundings = context.obj
    for line in comparing.history(around.open_store(uri)):
        console.print_line(json.dumps(line, separators=(",", ":")))


@app.command("run")
def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="After --, such as: -- torchrun train.py")
    ],
) -> None:
    """Run a training program as a container's first process.

    Passes signals on, reaps orphans, gives the workers of torchrun the whole grace period, and ends with
    the exit code of the outcome that the library wrote, which torchrun would turn into 1.
    """
    from spot_trainer import launcher

    raise typer.Exit(launcher.run(command))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": False})
def verify(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="After --, such as: -- python train.py")
    ],
    times: Annotated[int, typer.Option(min=1, help="How often to interrupt.")] = 4,
    signals: Annotated[SignalChoice, typer.Option("--signal", help="Which signal.")] = SignalChoice.BOTH,
    at_step: Annotated[list[int] | None, typer.Option(help="Interrupt here; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option("--random", metavar="SEED", help="At random steps.")] = None,
    output: Annotated[Path, typer.Option(help="Where curves.png and verdict.json go.")] = OUTPUT,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="A file or directory that the script leaves, to be compared; may be repeated."),
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds without output until a script hangs.")] = 600.0,
) -> None:
    """Prove that a training script survives being stopped and killed.

    It is run once uninterrupted and once interrupted, from an empty place for checkpoints each; then all
    that both did is compared bit by bit. Scripts with spot_trainer.Run need nothing else; of others the
    printed lines and the files named by --watch are compared. {dir} in the command or in --watch stands for
    a directory of each run's own (also SPOT_VERIFY_DIR).
    """
    from spot_trainer.cli.verify import command as verifying

    wish = verifying.Wish(
        command=tuple(command),
        times=times,
        signals=signals,
        at_steps=tuple(at_step or ()),
        seed=seed,
        watch=tuple(watch or ()),
        output=output,
        patience_seconds=patience,
    )
    try:
        with _ended_by_sigterm(), console.live() as live:
            verdict = verifying.verify(wish, live)
    except Impossible as error:
        console.print_error(f"could not be tried: {error}")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        console.print_error("interrupted; the script's processes were ended and its places removed")
        raise typer.Exit(130) from None
    verifying.report(verdict, output, console.print_line)
    raise typer.Exit(0 if verdict.is_equal else 1)


@app.command()
def bench(
    context: typer.Context,
    uri: Uri,
    size: Annotated[
        str, typer.Option(metavar="BYTES", help="Size of the state, such as 512MB or 2GiB.")
    ] = "1GiB",
) -> None:
    """Measure stall, save and verified restore; tell the longest state that fits a notice.

    Works below a fresh prefix of its own, and removes it.
    """
    from spot_trainer.cli import bench as benching
    from spot_trainer.cli import capacity

    around: Surroundings = context.obj
    try:
        with _ended_by_sigterm():
            small, large = benching.measure(
                uri,
                num_bytes=quantities.parse_size(size),
                open_store=around.open_store,
                clock=around.clock,
                say=console.print_line,
            )
    except KeyboardInterrupt:
        console.print_error("interrupted; what had been written was removed")
        raise typer.Exit(130) from None
    for line in capacity.lines(uri, small, large):
        console.print_line(line)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that no process of the script is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
