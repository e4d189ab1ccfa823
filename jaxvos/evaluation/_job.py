"""What is scored against what, as found on disk before anything is decoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxvos.errors import InputError
from jaxvos.evaluation._folders import Annotated, find_predictions, find_truth
from jaxvos.evaluation._pairing import choose_sequences
from jaxvos.evaluation._protocols import PROTOCOLS

__all__ = ["Job", "find_job"]

_FLOW, _MASKS = (".flo", ".pfm", ".png"), (".png",)
_RELEASES = {
    "fbms": ("fbms59", "test"),
    "visal": ("visal", "test"),
    "youtube-objects": ("youtube_objects", "test"),
    "segtrack": ("segtrack_v2", "test"),
    "vip": ("vip", "val"),
}


class Job(NamedTuple):
    """The sequences to score, in order, and how."""

    protocol: str
    names: list[str]
    annotated: Mapping[str, Annotated]
    predicted: Mapping[str, Path]
    suffixes: Sequence[str]
    resize: bool
    workers: int | None
    progress: bool
    story: dict[str, Any]  # fields of a report that say where it comes from


def find_job(
    predictions: Path,
    ground_truth: Path,
    *,
    protocol: str | None,
    sequences: Sequence[str] | None,
    resize: bool,
    workers: int | None,
    progress: bool,
) -> Job:
    """Finds the sequences of both sides; with protocol None only the caller can tell which of the DAVIS ones it is."""
    if protocol is not None and protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol}: {', '.join(PROTOCOLS)}")
    suffixes = _FLOW if protocol == "flow" else _MASKS
    annotations = (
        ("Annotations",) if protocol != "davis17-unsupervised" else ("Annotations_unsupervised", "Annotations")
    )
    own, annotated = find_truth(
        ground_truth,
        annotations=annotations,
        suffixes=suffixes,
        release=_RELEASES.get(protocol or ""),
        bright=protocol in ("saliency", "visal"),
    )
    predicted = find_predictions(predictions, suffixes=suffixes)
    if len(annotated) == len(predicted) == 1:
        predicted = dict(zip(annotated, predicted.values(), strict=True))
    names = choose_sequences(annotated, predicted, sequences)
    if inside := [predicted[name] for name in names if predicted[name].resolve().is_relative_to(own.resolve())]:
        raise InputError(f"predictions {inside[0]} lie in the folder of the ground truth, {own}: keep the two apart")
    story = {
        "predictions": str(predictions),
        "ground_truth": str(ground_truth),
        "not_predicted": tuple(sorted(annotated.keys() - predicted.keys())),
        "not_annotated": tuple(sorted(predicted.keys() - annotated.keys())),
    }
    return Job(protocol or "", names, annotated, predicted, suffixes, resize, workers, progress, story)
