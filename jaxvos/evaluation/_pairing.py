"""Which sequences are scored, which of their frames, and which files of both sides belong together."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxvos.errors import InputError
from jaxvos.evaluation._folders import Annotated

__all__ = ["Pair", "choose_sequences", "pair_frames", "scored_frames"]

_T = TypeVar("_T")


class Pair(NamedTuple):
    """One scored frame."""

    name: str
    truth: tuple[Path, ...]
    drawn: Path


def choose_sequences(
    annotated: Mapping[str, Annotated], predicted: Mapping[str, Path], sequences: Sequence[str] | None
) -> list[str]:
    """Returns the names of the sequences to score: those chosen, the only one predicted, or all of the ground truth.

    Raises:
        InputError: if one of them is missing on either side.
    """
    for name in sequences or ():
        for kind, found in (("ground truth", annotated), ("predictions", predicted)):
            if name not in found:
                raise InputError(f"no sequence {name} in the {kind} (found: {_some(list(found))})")
    if not annotated.keys() & predicted.keys():
        raise InputError(f"the predictions ({_some(list(predicted))}) and the ground truth ({_some(list(annotated))}) "
                         "have no sequence in common: name folders alike")  # fmt: skip
    if sequences:
        return list(dict.fromkeys(sequences))
    if len(predicted) == 1:
        return list(predicted)
    if missing := [name for name in annotated if name not in predicted]:
        raise InputError(f"{len(missing)} of {len(annotated)} sequences of the ground truth have no predictions "
                         f"({_some(missing)}): predict them, or choose the sequences to score")  # fmt: skip
    return list(annotated)


def pair_frames(
    annotated: Annotated, predicted: Path, names: Sequence[str], *, suffixes: Sequence[str]
) -> tuple[Pair, ...]:
    """Returns ground truth and prediction of the frames of these names.

    Raises:
        InputError: if a prediction is missing, or is the file of the ground truth.
    """
    pairs = tuple(Pair(name, annotated.files[name], _drawn(predicted, name, suffixes)) for name in names)
    missing = [pair.drawn for pair in pairs if not pair.drawn.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(pairs)} scored frames of {annotated.folder} have no prediction, "
                         f"the first is {missing[0]}: name predictions as the ground truth")  # fmt: skip
    if pairs[0].drawn.samefile(pairs[0].truth[0]):
        raise InputError(f"{pairs[0].drawn} is the file of the ground truth: every score would be perfect")
    return pairs


def scored_frames(frames: Sequence[_T], where: str, *, start: int = 0, end: int = 0) -> Sequence[_T]:
    """Returns the frames but for some at the start and at the end that do not count."""
    scored = frames[start : len(frames) - end]
    if not scored:
        raise InputError(f"{where}: nothing to score in {len(frames)} frames, of which {start} at the start and {end} "
                         "at the end do not count; score all frames instead")  # fmt: skip
    return scored


def _drawn(folder: Path, name: str, suffixes: Sequence[str]) -> Path:
    """Returns the file of a prediction; where there is none, the first name that it could have."""
    candidates = [folder / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
