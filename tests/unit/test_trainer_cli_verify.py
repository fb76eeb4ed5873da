"""`verify` decides: where to interrupt, what differs in print, which piece was forgotten."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import spot_trainer as spot
from spot_trainer.cli import app
from spot_trainer.cli.verify import causes, curves, drawing, pieces, printed, schedule, watched
from spot_trainer.cli.verify.causes import Evidence
from spot_trainer.cli.verify.curves import Point
from spot_trainer.cli.verify.pieces import Piece
from spot_trainer.cli.verify.schedule import Impossible, Interruption, SignalChoice
from spot_trainer.cli.verify.trial import make_environ
from spot_trainer.contract import Environment

TERM, KILL = signal.SIGTERM, signal.SIGKILL


# ------------------------------------------------------------------ where to interrupt


def test_interruptions_are_spread_evenly_and_alternate() -> None:
    assert schedule.choose(100, times=4, signals=SignalChoice.BOTH) == (
        Interruption(20, TERM),
        Interruption(40, KILL),
        Interruption(60, TERM),
        Interruption(80, KILL),
    )


@pytest.mark.parametrize("num_steps", [5, 6, 50])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_steps_are_distinct_and_lie_inside_the_run(num_steps: int, seed: int | None) -> None:
    steps = [each.step for each in schedule.choose(num_steps, times=4, signals=SignalChoice.KILL, seed=seed)]
    assert steps == sorted(set(steps))
    assert all(0 < step < num_steps for step in steps)


def test_a_seed_gives_the_same_steps_again() -> None:
    first, second, other = (
        schedule.choose(1000, times=4, signals=SignalChoice.TERM, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_chosen_steps_are_kept_in_order() -> None:
    found = schedule.choose(50, times=4, signals=SignalChoice.TERM, at_steps=(30, 7))
    assert found == (Interruption(7, TERM), Interruption(30, TERM))


@pytest.mark.parametrize("step", [0, 50, 51])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(Impossible, match="choose from 1 to 49"):
        schedule.choose(50, times=1, signals=SignalChoice.TERM, at_steps=(step,))


def test_a_run_that_is_too_short_is_refused() -> None:
    with pytest.raises(Impossible, match="too few for 4"):
        schedule.choose(4, times=4, signals=SignalChoice.TERM)


# ------------------------------------------------------------------ what is printed


def line(text: str) -> printed.Line:
    found = printed.parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2026-11-24 04:20:04,123 step 3 loss 0.5", "2027-01-01 00:00:00,999 step 3 loss 0.5"),
        ("step 3 loss 0.5 (1.23 s)", "step 3 loss 0.5 (0.9 s)"),
        ("step 3 loss 0.5 120.5 it/s", "step 3 loss 0.5 98 it/s"),
        ('{"step": 3, "loss": 0.5, "elapsed": 3.1}', '{"step": 3, "loss": 0.5, "elapsed": 4.7}'),
        ("[04:20] step 3 loss 0.5 eta: 12", "[05:10] step 3 loss 0.5 eta: 99"),
    ],
)
def test_time_and_speed_do_not_count(one: str, other: str) -> None:
    assert line(one) == line(other)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("step 3 loss 0.25", (("step", 3),), {"loss": 0.25}),
        ("Epoch: 2 | iter 40/100 | loss=1e-3", (("epoch", 2), ("iter", 40)), {"loss": 0.001}),
        ('{"step": 7, "train_loss": 0.125}', (("step", 7),), {"train_loss": 0.125}),
        ("accuracy 0.75", (), {"accuracy": 0.75}),
    ],
)
def test_step_and_values_are_found(text: str, key: printed.Key, values: dict[str, float]) -> None:
    assert (line(text).key, line(text).values) == (key, values)


def test_lines_without_numbers_are_passed_over() -> None:
    assert printed.parse("done") is None
    assert printed.parse("took 3.5 s") is None


REFERENCE = [line(f"step {n} loss {n / 8}") for n in range(1, 7)] + [line("accuracy 0.75")]


def test_repeated_steps_and_news_of_the_resume_are_no_difference() -> None:
    again = [line("resumed with 3 files"), *REFERENCE[2:]]
    found = printed.compare(REFERENCE, [REFERENCE[:4], again])
    assert (found.first, found.num_ignored, found.num_missing) == (None, 1, 0)


def test_the_first_line_that_differs_is_named() -> None:
    found = printed.compare(REFERENCE, [REFERENCE[:3], [REFERENCE[3], line("step 5 loss 0.6")]]).first
    assert found == printed.PrintedDifference(
        1, 5, "step 5", "step 5 loss 0.625", "step 5 loss 0.6", ("loss",)
    )


def test_another_last_line_is_a_difference() -> None:
    found = printed.compare(REFERENCE, [[*REFERENCE[:6], line("accuracy 0.5")]]).first
    assert found is not None
    assert (found.expected, found.found) == ("accuracy 0.75", "accuracy 0.5")


def test_steps_that_never_came_are_counted() -> None:
    assert printed.compare(REFERENCE, [REFERENCE[:2], REFERENCE[4:]]).num_missing == 2


def test_only_lines_of_the_library_are_events() -> None:
    assert printed.event_of('{"event":"step","step":1,"incarnation":1,"capacityType":"spot"}') is not None
    assert printed.event_of('{"event":"step","step":1}') is None
    assert printed.event_of("{") is None


# ------------------------------------------------------------------ where curves part


def point(step: int, loss: float, incarnation: int = 1, samples: tuple[int, ...] | None = None) -> Point:
    return Point(step, incarnation, {"loss": loss}, samples)


def test_a_repeated_step_must_repeat_its_values() -> None:
    reference = [point(1, 0.5), point(2, 0.25)]
    assert curves.parting(reference, [point(1, 0.5), point(1, 0.5, 2), point(2, 0.25, 2)]) is None
    found = curves.parting(reference, [point(1, 0.5), point(2, 0.25), point(2, 0.26, 2)])
    assert found is not None
    assert (found.step, found.incarnation, found.names) == (2, 2, ("loss",))


def test_other_samples_part_a_run_with_equal_losses() -> None:
    found = curves.parting([point(1, 0.5, samples=(1,))], [point(1, 0.5, samples=(2,))])
    assert found is not None
    assert found.samples_differ


def test_nan_equals_itself_and_zero_differs_from_minus_zero() -> None:
    assert curves.parting([point(1, float("nan"))], [point(1, float("nan"))]) is None
    assert curves.parting([point(1, 0.0)], [point(1, -0.0)]) is not None


def test_steps_that_were_never_done_are_found() -> None:
    assert curves.missing_steps([point(1, 0), point(2, 0)], [point(2, 0)]) == [1]


# ------------------------------------------------------------------ which piece it was

MODEL = torch.nn.Linear(2, 2)
ADAM = torch.optim.Adam(MODEL.parameters())
WHOLE = {
    "model": MODEL.state_dict(),
    "optimizer": ADAM.state_dict(),
    "scheduler": torch.optim.lr_scheduler.StepLR(ADAM, 1).state_dict(),
    "scaler": torch.amp.GradScaler("cpu").state_dict(),
    "sampler": spot.ShuffledSampler(8).state_dict(),
}
KEPT = pieces.kept(WHOLE)


def test_pieces_are_recognised_by_their_form() -> None:
    assert KEPT == {
        "state.model": Piece.MODEL,
        "state.optimizer": Piece.OPTIMIZER,
        "state.scheduler": Piece.SCHEDULER,
        "state.scaler": Piece.SCALER,
        "state.sampler": Piece.DATA_ORDER,
    }


def test_states_of_generators_are_recognised() -> None:
    import random

    state = {
        "a": torch.get_rng_state(),
        "b": random.getstate(),
        "c": np.random.get_state(legacy=True),
        "d": np.random.default_rng().bit_generator.state,
    }
    assert list(pieces.kept(state).values()) == [
        Piece.TORCH_RNG,
        Piece.PYTHON_RNG,
        Piece.NUMPY_RNG,
        Piece.OWN_RNG,
    ]


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("o = torch.optim.AdamW(p)", {Piece.OPTIMIZER}),
        ("s = CosineAnnealingLR(o)", {Piece.SCHEDULER}),
        ("g = np.random.default_rng(0)", {Piece.OWN_RNG}),
        ("x = random.random()", {Piece.PYTHON_RNG}),
        ("x = np.random.normal()", {Piece.NUMPY_RNG}),
        ("random.seed(1); np.random.seed(1)", set()),
        ("pass  # torch.optim.SGD(p), GradScaler()", set()),
        ("d = nn.Dropout(0.1)", {Piece.TORCH_RNG}),
        ("not python (", set()),
    ],
)
def test_a_script_speaks_of_pieces(source: str, want: set[Piece]) -> None:
    assert pieces.spoken_of(source) == want


def without(*names: str) -> dict[str, Piece]:
    return {path: piece for path, piece in KEPT.items() if path.removeprefix("state.") not in names}


ALL = frozenset({Piece.OPTIMIZER, Piece.SCHEDULER, Piece.SCALER, Piece.DATA_ORDER})


@pytest.mark.parametrize(
    ("evidence", "want"),
    [
        (Evidence(kept=without("optimizer"), steps_after_resume=2, spoken_of=ALL), Piece.OPTIMIZER),
        (Evidence(kept=without("scheduler"), steps_after_resume=3, spoken_of=ALL), Piece.SCHEDULER),
        (Evidence(kept=without("scaler"), steps_after_resume=9, spoken_of=ALL), Piece.SCALER),
        (Evidence(kept=without("sampler"), steps_after_resume=1, spoken_of=ALL), Piece.DATA_ORDER),
        (Evidence(kept=KEPT, steps_after_resume=5, samples_differ=True), Piece.DATA_ORDER),
        (Evidence(kept=KEPT, steps_after_resume=1, metrics=("lr",)), Piece.SCHEDULER),
        (Evidence(kept=KEPT, steps_after_resume=1, spoken_of=frozenset({Piece.OWN_RNG})), Piece.OWN_RNG),
        (Evidence(kept=KEPT, steps_after_resume=1, spoken_of=frozenset({Piece.NUMPY_RNG})), Piece.NUMPY_RNG),
        (
            Evidence(kept=without("model"), steps_after_resume=1, spoken_of=frozenset({Piece.MODEL})),
            Piece.MODEL,
        ),
        (
            Evidence(
                kept={**KEPT, "state.rng.torch": Piece.TORCH_RNG},
                steps_after_resume=1,
                paths=("state.rng.torch",),
            ),
            Piece.TORCH_RNG,
        ),
        (
            Evidence(kept=KEPT, steps_after_resume=3, paths=("state.optimizer.param_groups[0].lr",)),
            Piece.SCHEDULER,
        ),
        (Evidence(kept=KEPT, steps_after_resume=2, paths=("state.optimizer.state.0.step",)), Piece.OPTIMIZER),
        (Evidence(kept=KEPT, paths=("state.scaler._growth_tracker",)), Piece.SCALER),
        (Evidence(kept=KEPT, steps_after_resume=2), None),
        (Evidence(is_before_interruption=True, steps_after_resume=1), None),
    ],
)
def test_the_likely_cause(evidence: Evidence, want: Piece | None) -> None:
    assert causes.name_cause(evidence).piece == want


def test_a_cause_says_what_to_do() -> None:
    forgotten = Evidence(kept=without("optimizer"), steps_after_resume=2)
    assert str(causes.name_cause(forgotten)).endswith(
        "holds nothing that looks like an optimizer. Remedy: pass optimizer=optimizer to spot_trainer.Run."
    )
    plain = Evidence(kept=without("optimizer"), steps_after_resume=2, uses_library=False)
    assert "save optimizer.state_dict()" in causes.name_cause(plain).remedy


def test_a_script_that_does_not_repeat_itself_is_told_so() -> None:
    assert "does not repeat itself" in causes.name_cause(Evidence(is_before_interruption=True)).sentence


# ------------------------------------------------------------------ files


def left(folder: Path, **files: object) -> dict[str, Path]:
    folder.mkdir()
    for name, value in files.items():
        torch.save(value, folder / f"{name}.pt")
    return {f"{name}.pt": folder / f"{name}.pt" for name in files}


def test_saved_files_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    state = {"w": torch.ones(3), "rng": np.random.get_state(legacy=True)}
    a, b = left(tmp_path / "a", x=state), left(tmp_path / "b", x=state)
    assert watched.compare(a, b) == (["x.pt, tensor by tensor"], None)
    c = left(tmp_path / "c", x={**state, "w": torch.tensor([1.0, 1.0, 2.0])})
    _, first = watched.compare(a, c)
    assert first is not None
    assert first.found == ("state.w: 1 of 3 elements differ, the first is number 2",)


class Opaque:
    """Only its own code can load it."""


def test_a_file_that_needs_its_code_is_compared_as_bytes(tmp_path: Path) -> None:
    a, b = left(tmp_path / "a", x=Opaque()), left(tmp_path / "b", x=Opaque())
    said, first = watched.compare(a, b)
    assert said == ["x.pt, byte by byte (it cannot be read without running its code)"]
    assert first is None


def test_safetensors_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for name, body in (("a", b"\0" * 8), ("b", b"\0" * 7 + b"\1")):
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + body)
    a, b = ({"m.safetensors": tmp_path / name} for name in ("a", "b"))
    assert watched.compare(a, a) == (["m.safetensors, tensor by tensor"], None)
    _, first = watched.compare(a, b)
    assert first is not None
    assert first.found[0].startswith("state.w")


def test_a_file_that_only_one_run_left_is_a_difference(tmp_path: Path) -> None:
    _, first = watched.compare(left(tmp_path / "a", x=1), {})
    assert first is not None
    assert first.found == ("state: only the uninterrupted run left it",)


def test_files_that_exist_already_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("mine")
    with pytest.raises(Impossible, match="exists already"):
        watched.refuse_existing([tmp_path / "x.pt"])
    assert (tmp_path / "x.pt").read_text() == "mine"


def test_a_directory_is_collected_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a.txt").write_text("1")
    found = watched.collect([tmp_path / "out"], tmp_path / "kept")
    assert list(found) == ["out/deep/a.txt"]
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ the rest


def test_the_environment_is_one_that_the_library_accepts(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "SPOT_JOB_UID": "other", "KUBEFLOW_TRAINER_SERVER_URL": "http://x"}
    found = make_environ(inherited, tmp_path, "file:///x", 2, 0.05)
    told = Environment.from_environ(found)
    assert (told.incarnation, told.checkpoint_uri, told.status_url) == (2, "file:///x", None)
    assert found["PATH"] == "/bin"


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    picture = drawing.Picture(
        title="DIFFERENT",
        metric="loss",
        reference=[(1, 1, 0.5), (1, 2, 0.25)],
        run=[(1, 1, 0.5), (2, 2, 0.75)],
        interruptions=[(1, "SIGKILL")],
        parting_step=2,
    )
    assert drawing.draw(picture, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["verify"], "Missing argument"),
        (["verify", "--signal=HUP", "--", "x"], "HUP"),
        (["verify", "--", "no-such-program-here"], "cannot be run: No such file"),
    ],
)
def test_a_mistake_ends_with_2_and_a_sentence(
    arguments: list[str],
    want: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(arguments) == 2
    assert want in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
