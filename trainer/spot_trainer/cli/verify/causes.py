"""From where two runs part to the piece of state that was most likely forgotten. Pure.

A step computes a loss from model, data and random numbers, and only then updates the
model. So if the first step after a resume has another loss, one of these three is wrong;
if its loss is right and the next one's is not, the update was wrong: optimizer, scheduler
or scaler. Invariant: a cause is a suspicion with its evidence and a remedy; the verdict
does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from spot_trainer.cli.verify.pieces import GENERATORS, Piece, part_of

_LEARNING_RATES = ("lr", "learning_rate", "learningrate")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a difference."""

    paths: tuple[str, ...] = ()
    """Of all differences between the final states, in their order, such as state.model.0.weight."""
    kept: Mapping[str, Piece] = field(default_factory=dict)
    """Pieces in the checkpoint, by path."""
    spoken_of: frozenset[Piece] = frozenset()
    """Pieces that the script's text uses."""
    steps_after_resume: int | None = None
    """The first step that differs, counted from the resume (1: the first one); None: no step does."""
    metrics: tuple[str, ...] = ()
    """Names of the values that differ in that step."""
    samples_differ: bool = False
    """That step was trained on other samples."""
    is_before_interruption: bool = False
    """The runs part before anything was interrupted."""
    uses_library: bool = True


@dataclass(frozen=True)
class Cause:
    """The suspicion."""

    piece: Piece | None
    """None: the script, and no piece of its state."""
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}. Remedy: {self.remedy}."


def name_cause(found: Evidence) -> Cause:
    """The likeliest cause; the order below is the specification."""
    if found.is_before_interruption:
        return Cause(
            None,
            "the script does not repeat itself: the runs part before anything was interrupted",
            "seed every generator, and set torch.set_num_threads(...) and "
            "torch.use_deterministic_algorithms(True); only then a resume can be judged",
        )
    piece, why = _suspect(found)
    if piece is None:
        return Cause(None, f"no single piece explains it ({why})", _LOOK)
    return Cause(piece, f"{_blame(piece, found)}: {why}", _remedy(piece, found))


def _suspect(found: Evidence) -> tuple[Piece | None, str]:
    if found.samples_differ:
        return Piece.DATA_ORDER, f"step {_nth(found)} after the resume was trained on other samples"
    if found.metrics and all(name.lower().endswith(_LEARNING_RATES) for name in found.metrics):
        return Piece.SCHEDULER, "the learning rate is the first value that differs"
    if found.steps_after_resume is None:
        return _of_state(found)
    if found.steps_after_resume <= 1:
        return _of_forward(found)
    return _of_update(found)


def _of_forward(found: Evidence) -> tuple[Piece | None, str]:
    why = "the very first step after the resume differs, before any update, so data or random numbers do"
    if _is_forgotten(found, Piece.MODEL):
        return Piece.MODEL, "the very first step after the resume differs, and no model is in the checkpoint"
    if _is_forgotten(found, Piece.DATA_ORDER):
        return Piece.DATA_ORDER, f"{why}, and the checkpoint holds no position in the data"
    forgotten = [piece for piece in GENERATORS if _is_forgotten(found, piece)]
    if forgotten:
        return forgotten[0], f"{why}, and the checkpoint does not hold its state"
    if Piece.OWN_RNG in found.spoken_of and not _has(found, Piece.OWN_RNG):
        return Piece.OWN_RNG, f"{why}, while the position in the data and the global generators agree"
    drawn = next((piece for piece in map(_part(found), found.paths) if piece in GENERATORS), None)
    if drawn is not None:
        return drawn, f"{why}, and its state differs at the end: it is not restored, or drawn from more often"
    if not _has(found, Piece.DATA_ORDER):
        return Piece.DATA_ORDER, f"{why}, and the checkpoint holds no position in the data"
    return None, why


def _of_update(found: Evidence) -> tuple[Piece | None, str]:
    why = (
        f"the first step after the resume is right and step {_nth(found)} is not, so the forward pass was "
        "right and an update was not"
    )
    if not _has(found, Piece.OPTIMIZER):
        return Piece.OPTIMIZER, f"{why}, and the checkpoint holds nothing that looks like an optimizer"
    for piece in (Piece.SCHEDULER, Piece.SCALER):
        if _is_forgotten(found, piece):
            return piece, f"{why}, and the script uses one that is not in the checkpoint"
    if any(".param_groups" in path and path.endswith(".lr") for path in found.paths):
        return Piece.SCHEDULER, f"{why}, and the learning rates differ at the end"
    forward = _of_forward_later(found, why)
    if forward is not None:
        return forward
    differing = {piece for piece in map(_part(found), found.paths) if piece is not None}
    for piece in (Piece.SCALER, Piece.SCHEDULER, Piece.OPTIMIZER):
        if piece in differing:
            return piece, f"{why}; it is in the checkpoint, but it ends in another state"
    return None, why


def _of_forward_later(found: Evidence, why: str) -> tuple[Piece | None, str] | None:
    """Data and generators can show late as well: noise that is drawn only now and then."""
    for piece in (Piece.DATA_ORDER, *GENERATORS):
        if _is_forgotten(found, piece):
            return piece, f"{why}; the script uses it and the checkpoint does not hold it"
    if Piece.OWN_RNG in found.spoken_of and not _has(found, Piece.OWN_RNG):
        return Piece.OWN_RNG, f"{why}; the script makes one and the checkpoint does not hold it"
    return None


def _of_state(found: Evidence) -> tuple[Piece | None, str]:
    why = "every compared step agrees and only the state at the end differs"
    piece = next((piece for piece in map(_part(found), found.paths) if piece is not None), None)
    if any(".param_groups" in path and path.endswith(".lr") for path in found.paths[:1]):
        piece = Piece.SCHEDULER
    return piece, why


def _blame(piece: Piece, found: Evidence) -> str:
    verb = "is not restored" if _has(found, piece) else "is not saved"
    return f"the {piece} {verb}" if not piece.startswith(("a ", "P", "N", "C")) else f"{piece} {verb}"


def _remedy(piece: Piece, found: Evidence) -> str:
    with_library, without = _REMEDIES[piece]
    return with_library if found.uses_library else without


_LOOK = (
    "look at what the script computes with and does not give to the checkpoint: counters, caches, buffers, "
    "averages, iterators"
)
_REMEDIES = {
    Piece.MODEL: ("pass model=model to spot_trainer.Run", "save model.state_dict() and load it"),
    Piece.OPTIMIZER: (
        "pass optimizer=optimizer to spot_trainer.Run",
        "save optimizer.state_dict() and load it after the optimizer was made",
    ),
    Piece.SCHEDULER: (
        "pass scheduler=scheduler to spot_trainer.Run",
        "save scheduler.state_dict() and load it, and step it exactly once per step",
    ),
    Piece.SCALER: ("pass scaler=scaler to spot_trainer.Run", "save scaler.state_dict() and load it"),
    Piece.DATA_ORDER: (
        "give a spot_trainer.ShuffledSampler to the DataLoader and to Run and loop over run.batches(...), or "
        "pass an object that knows the position to Run",
        "save epoch and position in the data, order it by seed and epoch, and skip what was done",
    ),
    Piece.OWN_RNG: (
        "pass the generator to spot_trainer.Run in an object with state_dict() and load_state_dict(), or "
        "draw from the global generators, which are always saved",
        "save the generator's own state (get_state(), getstate() or bit_generator.state) and set it",
    ),
    Piece.PYTHON_RNG: (
        "draw the same numbers before the first step whether the run is fresh or resumed",
        "save random.getstate() and call random.setstate(...) just before the first step",
    ),
    Piece.NUMPY_RNG: (
        "draw the same numbers before the first step whether the run is fresh or resumed",
        "save numpy.random.get_state() and call numpy.random.set_state(...) just before the first step",
    ),
    Piece.TORCH_RNG: (
        "draw the same numbers before the first step whether the run is fresh or resumed (an iterator of a "
        "DataLoader draws one), and use ShuffledSampler",
        "save torch.get_rng_state() and call torch.set_rng_state(...) just before the first step",
    ),
    Piece.CUDA_RNG: (
        "draw the same numbers before the first step whether the run is fresh or resumed",
        "save torch.cuda.get_rng_state_all() and call torch.cuda.set_rng_state_all(...)",
    ),
}


def _is_forgotten(found: Evidence, piece: Piece) -> bool:
    return piece in found.spoken_of and not _has(found, piece)


def _has(found: Evidence, piece: Piece) -> bool:
    return piece in found.kept.values()


def _part(found: Evidence) -> Callable[[str], Piece | None]:
    return lambda path: part_of(path, found.kept)


def _nth(found: Evidence) -> str:
    return f"+{found.steps_after_resume}" if found.steps_after_resume is not None else "?"
