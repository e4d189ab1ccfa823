"""Overlap of many regions at once: mIoU* and mIoU-dagger of instances, and the mIoU of semantic classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from jaxvos.errors import InputError
from jaxvos.metrics._metric import Metric, add_states, ratio, require_same_size

__all__ = ["InstanceScores", "InstanceState", "SemanticScores", "SemanticState", "instance_metric", "semantic_metric"]

_Labels = UInt8[np.ndarray, "_ _"]
_VOID = 255


class InstanceState(NamedTuple):
    """Sums of mean IoU, and how many: over frames, and over instances."""

    frame_total: np.float64
    frames: np.int64
    instance_total: np.float64
    instances: np.int64


class InstanceScores(NamedTuple):
    """The two means of IoU on SegTrack v2, which differ where instances come and go."""

    miou_star: float  # per frame the mean over instances, then over frames
    miou_dagger: float  # per instance the mean over frames, then over instances


def instance_metric(*, first_frame: bool = False, absent: bool = False) -> Metric:
    """Makes mIoU* and mIoU-dagger of SegTrack v2 (Zeng et al., DMM-Net, ICCV 2019): `update(state, predicted, truth)`.

    The paper leaves three things open. Frames and instances of all sequences are pooled; `grouped` averages over
    sequences instead. The others are options.

    `update` takes the label maps of all frames of one sequence; an instance keeps its label. It raises `InputError` for
    frames that do not correspond, and for predicted labels that no frame of the truth has. 255 is void: background.

    Args:
        first_frame: score the first frame too, which is given to semi-supervised systems.
        absent: score an instance also in frames whose truth lacks it: 1 where it is not predicted either, else 0.
    """

    def update(state: InstanceState, predicted: Sequence[_Labels], truth: Sequence[_Labels]) -> InstanceState:
        if len(predicted) != len(truth):
            raise InputError(f"{len(predicted)} predictions for {len(truth)} frames of ground truth")
        for frame, drawn in zip(truth, predicted, strict=True):
            require_same_size(drawn, frame, "label map")
        areas = [_areas(*pair) for pair in zip(predicted, truth, strict=True)]
        drawn, present, shared = np.array(areas, np.int64).reshape(-1, 3, 254).swapaxes(0, 1)
        labels = present.any(0)
        if unknown := (np.flatnonzero(drawn.any(0) & ~labels) + 1).tolist():
            raise InputError(
                f"predicted label {unknown[0]} is in no frame of the ground truth, which has "
                f"{', '.join(map(str, np.flatnonzero(labels) + 1)) or 'none'}: use those labels"
            )
        union = drawn + present - shared
        overlap = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
        counted = labels & (absent | (present > 0))
        start = 0 if first_frame else 1
        return add_states(
            state,
            InstanceState(
                *_sum_of_means(overlap[start:], counted[start:], 1), *_sum_of_means(overlap[start:], counted[start:], 0)
            ),
        )

    return Metric(
        lambda: InstanceState(np.float64(0), np.int64(0), np.float64(0), np.int64(0)),
        update,
        add_states,
        lambda state: InstanceScores(
            ratio(state.frame_total, state.frames), ratio(state.instance_total, state.instances)
        ),
    )


class SemanticState(NamedTuple):
    """Pixels by true class (rows) and predicted class (columns)."""

    confusion: Int64[np.ndarray, "c c"]


class SemanticScores(NamedTuple):
    """Scores of a data set."""

    miou: float  # over the classes that are true or predicted somewhere
    accuracy: float  # share of pixels
    iou: Float[np.ndarray, "c"]  # by class, NaN for those that are neither


def semantic_metric(num_classes: int, *, ignore_label: int | None = None) -> Metric:
    """Makes the mIoU of classes from the pixels of the whole data set: `update(state, predicted, truth)`.

    For the parts of VIP (Zhou et al., ACM MM 2018) the background is a class too. Papers that report its mIoU rarely
    say which they mean: this one, or the mean over videos of each video's mIoU, which is what `grouped` makes of it.

    `update` takes the label maps of one frame, and raises `InputError` if they differ in size or have a label that is
    no class.

    Args:
        num_classes: labels are 0 ... num_classes - 1.
        ignore_label: true label of the pixels that do not count.
    """

    def zero() -> SemanticState:
        return SemanticState(np.zeros((num_classes, num_classes), np.int64))

    def update(state: SemanticState, predicted: _Labels, truth: _Labels) -> SemanticState:
        require_same_size(predicted, truth, "label map")
        keep = truth != ignore_label if ignore_label is not None else np.ones(truth.shape, bool)
        predicted, truth = predicted[keep], truth[keep]
        for what, labels in (("ground truth", truth), ("prediction", predicted)):
            if labels.max(initial=0) >= num_classes:
                raise InputError(
                    f"the {what} has label {labels.max()}, and classes are 0 to {num_classes - 1}: count "
                    "them all, or ignore a label of the ground truth"
                )
        pairs = np.bincount(truth * np.int64(num_classes) + predicted, minlength=num_classes**2)
        return add_states(state, SemanticState(pairs.reshape(num_classes, num_classes)))

    def compute(state: SemanticState) -> SemanticScores:
        hit, true, drawn = np.diag(state.confusion), state.confusion.sum(1), state.confusion.sum(0)
        union = true + drawn - hit
        iou = ratio(hit, union)
        return SemanticScores(ratio(iou[union > 0].sum(), (union > 0).sum()), ratio(hit.sum(), true.sum()), iou)

    return Metric(zero, update, add_states, compute)


def _areas(predicted: _Labels, truth: _Labels) -> list[Int64[np.ndarray, "254"]]:
    """Returns the pixels of labels 1 to 254 in a prediction, in the ground truth, and in both."""
    return [
        np.bincount(labels.ravel(), minlength=256)[1:_VOID] for labels in (predicted, truth, truth[predicted == truth])
    ]


def _sum_of_means(
    values: Float[np.ndarray, "t n"], counted: Bool[np.ndarray, "t n"], axis: int
) -> tuple[np.float64, np.int64]:
    """Returns the sum of the means along an axis of the values that count, and the number of means."""
    means = ratio(np.where(counted, values, 0).sum(axis), counted.sum(axis))
    known = ~np.isnan(means)
    return means[known].sum(), np.int64(known.sum())
