"""J and F of objects together, which is faster than one after the other: masks are looked at where they are."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from jaxvos.metrics._boundary import _bounding_box, _matched, _radius
from jaxvos.metrics._metric import Metric
from jaxvos.metrics._region import region_similarity
from jaxvos.metrics._report import ObjectScores, SequenceScores

__all__ = ["label_scores", "mask_scores", "object_metric"]

_scratch = threading.local()  # fresh arrays of the size of a frame cost more than what is done with them


def mask_scores(annotation: Bool[np.ndarray, "h w"], segmentation: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Returns `region_similarity` and `boundary_measure` of one object in one frame, bit for bit."""
    box = _bounding_box((annotation, segmentation))
    masks = annotation[box], segmentation[box]
    return region_similarity(*masks), _matched(masks, _radius(annotation.shape))


def label_scores(
    annotation: UInt8[np.ndarray, "h w"], segmentation: UInt8[np.ndarray, "h w"], labels: Iterable[int]
) -> Iterator[tuple[float, float]]:
    """Yields `mask_scores` of each label of two label maps."""
    masks = getattr(_scratch, "masks", None)
    if masks is None or masks.shape[1:] != annotation.shape:
        masks = _scratch.masks = np.empty((2, *annotation.shape), bool)
    for label in labels:
        np.equal(annotation, label, out=masks[0])
        np.equal(segmentation, label, out=masks[1])
        yield mask_scores(masks[0], masks[1])


class FrameScore(NamedTuple):
    """J and F of one object in one frame."""

    sequence: str
    label: int
    frame: str
    j: float
    f: float


def object_metric() -> Metric:
    """Makes J and F of objects over frames that are judged in any order and place.

    `update(state, sequence, frame, annotation, segmentation, labels)` takes the names of a sequence and of a frame, two
    label maps `(h, w)` and the labels that count there. States are sets of scores, so that a frame that two processes
    have judged counts once. `compute` gives `SequenceScores` by name, frames and labels in their order; recall and
    decay need all frames of an object, which is why nothing is summed before.
    """

    def update(
        state: frozenset[FrameScore],
        sequence: str,
        frame: str,
        annotation: UInt8[np.ndarray, "h w"],
        segmentation: UInt8[np.ndarray, "h w"],
        labels: Sequence[int],
    ) -> frozenset[FrameScore]:
        scores = zip(labels, label_scores(annotation, segmentation, labels), strict=True)
        return state | {FrameScore(sequence, label, frame, j, f) for label, (j, f) in scores}

    def compute(state: frozenset[FrameScore]) -> tuple[SequenceScores, ...]:
        found: dict[str, dict[int, list[FrameScore]]] = {}
        for score in sorted(state):
            found.setdefault(score.sequence, {}).setdefault(score.label, []).append(score)
        return tuple(
            SequenceScores(
                name,
                tuple(sorted({score.frame for scores in by_label.values() for score in scores})),
                tuple(
                    ObjectScores(label, tuple(score.j for score in scores), tuple(score.f for score in scores))
                    for label, scores in by_label.items()
                ),
            )
            for name, by_label in found.items()
        )

    return Metric(frozenset, update, frozenset.union, compute)
