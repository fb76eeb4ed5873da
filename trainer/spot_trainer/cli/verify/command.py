"""The page that puts the parts of `verify` together: run, interrupt, compare, explain.

Invariant: the verdict is EQUAL only if something that matters was compared and a resume
took place; what could not be tried is said to be so, and never passes for a success.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spot_trainer import compare as comparing
from spot_trainer import writer
from spot_trainer.cli.comparison import environment_remarks
from spot_trainer.cli.console import Live
from spot_trainer.cli.verify import causes, curves, drawing, pieces, printed, schedule, trial, watched
from spot_trainer.cli.verify.causes import Evidence
from spot_trainer.cli.verify.curves import Parting, Point
from spot_trainer.cli.verify.schedule import Impossible, SignalChoice
from spot_trainer.cli.verify.trial import PLACEHOLDER, Failed, Process, Script, Trial
from spot_trainer.manifest import Damaged
from spot_trainer.state import RNG_PREFIX
from spot_trainer.store import Store, StoreError, open_store

SHOWN = 10
LEAST_INTERVAL_SECONDS, NUM_SAVES = 0.02, 20
"""A short run is saved often enough that each kill finds a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for."""

    command: tuple[str, ...]
    times: int = 4
    signals: SignalChoice = SignalChoice.BOTH
    at_steps: tuple[int, ...] = ()
    seed: int | None = None
    watch: tuple[str, ...] = ()
    output: Path = Path("spot-verify")
    patience_seconds: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer."""

    is_equal: bool
    headline: str
    compared: tuple[str, ...]
    details: tuple[str, ...] = ()
    cause: causes.Cause | None = None
    picture: drawing.Picture | None = None


def verify(wish: Wish, live: Live) -> Verdict:
    """Run the script twice and compare; raises Impossible."""
    script = Script(command=wish.command, patience_seconds=wish.patience_seconds)
    with tempfile.TemporaryDirectory(prefix="spot-verify-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        watched.refuse_existing([path for path in map(Path, wish.watch) if PLACEHOLDER not in str(path)])
        before = _files_here()
        reference = _reference(script, root / "uninterrupted", live)
        left = watched.collect(_watched(wish, reference), root / "left-uninterrupted")
        steps, total = _places(reference)
        plan = schedule.choose(
            total, times=wish.times, signals=wish.signals, at_steps=wish.at_steps, seed=wish.seed
        )
        where = ", ".join(f"{each.signal.name} at {each.step}" for each in plan)
        live.say(f"interrupted run: {where}")
        litter = sorted(_files_here() - before)
        seconds = sum(process.seconds for process in reference.processes)
        try:
            run = trial.run(
                script,
                root / "interrupted",
                interruptions=plan,
                interval_seconds=min(1.0, max(LEAST_INTERVAL_SECONDS, seconds / NUM_SAVES)),
                places=steps,
                show=lambda done, _total: live.show("interrupted run", done, total),
                say=live.say,
            )
        except Failed as error:
            if len(error.trial.processes) == 1:
                raise Impossible(
                    f"the script fails now, uninterrupted, and did not before: {error}"
                ) from None
            return _failed_on_resume(error)
        _check_was_tried(reference, run, steps, litter)
        files = watched.collect(_watched(wish, run), root / "left-interrupted")
        judge = _judge_library if reference.uses_library else _judge_printed
        return judge(wish, reference, run, left, files)


def _reference(script: Script, place: Path, live: Live) -> Trial:
    live.say("uninterrupted run: " + " ".join(script.command))
    try:
        found = trial.run(script, place, show=lambda done, total: live.show("uninterrupted run", done, total))
    except Failed as error:
        raise Impossible(f"the script does not finish even uninterrupted: {error}") from None
    seconds = sum(process.seconds for process in found.processes)
    live.say(f"  done in {seconds:.1f} s")
    return found


def _watched(wish: Wish, run: Trial) -> list[Path]:
    return [Path(path.replace(PLACEHOLDER, str(run.place))) for path in wish.watch]


def _places(reference: Trial) -> tuple[dict[printed.Key, int], int]:
    """The steps that can be recognised in the output, and their number; raises Impossible."""
    if reference.uses_library:
        total = max(
            (e["step"] for p in reference.processes for e in p.events if e["event"] == "step"), default=0
        )
        if total == 0:
            raise Impossible("the script made no step: nothing can be interrupted")
        return {}, total
    found = printed.positions(line for process in reference.processes for line in process.lines)
    if not found:
        raise Impossible(
            "the script prints no steps to be interrupted at: let it print lines such as 'step 12 loss 0.34' "
            "on stdout, or use spot_trainer.Run"
        )
    return found, len(found)


def _check_was_tried(
    reference: Trial, run: Trial, steps: dict[printed.Key, int], litter: Sequence[str]
) -> None:
    """Raises Impossible if the interrupted run proves nothing."""
    hint = f"; it left {', '.join(litter[:3])}: say --watch for these" if litter else ""
    interrupted = [process for process in run.processes if process.interruption and process.exit_code != 0]
    if not interrupted:
        raise Impossible(
            "the script ended before an interruption could reach it: train longer, slow it down, or choose "
            f"an earlier --at-step{hint}"
        )
    later = run.processes[1:]
    if reference.uses_library:
        has_resumed = any(process.resumed_at for process in later)
    else:
        has_resumed = any(_first_position(process, steps) != 1 for process in later)
    if not has_resumed:
        raise Impossible(
            "the script never went on from a checkpoint, each process began at the first step: let it save "
            f"more often, and load what it saved when it starts{hint}"
        )


def _first_position(process: Process, steps: dict[printed.Key, int]) -> int:
    return next((steps[line.key] for line in process.lines if line.key in steps), 0)


def _failed_on_resume(error: Failed) -> Verdict:
    process = error.trial.last
    return Verdict(
        is_equal=False,
        headline=f"DIFFERENT: process {process.incarnation}, started after an interruption, fails: {error}",
        compared=("whether the script finishes",),
        cause=causes.Cause(
            None,
            "the script finishes when it is left alone and fails when it is resumed",
            "see its last words above; a file written in place is cut by a kill: write beside and rename",
        ),
    )


def _signals(run: Trial) -> str:
    names = [p.interruption.signal.name for p in run.processes if p.interruption and p.exit_code != 0]
    return " and ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _interruptions(run: Trial) -> list[tuple[int, str]]:
    return [(p.last_step, p.interruption.signal.name) for p in run.processes if p.interruption]


# ------------------------------------------------------------------ scripts with the library


def _judge_library(
    wish: Wish, reference: Trial, run: Trial, left: dict[str, Path], files: dict[str, Path]
) -> Verdict:
    stores = open_store(reference.uri), open_store(run.uri)
    try:
        a, b = (comparing.final_checkpoint(store) for store in stores)
    except (StoreError, Damaged) as error:
        raise Impossible(f"the script left no final checkpoint ({error}): does its Run block end?") from None
    found, unused = _without_unused(list(comparing.differences(a.state, b.state)), b.state, stores[1])
    expected, had = (curves.points(comparing.history(store)) for store in stores)
    parting, missing = curves.parting(expected, had), curves.missing_steps(expected, had)
    said, file = watched.compare(left, files)
    metric = curves.main_metric(expected)
    compared = [
        f"the final checkpoints at step {a.name.step}: every tensor, generator state and position",
        f"the metrics of {len(had)} executions of {len(expected)} steps",
        *said,
    ]
    details = list(environment_remarks(a.manifest.environment, b.manifest.environment))
    details += [
        f"  although {name} begins differently in each run, it is kept, and was never drawn from: seed it"
        for name in unused
    ]
    is_equal = not found and parting is None and not missing and file is None
    cause = None
    if not is_equal:
        details += [f"  {line}" for line in in_short(found)[1:SHOWN]] + _parting_lines(parting, missing)
        evidence = Evidence(
            paths=tuple(line.split(":", 1)[0] for line in found),
            kept=pieces.kept(a.state),
            spoken_of=pieces.spoken_of(_source(wish.command)),
            steps_after_resume=_steps_after_resume(parting, run),
            metrics=parting.names if parting else (),
            samples_differ=parting.samples_differ if parting else False,
            is_before_interruption=parting is not None and parting.incarnation == 1,
        )
        cause = causes.name_cause(evidence)
    first = found[0] if found else _first_of(parting, missing, file)
    return Verdict(
        is_equal=is_equal,
        headline=_headline(is_equal, run, f"at step {a.name.step}", first, len(found)),
        compared=tuple(compared),
        details=tuple(details),
        cause=cause,
        picture=_picture(run, expected, had, metric, parting.step if parting else None, is_equal),
    )


def _without_unused(found: list[str], state: dict[str, Any], store: Store) -> tuple[list[str], list[str]]:
    """Leave out generators that nobody seeded and nobody drew from; their names are the second part.

    Such a generator begins with other numbers in each process that begins afresh. If it has not moved
    since the first checkpoint, its state went through every resume unchanged, which is all that is asked.
    """
    roots = [f"state.{name}" for name in state if name.startswith(RNG_PREFIX)]
    differing = [root for root in roots if any(_lies_in(line, root) for line in found)]
    if not differing:
        return found, []
    first = writer.load(store, comparing.published(store)[0]).state
    unused = [
        root
        for root in differing
        if not list(
            comparing.differences(first.get(root.removeprefix("state.")), state[root.removeprefix("state.")])
        )
    ]
    left = [line for line in found if not any(_lies_in(line, root) for root in unused)]
    return left, [root.removeprefix("state.") for root in unused]


def _lies_in(line: str, root: str) -> bool:
    return line.startswith((f"{root}:", f"{root}.", f"{root}["))


def in_short(found: Sequence[str]) -> list[str]:
    """One line for each generator, whose hundreds of words say nothing to anybody."""
    short: dict[str, str] = {}
    for line in found:
        match = re.match(r"state\.rng\.\w+", line)
        short.setdefault(match[0] if match else line, f"{match[0]}: differs" if match else line)
    return list(short.values())


def _headline(is_equal: bool, run: Trial, where: str, first: str, count: int) -> str:
    if is_equal:
        return f"EQUAL {where} after {_signals(run)}: all that was compared, bit for bit"
    number = f"{count} differences in the final state" if count else "the runs part"
    return f"DIFFERENT after {_signals(run)}: {number}; the first is {first}"


def _first_of(parting: Parting | None, missing: list[int], file: watched.FileDifference | None) -> str:
    if parting is not None:
        return f"step {parting.step}"
    return (
        f"step {missing[0]}, which was never done"
        if missing
        else f"{file.name}: {file.found[0]}"
        if file
        else ""
    )


def _parting_lines(parting: Parting | None, missing: list[int]) -> list[str]:
    lines = []
    if parting is not None:
        lines.append(f"the runs part at step {parting.step}, in process {parting.incarnation}:")
        if parting.samples_differ:
            lines.append("  it was trained on other samples")
        lines += [
            f"  {name}: {parting.expected.get(name)!r} uninterrupted, {parting.found.get(name)!r} interrupted"
            for name in parting.names
        ]
    if missing:
        lines.append(f"steps that were never done: {', '.join(map(str, missing[:SHOWN]))}")
    return lines


def _steps_after_resume(parting: Parting | None, run: Trial) -> int | None:
    if parting is None:
        return None
    resumed = {process.incarnation: process.resumed_at for process in run.processes}
    return parting.step - resumed.get(parting.incarnation, 0)


def _picture(
    run: Trial,
    expected: Sequence[Point],
    had: Sequence[Point],
    metric: str | None,
    step: int | None,
    is_equal: bool,
) -> drawing.Picture | None:
    if metric is None:
        return None
    word = "EQUAL" if is_equal else "DIFFERENT"
    return drawing.Picture(
        title=f"{word} after {_signals(run)}",
        metric=metric,
        reference=curves.series(expected, metric),
        run=curves.series(had, metric),
        interruptions=_interruptions(run),
        parting_step=step,
    )


# ------------------------------------------------------------------ any other script


def _judge_printed(
    wish: Wish, reference: Trial, run: Trial, left: dict[str, Path], files: dict[str, Path]
) -> Verdict:
    lines = [line for process in reference.processes for line in process.lines]
    steps = printed.positions(lines)
    result = printed.compare(lines, [process.lines for process in run.processes])
    if result.num_compared == 0:
        raise Impossible("the interrupted run printed nothing that the uninterrupted one printed too")
    said, file = watched.compare(left, files)
    # A process that is killed between saving and printing takes the line along.
    too_many_missing = result.num_missing > len(run.processes)
    is_equal = result.first is None and file is None and not too_many_missing
    compared = [
        f"{result.num_compared} printed lines with numbers, without times"
        + (
            f" ({result.num_ignored} lines were printed by the interrupted run only)"
            if result.num_ignored
            else ""
        ),
        *said,
    ]
    if not said:
        compared.append("no file: say --watch PATH to compare what the script saves")
    details: list[str] = []
    if result.num_missing:
        details.append(f"  {result.num_missing} lines of the uninterrupted run were not printed again")
    if result.first is not None:
        details += [
            f"the output parts in process {result.first.process + 1}, {result.first.place}:",
            f"  uninterrupted: {result.first.expected}",
            f"  interrupted:   {result.first.found}",
        ]
    if file is not None:
        details += [f"  {file.name}: {line}" for line in file.found[:SHOWN]]
    cause = None
    if not is_equal:
        cause = causes.name_cause(_printed_evidence(wish, run, steps, result, file, left))
    parts = [
        [_point(line, number, steps) for line in p.lines if line.key]
        for number, p in enumerate(run.processes, 1)
    ]
    expected = [_point(line, 1, steps) for line in lines if line.key]
    first = (
        f"{file.name}: {file.found[0]}"
        if file
        else f"{result.first.place}"
        if result.first
        else "missing lines"
    )
    return Verdict(
        is_equal=is_equal,
        headline=_headline(is_equal, run, f"over {len(steps)} printed steps", first, 0),
        compared=tuple(compared),
        details=tuple(details),
        cause=cause,
        picture=_picture(
            run,
            expected,
            [point for part in parts for point in part],
            curves.main_metric(expected),
            result.first.position if result.first else None,
            is_equal,
        ),
    )


def _point(line: printed.Line, process: int, steps: dict[printed.Key, int]) -> Point:
    return Point(steps.get(line.key, 0), process, line.values)


def _printed_evidence(
    wish: Wish,
    run: Trial,
    steps: dict[printed.Key, int],
    result: printed.PrintedComparison,
    file: watched.FileDifference | None,
    left: dict[str, Path],
) -> Evidence:
    first, after = result.first, None
    if first is not None:
        begin = next((steps[line.key] for line in run.processes[first.process].lines if line.key in steps), 1)
        after = first.position - begin + 1
    states = [watched.read(path, name).value for name, path in left.items()]
    kept = {
        path: piece
        for state in states
        if isinstance(state, dict)
        for path, piece in pieces.kept(state).items()
    }
    return Evidence(
        paths=tuple(line.split(":", 1)[0] for line in file.found) if file else (),
        kept=kept,
        spoken_of=pieces.spoken_of(_source(wish.command)),
        steps_after_resume=after,
        metrics=first.names if first else (),
        is_before_interruption=first is not None and first.process == 0,
        uses_library=False,
    )


def _source(command: Sequence[str]) -> str:
    """The text of the script, for guesses at a cause; empty if there is none to read."""
    for word in command:
        if word.endswith(".py"):
            try:
                return Path(word).read_text(errors="replace")
            except OSError:
                continue
    return ""


def _files_here() -> set[str]:
    """What lies in the working directory: a script that saves there would find it in its second run."""
    return {path.name for path in Path.cwd().iterdir() if path.name != "__pycache__"}


def report(verdict: Verdict, output: Path, say: Callable[[str], None]) -> None:
    """Say it, draw it and write it down."""
    say(verdict.headline)
    for line in verdict.details:
        say(line)
    if verdict.cause is not None:
        say(f"likely cause: {verdict.cause}")
    say("compared: " + "; ".join(verdict.compared))
    output.mkdir(parents=True, exist_ok=True)
    if verdict.picture is None:
        say("no curve: the steps carry no number to draw")
    elif drawing.draw(verdict.picture, output / "curves.png"):
        say(f"curves: {output / 'curves.png'}")
    else:
        say("no picture of the curves: install matplotlib")
    body = {
        "equal": verdict.is_equal,
        "headline": verdict.headline,
        "details": verdict.details,
        "cause": str(verdict.cause) if verdict.cause else None,
        "compared": verdict.compared,
    }
    (output / "verdict.json").write_text(json.dumps(body, indent=2) + "\n")
