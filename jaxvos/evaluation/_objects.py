"""Which objects a frame has, and J and F of each."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxvos.errors import InputError
from jaxvos.metrics import ObjectScores, label_scores, mask_scores

__all__ = ["Objects", "collect_objects", "find_objects", "labels_in", "objects_in", "score_frame"]

_Labels = UInt8[np.ndarray, "_ _"]
_VOID = 255
_Scores = Mapping[int, tuple[float, float]]


class Objects(NamedTuple):
    """What the objects of a sequence are: its labels, or all of them as one."""

    labels: tuple[int, ...]
    merged: bool
    void: int  # the label that is background in a merged ground truth; 0 where there is none


def labels_in(mask: _Labels) -> tuple[int, ...]:
    """Returns the labels of a mask."""
    return tuple((np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1:]) + 1).tolist())


def objects_in(mask: _Labels) -> tuple[int, ...]:
    """Returns the labels of a ground-truth mask but for the void."""
    return tuple(label for label in labels_in(mask) if label != _VOID)


def find_objects(first: _Labels, where: str, *, merged: bool) -> Objects:
    """Returns the objects that the first frame of a ground truth defines, or all of them as one."""
    labels = objects_in(first)
    if merged:
        return Objects(labels=(1,), merged=True, void=_VOID if labels else 0)
    if not labels:
        remedy = " but 255, which is void in davis17: use davis16 for 0/255 masks" if (first == _VOID).any() else ""
        raise InputError(f"the first ground-truth frame defines the objects, and {where} has no label{remedy}")
    return Objects(labels=labels, merged=False, void=_VOID)


def score_frame(
    truth: _Labels, drawn: _Labels, objects: Objects, where: str, *, active: Collection[int] | None = None
) -> dict[int, tuple[float, float]]:
    """Returns J and F of every object in one frame, or of the active ones."""
    if truth.shape != drawn.shape:
        sizes = [f"{mask.shape[1]}x{mask.shape[0]}" for mask in (drawn, truth)]
        raise InputError(f"{where} is {sizes[0]} and the ground truth {sizes[1]} (width x height): "
                         "predict at the size of the ground truth")  # fmt: skip
    if objects.merged:
        masks = (truth != 0) & (truth != objects.void), drawn != 0
        return {label: mask_scores(*masks) for label in objects.labels}
    if unknown := [label for label in labels_in(drawn) if label not in objects.labels]:
        raise InputError(
            f"{where} has label {unknown[0]}, and the objects of the ground truth are "
            f"{', '.join(map(str, objects.labels))}: use those labels, or davis16 to score all as one"
        )
    labels = [label for label in objects.labels if active is None or label in active]
    return dict(zip(labels, label_scores(truth, drawn, labels), strict=True))


def collect_objects(objects: Objects, scores: Sequence[_Scores]) -> tuple[ObjectScores, ...]:
    """Turns scores by frame into scores by object; an object without a frame is left out."""
    collected = []
    for label in objects.labels:
        if rows := [frame[label] for frame in scores if label in frame]:
            j, f = zip(*rows, strict=True)
            collected.append(ObjectScores(label, j, f))
    return tuple(collected)
